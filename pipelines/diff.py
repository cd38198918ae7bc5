"""What differs between two versions of an index, and what that does to its rankings.

Reads       ids, hashes and labels of the shards that only one of the versions has; with a
            probe, both versions as `rank` does.
Writes      two rankings into the folder of temporary files; the report is the result.
Resources   one process; memory bounded. With a probe also those of `rank`.
Fails when  a version is not there any more, or the probe was made by another model.
"""

from __future__ import annotations

from pipelines.progress import STDERR
from pipelines.rank.executor import choose_executor
from pipelines.ray_runtime.cluster_options import Site
from retrieval.index import open_index
from retrieval.maintenance.diff import VersionDiff, add_churn, diff_versions
from retrieval.ranking.settings import RankConfig
from retrieval.ranking.sides import open_side

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
    """Compare two versions; see `retrieval.maintenance.diff`.

    Args:
        index: The index.
        before: A version.
        after: Another.
        num_listed: Most ids to name of each kind of change; 0 names none.
        probe: Index or vectors of queries to rank both versions for.
        top_k: Images to rank for each of them.

    Raises:
        RetrievalError: as `diff_versions` and `add_churn` do.
    """
    found = diff_versions(index, before, after, num_listed=num_listed)
    if probe is None:
        return found
    queries, gallery = open_side(probe), open_side(open_index(found.index, before))
    executor = choose_executor(queries, gallery, RankConfig(top_k=top_k), Site())
    return add_churn(found, queries, top_k, executor=executor, progress=STDERR)
