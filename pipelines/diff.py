"""What differs between two versions of an index, and what that does to its rankings.

Reads       ids, hashes and labels of the shards that only one of the versions has; with a
            probe, both versions as `rank` does.
Writes      two rankings into the folder of temporary files; the report is the result.
Resources   one process; memory bounded. With a probe also those of `rank`.
Fails when  a version is not there any more, or the probe was made by another model.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from typing import Any

from pipelines import rank
from retrieval.errors import UsageError
from retrieval.evaluation.overlap import compare_rankings
from retrieval.index import open_index
from retrieval.index.history import split_version
from retrieval.maintenance.version_diff import STATES, compare_versions
from retrieval.ranking.files import Ranking, open_ranking
from retrieval.storage import join

__all__ = ["run"]


def run(
    index: str,
    before: int,
    after: int,
    *,
    num_listed: int = 0,
    probe: str | None = None,
    top_k: int = 10,
) -> dict[str, Any]:
    """Compare two versions.

    Args:
        index: The index.
        before: A version.
        after: Another.
        num_listed: Most ids to name of each kind of change; 0 names none.
        probe: Index or vectors of queries to rank both versions for.
        top_k: Images to rank for each of them.

    Returns:
        The report: `counts` of each kind of change; `ids` of the first of them; `churn`.

    Raises:
        UsageError: `index` names a version itself, or has none of these.
        RetrievalError: see the head of this module.
    """
    uri, named = split_version(index)
    if named is not None:
        raise UsageError(f"{index}: name the versions apart: diff {uri} {before} {after}")
    old, new = open_index(uri, before), open_index(uri, after)
    changes = compare_versions(old, new, num_listed)
    report: dict[str, Any] = {
        "index": uri,
        "before": {"version": before, "rows": old.num_rows},
        "after": {"version": after, "rows": new.num_rows},
        "is_same_model": old.spec.makes_same(new.spec),
        "num_shared_shards": changes.num_shared_shards,
        "num_rows_read": changes.num_rows_read,
        "counts": dict(changes.counts),
    }
    if num_listed:
        report["ids"] = {state: changes.examples[state] for state in STATES}
    if probe is not None:
        report["churn"] = {"top_k": top_k, **_churn(uri, before, after, probe, top_k)}
    return report


def _churn(uri: str, before: int, after: int, probe: str, top_k: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="retrieval-diff-") as folder:
        old = _rank(probe, uri, before, join(folder, "before"), top_k)
        new = _rank(probe, uri, after, join(folder, "after"), top_k)
        return asdict(compare_rankings(old, new))


def _rank(probe: str, uri: str, version: int, folder: str, top_k: int) -> Ranking:
    report = rank.run(probe, f"{uri}@{version}", folder, rank.RankConfig(top_k=top_k))
    ranked = report["gallery"]
    if (ranked["uri"], ranked["version"]) != (uri, version):
        raise UsageError(
            f"{uri}@{version}: a folder of that name is there, so that this version of {uri} "
            f"cannot be named. Rename the folder."
        )
    return open_ranking(folder)
