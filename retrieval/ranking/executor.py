"""Who computes a ranking: the threads of this process, or whoever is handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.progress import Progress
from retrieval.ranking.search_parts import (
    SearchTask,
    initial_thresholds,
    search_parts,
    this_machine_has_gpu,
)
from retrieval.search import Neighbours, available_cpus, warm_up
from retrieval.vectors import Sample, VectorBlock, VectorPart

__all__ = ["Executor", "ThreadExecutor", "Workers"]


class Workers(Protocol):
    """Those that rank, ready for one task."""

    def initial_thresholds(self, queries: VectorBlock, sample: Sample) -> NDArray[np.float64]:
        """Keys that the k nearest will very likely reach, float64 (Q,)."""

    def search(
        self,
        queries: VectorBlock,
        parts: Sequence[VectorPart],
        basis: NDArray[np.float32] | None,
        nearest: Neighbours,
    ) -> dict[str, Any]:
        """Take the rows of some parts into `nearest`; returns the certificate."""


class Executor(Protocol):
    """Where a ranking is computed. It decides about the time alone: the bits are the same."""

    @property
    def num_threads(self) -> int:
        """Threads of each process that ranks: the work is cut and its memory shared by them."""

    def session(self) -> AbstractContextManager[None]:
        """What has to be up while `start` and the workers are used."""

    def start(
        self, task: SearchTask, work_ns: float, on_part: Callable[[], None], progress: Progress
    ) -> Workers:
        """Make workers ready.

        Args:
            task: What to rank. Its device is as asked for: "cpu", "cuda" or "auto".
            work_ns: Nanoseconds of one core that all of the work is expected to take.
            on_part: Called for each part of the gallery that a block of queries has met.
            progress: Told what is waited for.

        Raises:
            UsageError: a GPU is asked for, and there is none or it cannot rank by this metric.
        """


class ThreadExecutor:
    """The threads of this process.

    Attributes:
        num_threads: How many; by default one for each core that this process may use.
    """

    def __init__(self, num_threads: int | None = None) -> None:
        self.num_threads = num_threads or available_cpus()

    def session(self) -> AbstractContextManager[None]:
        """See `Executor`: nothing."""
        return nullcontext()

    def start(
        self, task: SearchTask, work_ns: float, on_part: Callable[[], None], progress: Progress
    ) -> Workers:
        """See `Executor`."""
        with progress.status("compiling for this machine; only the first time takes seconds"):
            warm_up()
        has_gpu = task.device != "cpu" and this_machine_has_gpu()
        return _Threads(task.on_device(has_gpu=has_gpu), self.num_threads, on_part)


class _Threads:
    def __init__(self, task: SearchTask, num_threads: int, on_part: Callable[[], None]) -> None:
        self._task, self._num_threads, self._on_part = task, num_threads, on_part

    def initial_thresholds(self, queries: VectorBlock, sample: Sample) -> NDArray[np.float64]:
        """See `Workers`."""
        return initial_thresholds(
            self._task, queries.vectors, sample, num_threads=self._num_threads
        )

    def search(
        self,
        queries: VectorBlock,
        parts: Sequence[VectorPart],
        basis: NDArray[np.float32] | None,
        nearest: Neighbours,
    ) -> dict[str, Any]:
        """See `Workers`."""
        partial = search_parts(
            self._task,
            queries,
            parts,
            basis,
            nearest.floors,
            num_threads=self._num_threads,
            on_part=self._on_part,
        )
        nearest.take(partial.found, self._task.metric)
        return partial.certificate
