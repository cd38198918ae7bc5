"""A ranking as a folder: Parquet parts, one a block of queries, and the manifest at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.progress import QUIET, Progress
from retrieval.ranking.executor import Executor, ThreadExecutor
from retrieval.ranking.files import RankingWriter
from retrieval.ranking.incremental import Previous
from retrieval.ranking.plan import Plan, make_plan
from retrieval.ranking.queries import Queries
from retrieval.ranking.rank_blocks import BlockRanker
from retrieval.ranking.rank_report import RankReport, sides_of
from retrieval.ranking.settings import RankConfig
from retrieval.ranking.sides import Side, open_side, sum_ids
from retrieval.search import Candidates
from retrieval.step_timer import StepTimer
from retrieval.storage import absolute_uri
from retrieval.vectors import LongIdError, LongIds, VectorBlock, VectorSource

__all__ = ["write_ranking"]


def write_ranking(  # noqa: PLR0913 - what is ranked, and who does it
    queries: Side,
    gallery: Side,
    uri: str,
    config: RankConfig,
    *,
    executor: Executor | None = None,
    progress: Progress = QUIET,
    timer: StepTimer | None = None,
) -> RankReport:
    """Rank the gallery for each query and write the ranking.

    Args:
        queries: Index or vectors of the queries.
        gallery: Index or vectors of the gallery.
        uri: Folder of the ranking; one that is there is replaced at the end. Parts of a killed
            run of the same inputs and settings are kept and not ranked again. Whether it lies
            apart from the two sides is not looked at: see `places.check_places`.
        config: Settings.
        executor: Who ranks; by default the threads of this process.
        progress: Told how far it is.
        timer: What has been running since the first of the work, if that was before this.

    Raises:
        RetrievalError: the two sides are of different models or dimensions, a vector is NaN,
            infinite or zero, an id occurs twice, a shard is damaged or changes meanwhile, or k is
            above the gallery's size; the ranking cannot be written there.

    Cost: holds at most `config.memory_bytes`, and the ids of the queries, some 100 bytes each.
    """
    executor, timer = executor or ThreadExecutor(config.num_threads), timer or StepTimer()
    with progress.status("opening the two sides"):
        sides = open_side(queries, config.columns), open_side(gallery, config.columns)
    run = _Run(uri, config, executor, progress, timer)
    try:
        return run.rank(*sides, has_long_ids=False)
    except LongIdError:  # rare, and only reading the ids tells
        return run.rank(*sides, has_long_ids=True)


@dataclass(frozen=True)
class _Run:
    uri: str
    config: RankConfig
    executor: Executor
    progress: Progress
    timer: StepTimer

    def rank(
        self, queries: VectorSource, gallery: VectorSource, *, has_long_ids: bool
    ) -> RankReport:
        config, executor = self.config, self.executor
        with self.progress.status("opening the two sides"):
            plan = make_plan(
                queries, gallery, config, executor.num_threads, has_long_ids=has_long_ids
            )
            writer = RankingWriter(self.uri, plan.run_key)
            loaded = Queries(plan.queries, config.memory_for(plan.num_threads) // 4)
            previous = _previous(plan)
        self.timer.end("open")
        with executor.session():
            self.timer.end("start_ray")
            ranker = BlockRanker(plan, loaded, executor, self.progress, previous)
            with _finished_parts_told(writer, plan, self.progress):
                ranker.run(_Parts(writer, plan.gallery.long_ids))
                sums = {"queries": sum_ids(plan.queries), "gallery": sum_ids(plan.gallery)}
                plan.check_unchanged()
            self.timer.end("rank")
        report = _report(plan, writer, ranker, sums, self.timer.seconds)
        writer.finish(report.to_json())
        return report


def _report(
    plan: Plan,
    writer: RankingWriter,
    ranker: BlockRanker,
    sums: Mapping[str, str | None],
    seconds: Mapping[str, float],
) -> RankReport:
    previous = plan.config.previous
    return RankReport(
        ranking=writer.uri,
        **sides_of(plan),
        ids_sum=sums,
        num_rows=writer.num_rows,
        created_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        plan=plan.blocks,
        num_resumed_parts=writer.num_resumed,
        previous=previous and absolute_uri(previous),
        num_spared_queries=ranker.num_spared,
        certificate=ranker.certificates,
        seconds=dict(seconds),
    )


def _previous(plan: Plan) -> Previous | None:
    config = plan.config
    if config.previous is None or config.top_k is None:  # "all" lists every new image anyway
        return None
    previous = Previous(config.previous, plan.queries, plan.gallery, plan.k, config)
    # Where no shard has stayed, meeting the added ones is a full pass: its lists save nothing.
    return previous if len(previous.added) < len(plan.gallery.files) else None


@contextmanager
def _finished_parts_told(writer: RankingWriter, plan: Plan, progress: Progress) -> Iterator[None]:
    """Say what an error or ctrl-C has left."""
    try:
        yield
    except BaseException:
        if writer.num_parts:
            progress.say(
                f"{writer.num_parts} of {plan.num_blocks} parts are finished and kept in "
                f"{writer.uri}: the same command goes on after them."
            )
        raise


@dataclass(frozen=True)
class _Parts:
    """The parts of a folder as an `Output`."""

    writer: RankingWriter
    long_ids: LongIds | None

    def resume(self) -> bool:
        return self.writer.resume()

    def write(self, block: VectorBlock, found: Candidates) -> None:
        self.writer.write_part(_as_table(block.ids, found, self.long_ids))


def _as_table(
    ids: NDArray[np.bytes_], found: Candidates, long_ids: LongIds | None = None
) -> pa.Table:
    """Candidates, sorted by query and rank, as rows of a ranking."""
    counts = np.bincount(found.query, minlength=len(ids))
    ends = np.cumsum(counts)
    ranks = np.arange(1, len(found) + 1) - np.repeat(ends - counts, counts)
    if long_ids is None:
        query_ids = pa.array(ids[found.query]).cast(pa.string())
        gallery_ids = pa.array(found.ids).cast(pa.string())
    else:  # each long id once
        query_ids = pa.DictionaryArray.from_arrays(found.query, long_ids.expand(ids))
        names, places = np.unique(found.ids, return_inverse=True)
        gallery_ids = pa.DictionaryArray.from_arrays(places, long_ids.expand(names))
    return pa.table(
        {
            "query_id": query_ids,
            "rank": pa.array(ranks.astype(np.int32)),
            "gallery_id": gallery_ids,
            "score": pa.array(found.scores),
        }
    )
