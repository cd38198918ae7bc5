"""Queries and probe as indexes of the model that the night has; where a night writes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines import embed
from pipelines.embed import EmbedConfig
from pipelines.embed.inputs import check_output
from pipelines.embed.inputs import check_places as check_index_place
from pipelines.reindex.config import ReindexConfig
from retrieval.errors import MismatchError, StorageError
from retrieval.index import EmbeddingSpec, Index, is_index, open_index
from retrieval.index.table import may_hold_index
from retrieval.ranking.files import check_ranking_place
from retrieval.report_page import check_output as check_report
from retrieval.storage import absolute_uri, check_apart, entry_at, is_same_place, join

__all__ = [
    "PROBE_RANKINGS",
    "Sides",
    "check_places",
    "embed_sides",
    "following",
    "index_at",
    "index_for",
    "is_probed_by_queries",
]


@dataclass(frozen=True)
class Sides:
    """Addresses of the indexes of queries and probe; None for one that the night has not."""

    queries: str | None
    probe: str | None


def embed_sides(config: ReindexConfig, prepared: embed.Prepared, executor: embed.Executor) -> Sides:
    """Bring queries and probe up to date by the gallery's network, if they are folders of images.

    Their indexes lie in that of the gallery, under "_queries" and "_probe". A probe that is the
    queries is embedded once, as these; one that nothing is measured on, not at all.

    Args:
        config: Settings of the night.
        prepared: The gallery's next version.
        executor: Who embeds them.

    Raises:
        MismatchError: one is an index of another model.
        RetrievalError: as `embed` does.
    """
    probe = None if prepared.candidate.is_unchanged else config.gate.probe
    queries_index = probe_index = None
    if config.queries is not None:
        queries_index = _as_index(config.queries, "queries", config.embed, prepared, executor)
    if probe is not None and is_probed_by_queries(config):
        probe_index = queries_index
    elif probe is not None:
        probe_index = _as_index(probe, "probe", config.embed, prepared, executor)
    return Sides(queries_index, probe_index)


def is_probed_by_queries(config: ReindexConfig) -> bool:
    """Whether queries and probe are the same place."""
    queries, probe = config.queries, config.gate.probe
    return queries is not None and probe is not None and is_same_place(queries, probe)


def _as_index(
    side: str, name: str, config: EmbedConfig, prepared: embed.Prepared, executor: embed.Executor
) -> str:
    gallery = prepared.candidate.index
    if found := index_at(side, name, gallery.spec):
        return found.uri
    made = index_for(name, gallery.uri)
    embed.run(
        absolute_uri(side),
        made,
        following(config, gallery),
        network=prepared.update.network,
        executor=executor,
    )
    return made


def following(config: EmbedConfig, gallery: Index | None) -> EmbedConfig:
    """The settings for a side, which goes wherever the gallery goes, to another model too."""
    if gallery is not None:  # which says in its record what the command left open
        config = embed.complete(replace(config, new_model=False), gallery)
    return replace(config, rebase=True, new_model=True)


def index_for(name: str, index: str) -> str:
    """Where the images of a side are embedded."""
    return join(absolute_uri(index), f"_{name}")


def index_at(side: str, name: str, spec: EmbeddingSpec) -> Index | None:
    """The index that a side is; None for a folder of images.

    Raises:
        MismatchError: it is of another model.
    """
    side = absolute_uri(side)
    if not (may_hold_index(side) and is_index(side)):
        return None
    index = open_index(side)
    found = index.spec
    if not found.makes_same(spec):
        raise MismatchError(
            f"`{name}` {side}: made by {found.backbone} with fingerprint {found.fingerprint[:12]}, "
            f"but this night embeds by {spec.backbone} with {spec.fingerprint[:12]}. Embed it with "
            f"the same model, or name the folder of its photos. Nothing was committed."
        )
    return index


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
