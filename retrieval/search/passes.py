"""First passes: which pairs of a gallery block cannot be left out.

Each yields pairs (query, row) of a block, so that every pair is among them whose canonical
key reaches its query's floor at that time. The floors rise while the pass goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.search.bounds import Bounds
from retrieval.search.few_products import MOST_QUERIES, few_products, padded
from retrieval.search.filtering import passing, still_near, still_passing
from retrieval.search.gallery_block import GalleryBlock
from retrieval.search.scores import Rows

__all__ = ["DistancePass", "EveryPair", "FirstPass", "Pairs", "ProductPass"]

Pairs = tuple[NDArray[np.int32], NDArray[np.int32]]

# The bounds of a tile, 512 KiB, stay in a core's L2 cache from the product to the filter. A
# product over all dimensions takes so long that its tile may be larger, to its own gain.
_TILE_PAIRS = 2**17
_DEEP_TILE_PAIRS = 2**19
_FIRST_PAIRS = 2**13  # a tile while some query has no floor yet, and all its pairs pass
_TILE_QUERIES = 1024
_WAITING = 2  # pairs a query
_NUM_SPARED = 7  # times without a second bound, once it has left most pairs


class FirstPass(Protocol):
    """A way to find the pairs that cannot be left out."""

    @property
    def name(self) -> str:
        """What a ranking's certificate calls it."""

    @property
    def slack(self) -> float:
        """How far a bound may be off, for vectors of length one."""

    def pairs(self, block: GalleryBlock, floors: NDArray[np.float64]) -> Iterator[Pairs]:
        """Those pairs, some rows at a time; int32 (M,) each, overwritten by the next.

        Args:
            block: N gallery rows.
            floors: float64 (Q,), looked at anew for each tile.
        """


class EveryPair:
    """All pairs: for a whole ranking, and for norms that float32 cannot hold."""

    name = "every pair"
    slack = 0.0

    def __init__(self, num_queries: int) -> None:
        self._num_queries = num_queries

    def pairs(self, block: GalleryBlock, floors: NDArray[np.float64]) -> Iterator[Pairs]:
        """All of them; see `FirstPass`."""
        step = max(1, _TILE_PAIRS // self._num_queries)
        every = np.arange(self._num_queries, dtype=np.int32)
        for start in range(0, len(block.rough), step):
            rows = np.arange(start, min(start + step, len(block.rough)), dtype=np.int32)
            yield np.tile(every, len(rows)), np.repeat(rows, self._num_queries)


class ProductPass:
    """By matrix product, for cosine, ip and l2: a short one, then the whole for what is left."""

    def __init__(self, metric: str, queries: Rows, basis: NDArray[np.float32] | None) -> None:
        self._whole = Bounds(metric, queries, None)
        self._short = None if basis is None else Bounds(metric, queries, basis)
        is_few = self._short is None and len(queries.norms) <= min(MOST_QUERIES, _TILE_QUERIES)
        self._few = padded(self._whole.by_query) if is_few else None
        self.name = f"product over {len((self._short or self._whole).operand)}"
        self.slack = (self._short or self._whole).slack
        self._room = _Room()

    def pairs(self, block: GalleryBlock, floors: NDArray[np.float64]) -> Iterator[Pairs]:
        """Pairs whose bounds reach their floors; see `FirstPass`."""
        first = self._short or self._whole
        operand, terms = first.gallery_operand(block), first.row_terms(block)
        for left in range(0, len(floors), _TILE_QUERIES):
            queries = slice(left, left + _TILE_QUERIES)
            top = count = 0
            limits = first.limits(floors[queries], queries)
            # Pairs of several tiles go on together: between the compiled loops only one thread
            # at a time runs Python, which several threads would wait for.
            while top < len(operand):
                rows = slice(top, top + self._tile_rows(floors[queries]))
                bounds = self._product(operand[rows], first, queries)
                room = self._room.query[count:], self._room.row[count:]
                count += passing(bounds, limits, (terms[0][rows], terms[1][rows]), room, top)
                top = rows.stop
                if count > self._most_waiting(len(limits)) or top >= len(operand):
                    yield self._second(block, floors, left, count)
                    limits, count = first.limits(floors[queries], queries), 0

    def _most_waiting(self, num_queries: int) -> int:
        """Pairs that may wait. Many would raise the floors, and then the next be fewer."""
        return min(_WAITING * num_queries, len(self._room.query) - _DEEP_TILE_PAIRS)

    def _second(
        self, block: GalleryBlock, floors: NDArray[np.float64], left: int, count: int
    ) -> Pairs:
        """Those of the pairs found so far that the second bound leaves."""
        query, row = self._room.query[:count], self._room.row[:count]
        if block.is_half:
            query, row = _by_query(query, row)
        query += np.int32(left)
        if self._short is None:
            return query, row
        return self._passing_whole((query, row), block, floors)

    def _passing_whole(
        self, pairs: Pairs, block: GalleryBlock, floors: NDArray[np.float64]
    ) -> Pairs:
        """Those whose whole product passes, too; all, where that has not been worth its while."""
        if self._room.num_spared:
            self._room.num_spared -= 1
            return pairs
        limits, terms = self._whole.limits(floors), self._whole.row_terms(block)
        left = still_passing(pairs, self._whole.by_query, block.rough, limits, terms)
        if 2 * len(left[0]) > len(pairs[0]) and np.isfinite(floors).all():
            self._room.num_spared = _NUM_SPARED
        return left

    def _product(
        self, tile: NDArray[np.float32], bounds: Bounds, queries: slice
    ) -> NDArray[np.float32]:
        """Bounds of a tile, (N, Q) or wider; overwritten by the next."""
        if self._few is not None:
            result = self._room.bounds[: len(tile) * len(self._few)].reshape(len(tile), -1)
            few_products(tile, self._few, result)
            return result
        operand = bounds.operand[:, queries]
        result = self._room.bounds[: len(tile) * operand.shape[1]].reshape(len(tile), -1)
        return np.matmul(tile, operand, out=result)

    def _tile_rows(self, floors: NDArray[np.float64]) -> int:
        num_pairs = _TILE_PAIRS if self._short else _DEEP_TILE_PAIRS
        if np.isneginf(floors).any():
            num_pairs = _FIRST_PAIRS
        return max(1, num_pairs // (len(floors) if self._few is None else len(self._few)))


class DistancePass:
    """By sums of differences, for l1: a pair is left as soon as its sum is too large."""

    name = "sums of differences"

    def __init__(self, queries: Rows) -> None:
        self._rough = np.ldexp(queries.values, queries.scales[:, None]).astype(np.float32)
        self._norms = np.ldexp(np.sqrt(queries.norms), queries.scales)
        # D roundings of the sum, and of each difference and what it is the difference of: all
        # at most (D + 4) 2⁻²⁴ times Σ|q| + Σ|x|, which is at most √D (‖q‖ + ‖x‖).
        num_dims = self._rough.shape[1]
        self.slack = float((num_dims + 8) * 2.0**-24 * np.sqrt(num_dims))
        self._room = _Room()

    def pairs(self, block: GalleryBlock, floors: NDArray[np.float64]) -> Iterator[Pairs]:
        """Pairs whose float32 sum does not exceed their distance; see `FirstPass`."""
        num_queries = len(self._rough)
        norms = np.sqrt(block.squares)
        for left in range(0, num_queries, _TILE_QUERIES):
            queries = slice(left, min(left + _TILE_QUERIES, num_queries))
            step = max(1, _TILE_PAIRS // (queries.stop - left))
            for top in range(0, len(block.rough), step):
                rows = slice(top, min(top + step, len(block.rough)))
                share = self.slack * (self._norms[queries] + norms[rows].max())
                with np.errstate(over="ignore"):  # a floor of rows that are not tame
                    limits = (share - floors[queries]).astype(np.float32)
                near = self._rough[queries], block.rough[rows], limits
                query, row = still_near(*near, (self._room.query, self._room.row))
                query += np.int32(left)
                row += np.int32(top)
                yield query, row


def _by_query(query: NDArray[np.int32], row: NDArray[np.int32]) -> Pairs:
    """Pairs of a tile in the order of the queries.

    A tile's rows stay in the L2 cache, the queries do not: so each is fetched once a tile. (A
    row that is not float16 has to be scaled for its pairs, and then they had better stand
    together.)
    """
    order = np.argsort(query.astype(np.uint16), kind="stable")  # a radix sort: 16 bits
    return query[order], row[order]


class _Room(threading.local):
    """Arrays that each thread overwrites again and again."""

    def __init__(self) -> None:
        self.num_spared = 0  # times for which the second bound is left out
        self.bounds = np.empty(_DEEP_TILE_PAIRS, np.float32)
        self.query = np.empty(2 * _DEEP_TILE_PAIRS, np.int32)
        self.row = np.empty(2 * _DEEP_TILE_PAIRS, np.int32)
