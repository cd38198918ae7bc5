"""The engine on the CPU: bound all pairs, drop what cannot be a neighbour, score the rest.

A first pass (`prefilter`) leaves some in a thousand of all pairs: those whose bound reaches the
k-th best score so far. They get their canonical score (`rescoring`) and join the neighbours
(`top_k_buffer`), which raises what the next pairs have to reach. What is dropped is proven to
be no neighbour, however rough the bound; what is kept has the bits of the canonical score.

The twin on a GPU is `gpu.engine`.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.search.gallery_block import is_tame, prepare
from retrieval.search.merge import Candidates
from retrieval.search.prefilter import DistancePass, EveryPair, FirstPass, ProductPass
from retrieval.search.rescoring import ExactPairs
from retrieval.search.scores import Rows
from retrieval.search.small_gemm import MOST_QUERIES
from retrieval.search.top_k_buffer import Neighbours
from retrieval.vectors import VectorBlock

__all__ = ["CpuSearch", "warm_up"]

_ROUGH_BYTES = 2**20  # rows that are made ready at a time stay in a core's L2 cache ...
_DEEP_ROUGH_BYTES = 2**22  # ... but a product over all dimensions gains by more of them


class CpuSearch:
    """A block of queries against gallery blocks.

    `add` may be called from several threads; each then wants a BLAS of one thread.

    Attributes:
        neighbours: The k nearest so far.
        num_pairs, num_survivors: Pairs seen, and those that the first pass left.
    """

    def __init__(
        self,
        queries: VectorBlock,
        k: int,
        metric: str,
        *,
        exclude_self: bool = False,
        basis: NDArray[np.float32] | None = None,
    ) -> None:
        """Prepare the queries.

        Args:
            queries: Q vectors with their ids.
            k: Neighbours to keep; more than the gallery has means all.
            metric: One of `METRICS`, or "minkowski:P".
            exclude_self: Leave out gallery rows whose id is the query's own.
            basis: Leading directions of the gallery, float32 (D, p), for a short first pass.
        """
        self.neighbours = Neighbours(queries.ids, k, exclude_self=exclude_self)
        self.num_pairs = self.num_survivors = 0
        self._metric = metric
        rows = Rows.prepare(queries.vectors)
        self._exact = ExactPairs(metric, rows)
        self._every = EveryPair(len(queries.ids))
        self._first_pass = self._choose_pass(rows, basis)
        is_deep = basis is None and len(queries.ids) > MOST_QUERIES
        rough_bytes = _DEEP_ROUGH_BYTES if is_deep else _ROUGH_BYTES
        self._rough = _Rough(rough_bytes, queries.vectors.shape[1])
        self._counting = threading.Lock()

    def _choose_pass(self, rows: Rows, basis: NDArray[np.float32] | None) -> FirstPass:
        squares = np.ldexp(rows.norms, 2 * rows.scales)
        if not is_tame(squares):
            return self._every
        if self._metric in ("cosine", "ip", "l2"):
            return ProductPass(self._metric, rows, basis)
        return DistancePass(rows) if self._metric == "l1" else self._every

    @property
    def method(self) -> str:
        """The first pass, in words."""
        return self._first_pass.name

    def raise_floors(self, floors: NDArray[np.float64]) -> None:
        """Take keys (Q,) that k rows elsewhere are known to reach; old ones do no harm."""
        self.neighbours.raise_floors(floors)

    def certificate(self) -> dict[str, Any]:
        """How the result was found: the bound, and how many pairs it did not rule out."""
        return {
            "engine": "cpu",
            "bound": self._first_pass.name,
            "slack": self._first_pass.slack,
            "pairs": self.num_pairs,
            "scored": self.num_survivors,
        }

    def add(self, block: VectorBlock) -> None:
        """Take in the gallery rows of a block."""
        step = len(self._rough.buffer)
        for start in range(0, len(block.ids), step):
            part = slice(start, start + step)
            self._add_part(VectorBlock(block.ids[part], block.vectors[part]))

    def _add_part(self, part: VectorBlock) -> None:
        gallery = prepare(part.vectors, self._rough.buffer)
        first_pass = self._first_pass if gallery.is_tame else self._every
        floors = self.neighbours.floors
        num_survivors = 0
        for pairs in first_pass.pairs(gallery, floors):
            num_survivors += len(pairs[0])
            query, row, keys = self._exact.keys(gallery, pairs, floors)
            self.neighbours.add(query, keys, part.ids[row])
        with self._counting:
            self.num_pairs += len(part.ids) * len(floors)
            self.num_survivors += num_survivors

    def result(self) -> Candidates:
        """The neighbours so far, sorted by query, nearest first, equal scores by id."""
        return self.neighbours.result(self._metric)


class _Rough(threading.local):
    """Where each thread keeps the rows that it is working on, in float32."""

    def __init__(self, num_bytes: int, num_dims: int) -> None:
        self.buffer = np.empty((max(1, num_bytes // (4 * num_dims)), num_dims), np.float32)


def warm_up() -> None:
    """Load the compiled loops, or compile them: the first time on a machine takes some seconds."""
    rows = np.eye(4, dtype=np.float16)
    ids = np.array([b"a", b"b", b"c", b"d"])
    search = CpuSearch(VectorBlock(ids, rows), 1, "cosine", basis=np.eye(4, 1, dtype=np.float32))
    search.add(VectorBlock(ids, rows))
    search.result()
