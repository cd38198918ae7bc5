"""Rank a gallery for each query, exactly.

Reads       queries and gallery: indexes, or vectors of other tools.
Writes      a ranking: one Parquet part a block of queries, then ranking.json.
Resources   actors of one CPU each; every actor folds a share of the gallery's shards for a
            block of queries, the driver merges. An actor holds at most `memory_bytes` of
            vectors, scores and candidates; the driver one block of queries and its results,
            and the queries' ids (about 100 bytes each).
Resume      a killed run leaves the ranking that was there before; run it again.
Fails when  the two sides are of different models or dimensions, a vector is NaN, infinite or
            zero, a shard is damaged or changes meanwhile, or k is above the gallery's size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from pipelines import cluster
from pipelines.progress import progress_line
from retrieval.errors import IndexFormatError, MismatchError, UsageError
from retrieval.rankings import RankingWriter
from retrieval.search import (
    METRICS,
    BlockPlan,
    Candidates,
    best,
    is_distance,
    plan_blocks,
    top_k,
)
from retrieval.storage import absolute_uri
from retrieval.vectors import (
    VectorBlock,
    VectorColumns,
    VectorFile,
    VectorSource,
    open_source,
    read_blocks,
)

__all__ = ["RankConfig", "run"]

# Products of components that keep an actor busy for about a second, which is what starting
# one costs: little work is done by few actors.
_PRODUCTS_PER_ACTOR = 2e10
_SHARES_PER_ACTOR = 4  # cut finer than actors, so that none waits long for the last


@dataclass(frozen=True, kw_only=True)
class RankConfig:
    """Settings of the job.

    Attributes:
        top_k: Neighbours of each query; None ranks the whole gallery.
        metric: "cosine", "ip", "l2" or "l1".
        exclude_self: Leave out the gallery image with the query's own id.
        num_actors: Actors that share the gallery, at most one per CPU; by default as many as
            there are files and work to share.
        memory_bytes: What one actor may hold.
        columns: Where other tools' files keep ids and vectors.
    """

    top_k: int | None = 10
    metric: str = "cosine"
    exclude_self: bool = False
    num_actors: int | None = None
    memory_bytes: int = 2**30
    columns: VectorColumns | None = None


def run(
    queries: str, gallery: str, ranking: str, config: RankConfig, *, address: str | None = None
) -> dict[str, Any]:
    """Rank the gallery for each query and write the ranking.

    Args:
        queries: Index or vectors of the queries.
        gallery: Index or vectors of the gallery.
        ranking: Folder of the ranking; one that is there is replaced at the end.
        config: Settings.
        address: Ray cluster; see `cluster.session`.

    Returns:
        The report, which is also in ranking.json.
    """
    start = time.monotonic()
    query_source = open_source(queries, config.columns)
    gallery_source = open_source(gallery, config.columns)
    k = _check(query_source, gallery_source, config)
    plan = plan_blocks(query_source.num_rows, gallery_source, k, config.memory_bytes)
    task = _Task(query_source, gallery_source, k, config, plan)
    writer = RankingWriter(ranking)
    ids = _query_ids(task)
    opened = time.monotonic()
    with cluster.session(address):
        started = time.monotonic()
        try:
            num_rows = _rank(task, ids, writer)
        except BaseException:
            writer.abandon()
            raise
        ended = time.monotonic()
    report = {
        "ranking": absolute_uri(ranking),
        "queries": _describe(query_source),
        "gallery": _describe(gallery_source),
        "metric": config.metric,
        "top_k": k,
        # With exclude_self only "all" is: a query outside the gallery has one image more.
        "is_complete": config.top_k is None or k == gallery_source.num_rows,
        "exclude_self": config.exclude_self,
        "num_queries": len(ids),
        "num_gallery": gallery_source.num_rows,
        "num_rows": num_rows,
        "created_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "plan": asdict(plan),
        "seconds": {
            "open": round(opened - start, 3),
            "start_ray": round(started - opened, 3),
            "rank": round(ended - started, 3),
        },
    }
    writer.finish(report)
    return report


def _describe(source: VectorSource) -> dict[str, Any]:
    return {
        "uri": source.uri,
        "version": source.version,
        "num_rows": source.num_rows,
        "num_files": len(source.files),
        "dim": source.dim,
        "dtype": source.dtype,
        "id_column": source.id_column,
        "vector_column": source.vector_column,
        "spec": source.spec and asdict(source.spec),
    }


def _check(queries: VectorSource, gallery: VectorSource, config: RankConfig) -> int:
    """Refuse sides that do not belong together; returns the k to rank."""
    if config.metric not in METRICS:
        raise UsageError(f"--metric {config.metric}: unknown. Use one of {', '.join(METRICS)}.")
    if queries.dim != gallery.dim:
        raise MismatchError(
            f"{gallery.uri}: embeddings of {gallery.dim} dimensions, but those of {queries.uri} "
            f"have {queries.dim}. Embed both with the same model."
        )
    ours, theirs = queries.spec, gallery.spec
    if ours and theirs and ours.fingerprint != theirs.fingerprint:
        raise MismatchError(
            f"{gallery.uri}: made by {theirs.backbone} with fingerprint "
            f"{theirs.fingerprint[:12]}, but {queries.uri} by {ours.backbone} with "
            f"{ours.fingerprint[:12]}. Embed both with the same model, weights and preprocessing."
        )
    most = gallery.num_rows - config.exclude_self
    k = gallery.num_rows if config.top_k is None else config.top_k
    if config.top_k is not None and not 1 <= k <= most:
        without = " other than the query itself" if config.exclude_self else ""
        raise UsageError(
            f"--top-k {k}: {gallery.uri} has {most} images{without}. Use 1 to {most}, or all."
        )
    return k


@dataclass(frozen=True)
class _Task:
    """All that the parts of the job need to know. Plain values: each actor gets them."""

    queries: VectorSource
    gallery: VectorSource
    k: int
    config: RankConfig
    plan: BlockPlan

    def query_blocks(self) -> Iterator[VectorBlock]:
        """The queries' files, some rows at a time."""
        for file in self.queries.files:
            yield from read_blocks(self.queries, file, self.plan.gallery_rows)


def _query_ids(task: _Task) -> NDArray[np.bytes_]:
    """All ids of the queries in the order of the ranking; each must occur once."""
    source = task.queries
    ids = np.sort(np.concatenate([block.ids for block in task.query_blocks()]))
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if twice.size:
        raise IndexFormatError(
            f"{source.uri}: the query id {ids[twice[0]].decode()!r} occurs more than once. "
            f"A ranking is told apart by its query's id; give each its own."
        )
    return ids


def _read_queries(task: _Task, wanted: NDArray[np.bytes_]) -> VectorBlock:
    """The vectors of some ids, in the order of those ids (which is sorted)."""
    vectors = np.empty((len(wanted), task.queries.dim), task.queries.dtype)
    for block in task.query_blocks():
        places = np.searchsorted(wanted, block.ids)
        places[places == len(wanted)] = 0
        is_wanted = wanted[places] == block.ids
        vectors[places[is_wanted]] = block.vectors[is_wanted]
    return VectorBlock(wanted, vectors)


@ray.remote(num_cpus=1, max_restarts=4, max_task_retries=4)
class Scorer:
    """Folds gallery files into the k nearest of a block of queries. Holds no state."""

    def __init__(self, task: _Task) -> None:
        self._task = task

    def fold(self, queries: VectorBlock, files: Sequence[VectorFile]) -> Candidates:
        """The k nearest of these files for each query."""
        task = self._task
        blocks = (
            block
            for file in files
            for block in read_blocks(task.gallery, file, task.plan.gallery_rows)
        )
        config = task.config
        return top_k(
            queries,
            blocks,
            task.k,
            config.metric,
            exclude_self=config.exclude_self,
            num_threads=1,
        )


def _shares(files: Sequence[VectorFile], num_shares: int) -> list[list[VectorFile]]:
    """Deal files out so that the shares have about equally many rows: the largest first."""
    shares: list[list[VectorFile]] = [[] for _ in range(min(num_shares, len(files)))]
    rows = [0] * len(shares)
    for file in sorted(files, key=lambda file: (-file.num_rows, file.uri)):
        smallest = rows.index(min(rows))
        shares[smallest].append(file)
        rows[smallest] += file.num_rows
    return shares


def _rank(task: _Task, ids: NDArray[np.bytes_], writer: RankingWriter) -> int:
    """Rank block by block of queries; returns the number of rows written."""
    k, config, query_rows = task.k, task.config, task.plan.query_rows
    products = len(ids) * task.gallery.num_rows * task.gallery.dim
    useful = min(len(task.gallery.files), 1 + int(products / _PRODUCTS_PER_ACTOR))
    # An actor books a CPU; one more than there are would never start, and be waited for.
    num_actors = min(config.num_actors or useful, cluster.resources().num_cpus)
    actors = [Scorer.remote(task) for _ in range(num_actors)]  # type: ignore[attr-defined]
    shares = _shares(task.gallery.files, _SHARES_PER_ACTOR * len(actors))
    pool = ray.util.ActorPool(actors)
    num_blocks = -(-len(ids) // query_rows)
    num_rows = num_done = 0
    with progress_line("ranked", "shares", num_blocks * len(shares), lambda: num_done):
        for start in range(0, len(ids), query_rows):
            block = _read_queries(task, ids[start : start + query_rows])
            sent = ray.put(block)
            parts: list[Candidates] = []
            for part in pool.map_unordered(
                lambda actor, share, sent=sent: actor.fold.remote(sent, share), shares
            ):
                num_done += 1
                # Folded as they come, so that the driver holds two answers and not all.
                parts = [best([*parts, part], k, smaller_is_nearer=is_distance(config.metric))]
            table = _as_table(block.ids, parts[0])
            writer.write_part(table)
            num_rows += table.num_rows
    return num_rows


def _as_table(ids: NDArray[np.bytes_], found: Candidates) -> pa.Table:
    """Candidates, sorted by query and rank, as rows of a ranking."""
    counts = np.bincount(found.query, minlength=len(ids))
    ends = np.cumsum(counts)
    ranks = np.arange(1, len(found) + 1) - np.repeat(ends - counts, counts)
    return pa.table(
        {
            "query_id": pa.array(ids[found.query]).cast(pa.string()),
            "rank": pa.array(ranks.astype(np.int32)),
            "gallery_id": pa.array(found.ids).cast(pa.string()),
            "score": pa.array(found.scores),
        }
    )
