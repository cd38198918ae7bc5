"""What differs between two versions of an index, and what that does to its rankings."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from typing import Any

from retrieval.errors import UsageError
from retrieval.evaluation.overlap import Churn, compare_rankings
from retrieval.index.history import split_version
from retrieval.index.table import open_index
from retrieval.maintenance.version_diff import STATES, Changes, compare_versions
from retrieval.progress import QUIET, Progress
from retrieval.ranking.executor import Executor
from retrieval.ranking.files import open_ranking
from retrieval.ranking.settings import RankConfig
from retrieval.ranking.sides import Side
from retrieval.ranking.write import write_ranking
from retrieval.storage import join

__all__ = ["VersionDiff", "VersionSize", "add_churn", "diff_versions"]


@dataclass(frozen=True)
class VersionSize:
    """A version, and how many rows it has."""

    version: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class VersionDiff:
    """What differs between two versions of an index.

    Attributes:
        index: The index.
        before, after: The versions.
        is_same_model: Whether their embeddings were made alike.
        changes: Ids that differ.
        num_listed: Most ids of each state that are named; 0 names none.
        top_k: Images that were ranked for each query of a probe; None without one.
        churn: How much the two rankings of the probe differ; likewise.
    """

    index: str
    before: VersionSize
    after: VersionSize
    is_same_model: bool
    changes: Changes
    num_listed: int
    top_k: int | None = None
    churn: Churn | None = None

    def to_json(self) -> dict[str, Any]:
        """The attributes by their names; `ids` and `churn` where they were asked for."""
        changes = self.changes
        said: dict[str, Any] = {
            "index": self.index,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "is_same_model": self.is_same_model,
            "num_shared_shards": changes.num_shared_shards,
            "num_rows_read": changes.num_rows_read,
            "counts": dict(changes.counts),
        }
        if self.num_listed:
            said["ids"] = {state: changes.examples[state] for state in STATES}
        if self.churn is not None:
            said["churn"] = {"top_k": self.top_k, **asdict(self.churn)}
        return said


def diff_versions(
    index: str,
    before: int,
    after: int,
    *,
    num_listed: int = 0,
    probe: Side | None = None,
    top_k: int = 10,
) -> VersionDiff:
    """Compare two versions of an index.

    Args:
        index: The index, without a version.
        before: A version.
        after: Another, which may be the older one.
        num_listed: Most ids to name of each state.
        probe: Queries to rank both versions for, in this process; see `add_churn`.
        top_k: Images to rank for each of them.

    Raises:
        UsageError: `index` names a version itself, or has none of these.
        IndexFormatError: as `compare_versions`, whose cost is this one's without a probe.
    """
    uri, named = split_version(index)
    if named is not None:
        raise UsageError(f"{index}: name the versions apart: diff {uri} {before} {after}")
    old, new = open_index(uri, before), open_index(uri, after)
    found = VersionDiff(
        index=uri,
        before=VersionSize(before, old.num_rows),
        after=VersionSize(after, new.num_rows),
        is_same_model=old.spec.makes_same(new.spec),
        changes=compare_versions(old, new, num_listed),
        num_listed=num_listed,
    )
    return found if probe is None else add_churn(found, probe, top_k)


def add_churn(
    diff: VersionDiff,
    probe: Side,
    top_k: int = 10,
    *,
    executor: Executor | None = None,
    progress: Progress = QUIET,
) -> VersionDiff:
    """Rank both versions for some queries, and say how much the two rankings differ.

    Args:
        diff: Of the two versions.
        probe: Index or vectors of the queries.
        top_k: Images to rank for each of them.
        executor: Who ranks; by default the threads of this process.
        progress: Told how far the rankings are.

    Returns:
        The same with `top_k` and `churn`.

    Raises:
        RetrievalError: as `write_ranking` and `compare_rankings` do.

    Cost: two rankings, which lie in the folder of temporary files meanwhile.
    """
    config = RankConfig(top_k=top_k)
    with tempfile.TemporaryDirectory(prefix="retrieval-diff-") as folder:
        before, after = join(folder, "before"), join(folder, "after")
        for version, place in ((diff.before, before), (diff.after, after)):
            gallery = open_index(diff.index, version.version)
            write_ranking(probe, gallery, place, config, executor=executor, progress=progress)
        churn = compare_rankings(open_ranking(before), open_ranking(after))
    return replace(diff, top_k=top_k, churn=churn)
