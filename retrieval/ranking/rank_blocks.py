"""The k nearest of each query: block by block of queries, each met by the whole gallery.

    sample → basis → initial thresholds → scan → a second scan for the queries whose threshold was
    too high

With a previous ranking, its lists and the added rows come first, and only the queries that these
do not settle go that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.progress import Progress
from retrieval.ranking.executor import Executor, Workers
from retrieval.ranking.incremental import Previous
from retrieval.ranking.plan import Plan
from retrieval.ranking.queries import Queries
from retrieval.search import Candidates, Choice, Neighbours, is_worth_a_sample
from retrieval.vectors import Sample, VectorBlock, VectorPart

__all__ = ["BlockRanker", "Output"]


class Output(Protocol):
    """Where the lists of the queries go, block by block."""

    def resume(self) -> bool:
        """Whether the next block is there already, from an earlier run."""

    def write(self, block: VectorBlock, found: Candidates) -> None:
        """Take the lists of the next block, sorted by query and rank."""


@dataclass(frozen=True)
class _Method:
    """How all blocks are ranked, and who does it."""

    sample: Sample
    choice: Choice
    workers: Workers


class BlockRanker:
    """Ranks the blocks of queries, one after the other.

    Attributes:
        certificates: How each block was found.
        num_spared: Queries for which the previous ranking made a full scan needless.
    """

    def __init__(
        self,
        plan: Plan,
        queries: Queries,
        executor: Executor,
        progress: Progress,
        previous: Previous | None = None,
    ) -> None:
        self.certificates: list[dict[str, Any]] = []
        self.num_spared = 0
        self._plan, self._queries, self._previous = plan, queries, previous
        self._executor, self._progress = executor, progress
        self._num_done = 0
        self._method: _Method | None = None

    def run(self, output: Output) -> None:
        """Rank all blocks that are not there yet."""
        plan, step = self._plan, self._plan.blocks.query_rows
        total = plan.num_blocks * len(plan.parts)
        with self._progress.line("ranked", "parts", total, lambda: min(self._num_done, total)):
            for number in range(plan.num_blocks):
                if output.resume():
                    self._num_done += len(plan.parts)
                    self.certificates.append({"engine": "an earlier run"})
                    continue
                block = self._queries.block(number * step, (number + 1) * step)
                output.write(block, self._rank(block))

    def _rank(self, block: VectorBlock) -> Candidates:
        if self._previous is None:
            return self._full(block)
        plan = self._plan
        old = self._previous.lists(block.ids)
        if not old.is_listed.any():
            return self._full(block)
        nearest = self._neighbours(block)
        nearest.take(old.kept, plan.config.metric)
        added = [part for part in plan.parts if part.file in self._previous.added]
        self._scan(block, added, nearest)
        found = nearest.result(plan.config.metric)
        is_settled = old.is_settled(found, plan.k, plan.config.metric)
        self.num_spared += int(is_settled.sum())
        if is_settled.all():
            return found
        rest = np.flatnonzero(~is_settled).astype(np.int32)
        again = self._full(VectorBlock(block.ids[rest], block.vectors[rest]))
        return _merged(found, is_settled, again, rest)

    def _full(self, block: VectorBlock) -> Candidates:
        """Scan with initial thresholds, then again for the queries of which k rows miss theirs."""
        thresholds = self._initial_thresholds(block)
        found = self._scan_gallery(block, thresholds)
        # Where k rows reach the threshold, no row that is wanted was left out for it.
        is_settled = np.bincount(found.query, minlength=len(block.ids)) >= self._plan.k
        is_settled |= np.isneginf(thresholds)
        if is_settled.all():
            return found
        rest = np.flatnonzero(~is_settled).astype(np.int32)
        unlucky = VectorBlock(block.ids[rest], block.vectors[rest])
        again = self._scan_gallery(unlucky, np.full(len(rest), -np.inf))
        return _merged(found, is_settled, again, rest)

    def _initial_thresholds(self, block: VectorBlock) -> NDArray[np.float64]:
        num_queries, num_dims = block.vectors.shape
        if not is_worth_a_sample(num_queries, num_dims, self._plan.gallery.num_rows):
            return np.full(num_queries, -np.inf)
        method = self._find_method(block)
        return method.workers.initial_thresholds(block, method.sample)

    def _scan_gallery(self, block: VectorBlock, thresholds: NDArray[np.float64]) -> Candidates:
        nearest = self._neighbours(block)
        nearest.raise_floors(thresholds)
        self._scan(block, self._plan.parts, nearest)
        return nearest.result(self._plan.config.metric)

    def _scan(self, block: VectorBlock, parts: Sequence[VectorPart], nearest: Neighbours) -> None:
        """Take the rows of some parts into the neighbours of a block."""
        if parts:
            method = self._find_method(block)
            basis = method.choice.basis
            self.certificates.append(method.workers.search(block, parts, basis, nearest))

    def _neighbours(self, block: VectorBlock) -> Neighbours:
        # The workers leave out a query's own image; nothing that is merged here has it.
        return Neighbours(block.ids, self._plan.k, exclude_self=False)

    def _find_method(self, block: VectorBlock) -> _Method:
        """The first block shows how to rank, and how much there is to do."""
        if self._method is None:
            plan = self._plan
            sample = plan.sample()
            choice = plan.choose_basis(sample, block.vectors)
            work_ns = choice.ns_a_row * plan.gallery.num_rows * plan.num_blocks
            workers = self._executor.start(plan.task(), work_ns, self._count, self._progress)
            self._method = _Method(sample, choice, workers)
        return self._method

    def _count(self) -> None:
        self._num_done += 1


def _merged(
    found: Candidates, is_settled: NDArray[np.bool_], again: Candidates, rest: NDArray[np.int32]
) -> Candidates:
    """Settled queries as they are, the others (numbered by `rest`) as they were ranked again."""
    settled = found.at(is_settled[found.query])
    joined = Candidates.joined([settled, replace(again, query=rest[again.query])])
    return joined.at(np.argsort(joined.query, kind="stable"))
