"""The job: block by block of queries, each a part of the ranking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from retrieval.ranking.settings import RankConfig

from pipelines.progress import announce, progress_line, status_line
from pipelines.rank.placement import place_scorers
from pipelines.rank.places import check_places
from pipelines.rank.planning import Plan, make_plan
from pipelines.rank.previous import Previous
from pipelines.rank.queries import Queries
from pipelines.rank.sharing import Threads, Workers
from pipelines.ray_runtime.cluster_options import Site
from pipelines.step_timer import Laps
from retrieval.format_version import FORMAT_VERSION
from retrieval.ranking.files import RANKING_FORMAT, RankingWriter, check_ranking_place
from retrieval.ranking.sides import describe, sum_ids
from retrieval.search import (
    Candidates,
    Choice,
    Neighbours,
    is_worth_a_sample,
    score_rule,
    warm_up,
)
from retrieval.storage import absolute_uri
from retrieval.vectors import LongIdError, LongIds, Sample, VectorBlock, VectorPart

__all__ = ["estimate", "run"]


def run(
    queries: str,
    gallery: str,
    ranking: str,
    config: RankConfig,
    *,
    site: Site = Site(),
    is_kept_inside: bool = False,
) -> dict[str, Any]:
    """Rank the gallery for each query and write the ranking.

    Args:
        queries: Index or vectors of the queries.
        gallery: Index or vectors of the gallery.
        ranking: Folder of the ranking; one that is there is replaced at the end. Parts of a
            killed run of the same inputs and settings are kept and not ranked again.
        config: Settings.
        site: Where it runs. Without an address or a wish for nodes, and without a Ray that is
            already running here, this process ranks alone.
        is_kept_inside: Whether the ranking may lie inside the gallery's index, which then knows
            its place.

    Returns:
        The report, which is also in _ranking.json.
    """
    if not is_kept_inside:
        check_places(queries, gallery, ranking, config.previous)
    try:
        return _run(queries, gallery, ranking, config, site, has_long_ids=False)
    except LongIdError:  # rare, and only reading the ids tells
        return _run(queries, gallery, ranking, config, site, has_long_ids=True)


def _run(
    queries: str,
    gallery: str,
    ranking: str,
    config: RankConfig,
    site: Site,
    *,
    has_long_ids: bool,
) -> dict[str, Any]:
    laps = Laps()
    with status_line("opening the two sides"):
        plan = make_plan(queries, gallery, config, site, has_long_ids=has_long_ids)
        writer = RankingWriter(ranking, plan.run_key)
        loaded = Queries(plan.queries, config.memory_for(plan.num_threads) // 4)
        previous = _previous(plan)
    laps.end("open")
    with _session(site) if plan.uses_ray else nullcontext():
        laps.end("start_ray")
        ranked = _Ranking(plan, loaded, previous)
        with _finished_parts_told(writer, plan):
            ranked.write(writer)
            sums = {"queries": sum_ids(plan.queries), "gallery": sum_ids(plan.gallery)}
            plan.check_unchanged()
        laps.end("rank")
    report = {
        FORMAT_VERSION: RANKING_FORMAT,
        "ranking": absolute_uri(ranking),
        **_facts(plan),
        "ids_sum": sums,
        "num_rows": writer.num_rows,
        "created_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "plan": asdict(plan.blocks),
        "num_resumed_parts": writer.num_resumed,
        "previous": config.previous and absolute_uri(config.previous),
        "num_spared_queries": ranked.num_spared,
        "certificate": ranked.certificates,
        "seconds": laps.seconds,
    }
    writer.finish(report)
    return report


def _session(site: Site) -> AbstractContextManager[None]:
    # Ray is loaded only where it is used: that alone takes as long as ranking a small gallery.
    from pipelines.ray_runtime.session import session

    return session(site)


def estimate(
    queries: str,
    gallery: str,
    config: RankConfig,
    *,
    ranking: str | None = None,
    site: Site = Site(),
) -> dict[str, Any]:
    """What a run would read and write, and about how long it would take; writes nothing.

    The time is that of the arithmetic, from a sample of the gallery, on the CPUs of this
    machine; reading from a slow store comes on top.
    """
    if ranking is not None:
        check_places(queries, gallery, ranking, config.previous)
        check_ranking_place(ranking)
    try:
        plan, choice = _measured(queries, gallery, config, site, has_long_ids=False)
    except LongIdError:
        plan, choice = _measured(queries, gallery, config, site, has_long_ids=True)
    width = np.dtype(plan.gallery.dtype).itemsize
    gallery_bytes = plan.gallery.num_rows * plan.gallery.dim * width
    query_bytes = plan.queries.num_rows * plan.queries.dim * np.dtype(plan.queries.dtype).itemsize
    core_s = choice.ns_a_row * 1e-9 * plan.gallery.num_rows * plan.num_blocks
    return {
        "dry_run": True,
        **_facts(plan),
        "num_rows": plan.queries.num_rows * plan.k,
        "plan": {**asdict(plan.blocks), "num_blocks": plan.num_blocks, "parts": len(plan.parts)},
        "read_bytes": {
            "queries": query_bytes,
            "gallery_once": gallery_bytes,
            "gallery_all_passes": gallery_bytes * plan.num_blocks,
        },
        "first_product_dims": None if choice.basis is None else choice.basis.shape[1],
        "expected_core_seconds": round(core_s, 1),
        "expected_seconds": round(core_s / plan.num_threads, 1),
        "reads": {"queries": plan.queries.uri, "gallery": plan.gallery.uri},
    }


def _measured(
    queries: str, gallery: str, config: RankConfig, site: Site, *, has_long_ids: bool
) -> tuple[Plan, Choice]:
    plan = make_plan(queries, gallery, config, site, has_long_ids=has_long_ids)
    loaded = Queries(plan.queries, config.memory_for(plan.num_threads) // 4)
    first = loaded.block(0, plan.blocks.query_rows)
    return plan, plan.choose_basis(plan.sample(), first.vectors)


def _facts(plan: Plan) -> dict[str, Any]:
    config = plan.config
    return {
        "queries": describe(plan.queries),
        "gallery": describe(plan.gallery),
        "metric": config.metric,
        "score_rule": score_rule(config.metric),
        "top_k": plan.k,
        # With exclude_self only "all" is: a query outside the gallery has one image more.
        "is_complete": config.top_k is None or plan.k == plan.gallery.num_rows,
        "exclude_self": config.exclude_self,
        "num_queries": plan.queries.num_rows,
        "num_gallery": plan.gallery.num_rows,
    }


def _previous(plan: Plan) -> Previous | None:
    config = plan.config
    if config.previous is None or config.top_k is None:  # "all" lists every new image anyway
        return None
    previous = Previous(config.previous, plan.queries, plan.gallery, plan.k, config)
    # Where no shard has stayed, meeting the added ones is a full pass: its lists save nothing.
    return previous if len(previous.added) < len(plan.gallery.files) else None


@contextmanager
def _finished_parts_told(writer: RankingWriter, plan: Plan) -> Iterator[None]:
    """Say what an error or ctrl-C has left."""
    try:
        yield
    except BaseException:
        if writer.num_parts:
            announce(
                f"{writer.num_parts} of {plan.num_blocks} parts are finished and kept in "
                f"{writer.uri}: the same command goes on after them."
            )
        raise


@dataclass(frozen=True)
class _Method:
    """How all blocks are ranked, and who does it."""

    sample: Sample
    choice: Choice
    crew: Workers


class _Ranking:
    """Ranks the blocks of queries, one after the other.

    Attributes:
        certificates: How each block was found.
        num_spared: Queries for which the previous ranking made a full pass needless.
    """

    def __init__(self, plan: Plan, queries: Queries, previous: Previous | None) -> None:
        self.certificates: list[dict[str, Any]] = []
        self.num_spared = 0
        self._plan, self._queries, self._previous = plan, queries, previous
        self._num_done = 0
        self._method: _Method | None = None

    def write(self, writer: RankingWriter) -> None:
        """Rank and write all blocks that are not there yet."""
        plan, step = self._plan, self._plan.blocks.query_rows
        total = plan.num_blocks * len(plan.parts)
        with progress_line("ranked", "parts", total, lambda: min(self._num_done, total)):
            for number in range(plan.num_blocks):
                if writer.resume():
                    self._num_done += len(plan.parts)
                    self.certificates.append({"engine": "an earlier run"})
                    continue
                block = self._queries.block(number * step, (number + 1) * step)
                writer.write_part(_as_table(block.ids, self._rank(block), plan.gallery.long_ids))

    def _rank(self, block: VectorBlock) -> Candidates:
        if self._previous is None:
            return self._full(block)
        plan = self._plan
        old = self._previous.lists(block.ids)
        if not old.is_listed.any():
            return self._full(block)
        start = self._neighbours(block)
        start.take(old.kept, plan.config.metric)
        added = [part for part in plan.parts if part.file in self._previous.added]
        self._meet(block, added, start)
        found = start.result(plan.config.metric)
        is_settled = old.is_settled(found, plan.k, plan.config.metric)
        self.num_spared += int(is_settled.sum())
        if is_settled.all():
            return found
        rest = np.flatnonzero(~is_settled).astype(np.int32)
        again = self._full(VectorBlock(block.ids[rest], block.vectors[rest]))
        return _merged(found, is_settled, again, rest)

    def _full(self, block: VectorBlock) -> Candidates:
        guessed = self._guess(block)
        found = self._whole_gallery(block, guessed)
        # Where k rows reach the guess, no row that is wanted was left out for it.
        is_settled = np.bincount(found.query, minlength=len(block.ids)) >= self._plan.k
        is_settled |= np.isneginf(guessed)
        if is_settled.all():
            return found
        rest = np.flatnonzero(~is_settled).astype(np.int32)
        unlucky = VectorBlock(block.ids[rest], block.vectors[rest])
        again = self._whole_gallery(unlucky, np.full(len(rest), -np.inf))
        return _merged(found, is_settled, again, rest)

    def _whole_gallery(self, block: VectorBlock, floors: NDArray[np.float64]) -> Candidates:
        start = self._neighbours(block)
        start.raise_floors(floors)
        self._meet(block, self._plan.parts, start)
        return start.result(self._plan.config.metric)

    def _neighbours(self, block: VectorBlock) -> Neighbours:
        # A query's own image is left out where the rows are met; what is merged here has none.
        return Neighbours(block.ids, self._plan.k, exclude_self=False)

    def _guess(self, block: VectorBlock) -> NDArray[np.float64]:
        num_queries, num_dims = block.vectors.shape
        if not is_worth_a_sample(num_queries, num_dims, self._plan.gallery.num_rows):
            return np.full(num_queries, -np.inf)
        method = self._find_method(block)
        return method.crew.guess(block, method.sample)

    def _meet(self, block: VectorBlock, parts: Sequence[VectorPart], start: Neighbours) -> None:
        """Take the rows of some parts into the neighbours of a block."""
        if parts:
            method = self._find_method(block)
            self.certificates.append(method.crew.rank(block, parts, method.choice.basis, start))

    def _find_method(self, block: VectorBlock) -> _Method:
        """The first block shows how to rank, and how much there is to do."""
        if self._method is None:
            sample = self._plan.sample()
            choice = self._plan.choose_basis(sample, block.vectors)
            self._method = _Method(sample, choice, self._engage(choice))
        return self._method

    def _engage(self, choice: Choice) -> Workers:
        plan, config = self._plan, self._plan.config
        if not plan.uses_ray:
            with status_line("compiling for this machine; only the first time takes seconds"):
                warm_up()
            return Threads(plan.task(has_gpu=None), plan.num_threads, self._count)
        from pipelines.rank.actors import Actors
        from pipelines.ray_runtime.nodes import resources

        there = resources(plan.site)
        task = plan.task(has_gpu=there.num_gpus > 0)
        work_ns = choice.ns_a_row * plan.gallery.num_rows * plan.num_blocks
        place = place_scorers(there, config.num_actors, work_ns, on_gpu=task.device == "cuda")
        return Actors(task, place, plan.site, self._count)

    def _count(self) -> None:
        self._num_done += 1


def _merged(
    found: Candidates, is_settled: NDArray[np.bool_], again: Candidates, rest: NDArray[np.int32]
) -> Candidates:
    """Settled queries as they are, the others (numbered by `rest`) as they were ranked again."""
    kept = is_settled[found.query]
    query = np.concatenate([found.query[kept], rest[again.query]])
    order = np.argsort(query, kind="stable")
    return Candidates(
        query[order],
        np.concatenate([found.ids[kept], again.ids])[order],
        np.concatenate([found.scores[kept], again.scores])[order],
    )


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
