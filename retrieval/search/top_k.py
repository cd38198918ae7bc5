"""One block of queries against a stream of gallery blocks, on all cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import threadpool_limits

from retrieval.search.candidates import Candidates
from retrieval.search.cpu import CpuSearch
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
    scan(search, gallery, num_threads)
    return search.result()


def available_cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def scan(search: CpuSearch, gallery: Iterable[VectorBlock], num_threads: int | None = None) -> None:
    """Take gallery blocks into a search, one thread a block at a time.

    The first error of a block, or of reading it, ends all threads and is raised.
    """
    blocks = _Shared(gallery)

    def work() -> None:
        try:
            while (block := blocks.take()) is not None:
                search.add(block)
        except BaseException:
            blocks.close()
            raise

    num_threads = num_threads or available_cpus()
    # A product of this size has no use for two threads; two products at a time have.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(num_threads) as pool:
        futures = [pool.submit(work) for _ in range(num_threads)]
        try:
            for future in futures:
                future.result()
        finally:
            blocks.close()  # after ctrl-C too: the pool waits for its threads


class _Shared:
    """An iterator that several threads take from."""

    def __init__(self, blocks: Iterable[VectorBlock]) -> None:
        self._blocks: Iterator[VectorBlock] | None = iter(blocks)
        self._lock = threading.Lock()

    def take(self) -> VectorBlock | None:
        with self._lock:
            return None if self._blocks is None else next(self._blocks, None)

    def close(self) -> None:
        with self._lock:
            self._blocks = None
