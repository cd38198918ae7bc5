"""One block of queries against a stream of gallery blocks, on a torch device.

The gallery passes in chunks that grow with what has been seen. Of each chunk a matrix product
of float16 guesses leaves the few pairs whose guess reaches its limit (`bounds`); these get
their canonical score (`rescoring`) and join the pool, whose k-th best key is what the next
chunk has to reach. What is left out is proven to be no neighbour, so that neither the guesses
nor the order of the pairs can be seen in the result.

The twin on the CPU is `retrieval.search.cpu_engine`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.errors import UsageError
from retrieval.search.gpu.block_sizes import Sizes, available_bytes
from retrieval.search.gpu.prefilter import check_arithmetic
from retrieval.search.gpu.row_ids import hashes
from retrieval.search.gpu.scan import Chunk, Scan, triton_modules
from retrieval.search.gpu.staging import Staging
from retrieval.search.gpu.top_k_buffer import Pool
from retrieval.search.merge import Candidates, best
from retrieval.search.scores import is_distance

if TYPE_CHECKING:
    from retrieval.vectors import VectorBlock

__all__ = ["GpuSearch"]

_METRICS = ("cosine", "ip", "l2")


class GpuSearch:
    """The k nearest gallery rows of each query, exactly, by a torch device.

    Args:
        queries: Q ≥ 1 vectors with their ids; they stay on the device.
        k: Neighbours to keep, at least 1. More than the gallery has means all.
        metric: "cosine", "ip" or "l2". l1 is no matrix product.
        exclude_self: Leave out gallery rows whose id is the query's own.
        device: Where to search. The CPU works too, for tests; it is slow.
        memory_bytes: What may be taken of the device; None: most of what is free.
        use_triton: Whether one Triton kernel filters; None: on CUDA, if Triton is there.

    Raises:
        UsageError: another metric, no Triton, too little memory, or torch is set to less
            precise products. `add` and `result` raise it when memory runs out for good.

    Cost: 2 Q N D operations of the tensor cores; about k (1 + log₂(N / 64 Ki)) pairs a query
        are rescored if the order of the gallery is arbitrary.
    """

    def __init__(  # noqa: PLR0913 - the settings of a search, by name
        self,
        queries: VectorBlock,
        k: int,
        metric: str,
        *,
        exclude_self: bool = False,
        device: torch.device,
        memory_bytes: int | None = None,
        use_triton: bool | None = None,
    ) -> None:
        if metric not in _METRICS:
            raise UsageError(
                f"metric {metric!r} is not for the GPU engine, which knows {', '.join(_METRICS)}; "
                f"rank with the CPU engine"
            )
        check_arithmetic(device)
        self._k, self._metric, self._device = k, metric, device
        self._exclude_self = exclude_self
        vectors = np.ascontiguousarray(queries.vectors)
        num_queries, self._dim = vectors.shape
        memory = available_bytes(device) if memory_bytes is None else memory_bytes
        self._sizes = Sizes(num_queries, self._dim, vectors.dtype.itemsize, k, memory)
        self._pool = Pool(num_queries, k, device)
        known = hashes(queries.ids) if exclude_self else None
        kernels = triton_modules(device, use_triton)
        self._scan = Scan(vectors, queries.ids, self._pool, metric, self._sizes, kernels, known)
        self._staging = Staging(device)
        self._next_rows = self._sizes.first_rows
        self._first = 0  # handle of the first row of the chunk that is being filled
        self._hashes: list[NDArray[np.int64]] = []  # of its rows

    def add(self, block: VectorBlock) -> None:
        """Search a block of the gallery, N ≥ 0 rows of any float type.

        The search may still be under way when this returns; the vectors may be changed then.
        """
        self._check_dim(block.vectors.shape[1])
        start = 0
        while start < len(block.vectors):
            vectors = block.vectors[start:]
            if self._staging.is_open() and not self._staging.fits(vectors):
                self._search_staged()
            if not self._staging.is_open():
                self._sizes.retry(lambda like=vectors: self._staging.open(self._grow(), like))  # type: ignore[misc]
            taken = self._staging.fill(vectors)
            self._take_ids(block.ids[start : start + taken])
            start += taken
            if self._staging.is_full():
                self._search_staged()

    def add_resident(self, ids: NDArray[np.bytes_], vectors: Tensor) -> None:
        """Search rows that are on the device already; they must not change before `result`.

        Args:
            ids: bytes (N,).
            vectors: float16, float32 or float64 (N, D), finite, no zero vector, contiguous.
        """
        self._check_dim(vectors.shape[1])
        self._search_staged()
        start = 0
        while start < len(vectors):
            rows = vectors[start : start + self._grow()]
            self._take_ids(ids[start : start + len(rows)])
            self._search(rows)
            start += len(rows)

    def floors(self) -> NDArray[np.float64]:
        """Keys that a pair must reach to be among the k nearest of what has been searched.

        Returns:
            float64 (Q,): canonical scores, for l2 minus the distance; -inf where fewer than k
            rows are known. Rows that are still under way may not have raised them yet.
        """
        floor: NDArray[np.float64] = self._pool.floor.cpu().numpy().copy()
        return floor

    def raise_floors(self, keys: NDArray[np.float64]) -> None:
        """Leave out pairs below these keys: float64 (Q,), thresholds of other shards.

        Stale ones are safe. `result` may then have fewer than k rows of a query: the others
        are elsewhere.
        """
        self._pool.raise_floor(torch.tensor(keys, dtype=torch.float64, device=self._device))

    def result(self) -> Candidates:
        """The k nearest so far, sorted by query, nearest first, equal scores by id."""
        self._search_staged()
        self._scan.land()
        self._sizes.retry(self._pool.trim)
        query, keys, handles = (part.cpu().numpy() for part in self._pool.content())
        distance = is_distance(self._metric)
        scores = (-keys if distance else keys) + 0.0
        ids = self._scan.row_ids.lookup(handles)
        found = Candidates(query.astype(np.int32), ids, scores)
        return best([found], self._k, smaller_is_nearer=distance)

    def certificate(self) -> dict[str, Any]:
        """What was done, for reports.

        Returns:
            engine ("torch" or "triton"); device; chunks; survivors (pairs that reached their
            limit); rescored (pairs scored canonically, those of the first sample too); repeats
            (passes that found too many pairs or no memory, and were halved); slack (the largest
            bound used, a unit of ‖q‖ times the largest ‖x‖); largest_buffer (survivors of one
            pass); settled (ties that ids decided early); shrunk (times memory ran out).
        """
        return self._scan.report()

    def _check_dim(self, dim: int) -> None:
        if dim != self._dim:
            raise UsageError(f"gallery vectors have {dim} dimensions, the queries {self._dim}")

    def _grow(self) -> int:
        """Rows of the next chunk: twice those of the one before, while memory allows."""
        rows = min(self._next_rows, self._sizes.chunk_rows)
        self._next_rows = 2 * rows
        return rows

    def _take_ids(self, ids: NDArray[np.bytes_]) -> None:
        self._scan.row_ids.add(ids)
        if self._exclude_self:
            self._hashes.append(hashes(ids))

    def _search_staged(self) -> None:
        if self._staging.is_open():
            self._search(self._staging.close())

    def _search(self, stored: Tensor) -> None:
        known = None
        if self._exclude_self:
            known = torch.tensor(np.concatenate(self._hashes), device=self._device)
            self._hashes = []
        self._scan.search(Chunk(stored, self._first, known))
        self._first += len(stored)
