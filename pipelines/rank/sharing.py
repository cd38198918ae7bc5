"""Who ranks: the threads of this process, or actors of a cluster (`actors`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.rank.folding import Task, fold, guess
from retrieval.search import Neighbours
from retrieval.vectors import Sample, VectorBlock, VectorPart

__all__ = ["Threads", "Workers"]


class Workers(Protocol):
    """Somebody who ranks a block of queries."""

    def guess(self, queries: VectorBlock, sample: Sample) -> NDArray[np.float64]:
        """Keys that the k nearest will very likely reach, float64 (Q,)."""

    def rank(
        self,
        queries: VectorBlock,
        parts: Sequence[VectorPart],
        basis: NDArray[np.float32] | None,
        start: Neighbours,
    ) -> dict[str, Any]:
        """Take the rows of some parts into `start`; returns the certificate."""


class Threads:
    """The threads of this process."""

    def __init__(self, task: Task, num_threads: int, on_part: Callable[[], None]) -> None:
        self._task, self._num_threads, self._on_part = task, num_threads, on_part

    def guess(self, queries: VectorBlock, sample: Sample) -> NDArray[np.float64]:
        """See `Workers`."""
        return guess(self._task, queries.vectors, sample, num_threads=self._num_threads)

    def rank(
        self,
        queries: VectorBlock,
        parts: Sequence[VectorPart],
        basis: NDArray[np.float32] | None,
        start: Neighbours,
    ) -> dict[str, Any]:
        """See `Workers`."""
        folded = fold(
            self._task,
            queries,
            parts,
            basis,
            start.floors,
            num_threads=self._num_threads,
            on_part=self._on_part,
        )
        start.take(folded.found, self._task.metric)
        return folded.certificate
