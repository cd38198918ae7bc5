"""Where a night writes, looked at before it begins."""

from __future__ import annotations

from pipelines.embed.inputs import check_output
from pipelines.embed.inputs import check_places as check_index_place
from pipelines.reindex.config import ReindexConfig
from pipelines.reindex.sides import index_for
from retrieval.errors import StorageError
from retrieval.index import is_index
from retrieval.index.table import may_hold_index
from retrieval.ranking.files import check_ranking_place
from retrieval.report_page import check_output as check_report
from retrieval.storage import absolute_uri, check_apart, entry_at, is_same_place, join

__all__ = ["PROBE_RANKINGS", "check_places"]

PROBE_RANKINGS = "_probe_rankings"  # in the index
_OWN = ("_queries", "_probe", PROBE_RANKINGS)


def check_places(photos: str, index: str, config: ReindexConfig) -> None:
    """Refuse a night that would mix up what it reads and writes, or replace what is not its own.

    Queries and probe may be the index itself, or what a night keeps of them in it.

    Raises:
        UsageError: an input and an output do not lie apart.
        StorageError: where the night writes lies something that it has not written.
    """
    check_index_place(photos, index, config.embed)
    sides = {"queries": config.queries, "probe": config.gate.probe}
    read = {f"the {name}": side for name, side in sides.items() if side}
    elsewhere = {name: side for name, side in read.items() if not _is_kept(side, index)}
    check_apart(elsewhere, {"the index": index})
    for name in _OWN:
        entry = entry_at(join(index, name))
        if entry and entry.kind != "folder":
            raise StorageError(
                f"{join(index, name)}: is a link or a file, where a folder of the index is needed. "
                f"Move it elsewhere."
            )
    for name, side in sides.items():
        if side and not (may_hold_index(absolute_uri(side)) and is_index(side)):
            check_output(index_for(name, index))
    if config.rankings is not None:
        model = {"the model's folder": config.embed.model}
        read |= {"the photos' folder": photos, "the gallery's index": index}
        check_apart(read | model, {"the rankings": config.rankings, "the page": config.page})
        check_apart({"the rankings": config.rankings}, {"the page": config.page})
        check_ranking_place(config.rankings)
        check_report(config.page)


def _is_kept(side: str, index: str) -> bool:
    return any(is_same_place(side, place) for place in (index, *(join(index, n) for n in _OWN[:2])))
