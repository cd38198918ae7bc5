"""What differs between two versions of an index, and what that does to its rankings.

Reads       ids, hashes and labels of the shards that only one of the versions has; with a
            probe, both versions as `rank` does.
Writes      two rankings into the folder of temporary files; the report is the result.
Resources   one process; memory bounded. With a probe also those of `rank`.
Fails when  a version is not there any more, or the probe was made by another model.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace

from pipelines import rank
from retrieval.errors import UsageError
from retrieval.evaluation.overlap import Churn, compare_rankings
from retrieval.maintenance.version_diff import VersionDiff, diff_versions
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
) -> VersionDiff:
    """Compare two versions; see `retrieval.maintenance.version_diff.diff_versions`.

    Args:
        index: The index.
        before: A version.
        after: Another.
        num_listed: Most ids to name of each kind of change; 0 names none.
        probe: Index or vectors of queries to rank both versions for.
        top_k: Images to rank for each of them.

    Raises:
        RetrievalError: as `diff_versions` and `rank` do.
    """
    found = diff_versions(index, before, after, num_listed=num_listed)
    if probe is None:
        return found
    churn = _churn(found.index, before, after, probe, top_k)
    return replace(found, top_k=top_k, churn=churn)


def _churn(uri: str, before: int, after: int, probe: str, top_k: int) -> Churn:
    with tempfile.TemporaryDirectory(prefix="retrieval-diff-") as folder:
        old = _rank(probe, uri, before, join(folder, "before"), top_k)
        new = _rank(probe, uri, after, join(folder, "after"), top_k)
        return compare_rankings(old, new)


def _rank(probe: str, uri: str, version: int, folder: str, top_k: int) -> Ranking:
    report = rank.run(probe, f"{uri}@{version}", folder, rank.RankConfig(top_k=top_k))
    ranked = report["gallery"]
    if (ranked["uri"], ranked["version"]) != (uri, version):
        raise UsageError(
            f"{uri}@{version}: a folder of that name is there, so that this version of {uri} "
            f"cannot be named. Rename the folder."
        )
    return open_ranking(folder)
