"""One block of queries against a stream of gallery blocks, on all cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from threadpoolctl import threadpool_limits

from retrieval.search.cpu_engine import CpuSearch
from retrieval.search.merge import Candidates
from retrieval.vectors import VectorBlock

__all__ = ["available_cpus", "scan", "top_k"]


def top_k(
    queries: VectorBlock,
    gallery: Iterable[VectorBlock],
    k: int,
    metric: str,
    *,
    exclude_self: bool = False,
    num_threads: int | None = None,
) -> Candidates:
    """Find the k nearest gallery rows of each query, exactly.

    Args:
        queries: Q vectors with their ids.
        gallery: Blocks of N vectors with their ids; read once, in any order and grouping.
        k: Neighbours to keep, at least 1. More than the gallery has means all.
        metric: One of `METRICS`.
        exclude_self: Leave out gallery rows whose id is the query's own.
        num_threads: Cores to use; by default all that this process may.

    Returns:
        For each query (its number in the block) its nearest rows with canonical scores,
        nearest first, equal scores by id. The same bits for any grouping of the gallery.

    Cost: 2 Q N D operations; see `CpuSearch` for a basis that saves most of them.
    """
    search = CpuSearch(queries, k, metric, exclude_self=exclude_self)
    scan(search, [iter(gallery)], num_threads)
    return search.result()


def available_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def scan(
    search: Engine, readers: Sequence[Iterator[VectorBlock]], num_threads: int | None = None
) -> None:
    """Take the gallery rows of some readers into a search, one thread a block at a time.

    Args:
        search: The engine.
        readers: Blocks, in any order and grouping. Several readers read at the same time.
        num_threads: Threads that search; by default one a core.

    The first error of a block, or of reading it, ends all threads and is raised. The readers
    are closed in any case.
    """
    shared = [_Shared(reader) for reader in readers]
    num_threads = num_threads or available_cpus()

    def work(first: int) -> None:
        try:
            for number in range(len(shared)):  # its own reader first, then the others'
                reader = shared[(first + number) % len(shared)]
                while (block := reader.take()) is not None:
                    search.add(block)
        except BaseException:
            close_all()
            raise

    def close_all() -> None:
        for reader in shared:
            reader.close()

    # A product of this size has no use for two threads; two products at a time have.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(num_threads) as pool:
        try:
            futures = [pool.submit(work, number) for number in range(num_threads)]
            for future in futures:
                future.result()
        finally:
            close_all()  # after ctrl-C too: the pool waits for its threads


class Engine(Protocol):
    """What takes in gallery blocks, from several threads."""

    def add(self, block: VectorBlock) -> None:
        """Take in the gallery rows of a block."""


class _Shared:
    """An iterator that several threads take from."""

    def __init__(self, blocks: Iterator[VectorBlock]) -> None:
        self._blocks: Iterator[VectorBlock] | None = blocks
        self._lock = threading.Lock()

    def take(self) -> VectorBlock | None:
        with self._lock:
            return None if self._blocks is None else next(self._blocks, None)

    def close(self) -> None:
        with self._lock:
            blocks, self._blocks = self._blocks, None
        if isinstance(blocks, Generator):
            blocks.close()
