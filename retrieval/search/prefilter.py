"""First passes: which pairs of a gallery block cannot be left out.

Each yields pairs (query, row) of a block, so that every pair is among them whose canonical
key reaches its query's floor at that time. The floors rise while the pass goes on.
The twin on a GPU is `gpu.prefilter`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.search.bounds import Bounds
from retrieval.search.gallery_block import GalleryBlock
from retrieval.search.prefilter_pairs import still_near, still_passing
from retrieval.search.scores import Rows
from retrieval.search.small_gemm import MOST_QUERIES, padded
from retrieval.search.tiles import Place, Room, next_pairs

__all__ = ["DistancePass", "EveryPair", "FirstPass", "Pairs", "ProductPass"]

Pairs = tuple[NDArray[np.int32], NDArray[np.int32]]

# The bounds of a tile, 512 KiB, stay in a core's L2 cache from the product to the filter. A
# product over all dimensions takes so long that its tile may be larger, to its own gain.
_TILE_PAIRS = 2**17
_DEEP_TILE_PAIRS = 2**19
_FIRST_PAIRS = 2**13  # a tile while some query has no floor yet, and all its pairs pass
_TILE_QUERIES = 512  # with 1024, rows lie 4 KiB apart and share cache lines: a third slower
# Pairs of several tiles wait for one another: between the compiled loops only one thread at a
# time runs Python. Many would raise the floors, and then the next be fewer.
_WAITING = 2  # a query
_MOST_WAITING = 2**17
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
        # After a short product the whole one is taken pair by pair, and so in chunks.
        self._whole = Bounds(metric, queries, None, by_chunks=basis is not None)
        self._short = None if basis is None else Bounds(metric, queries, basis)
        is_few = self._short is None and len(queries.norms) <= min(MOST_QUERIES, _TILE_QUERIES)
        self._few = padded(self._whole.by_query if is_few else self._whole.by_query[:0])
        self.name = f"product over {len((self._short or self._whole).operand)}"
        self.slack = (self._short or self._whole).slack
        self._own = _Own()

    def pairs(self, block: GalleryBlock, floors: NDArray[np.float64]) -> Iterator[Pairs]:
        """Pairs whose bounds reach their floors; see `FirstPass`."""
        first = self._short or self._whole
        operand, terms = first.gallery_operand(block), first.row_terms(block)
        place: Place = (0, 0)
        while place[0] < len(floors):
            query, row, place = next_pairs(
                operand,
                first.operand,
                self._few,
                first.limits(floors),
                terms,
                self._own.room,
                place=place,
                tile=self._tile(floors),
                most_waiting=min(_WAITING * len(floors), _MOST_WAITING),
                by_query=block.is_half,
            )
            yield (query, row) if self._short is None else self._second((query, row), block, floors)

    def _second(self, pairs: Pairs, block: GalleryBlock, floors: NDArray[np.float64]) -> Pairs:
        """Those whose whole product passes, too; all, where that has not been worth its while."""
        if self._own.num_spared:
            self._own.num_spared -= 1
            return pairs
        limits, terms = self._whole.limits(floors), self._whole.row_terms(block)
        left = still_passing(pairs, self._whole.by_query, block.rough, limits, terms)
        if 2 * len(left[0]) > len(pairs[0]) and np.isfinite(floors).all():
            self._own.num_spared = _NUM_SPARED
        return left

    def _tile(self, floors: NDArray[np.float64]) -> tuple[int, int]:
        """Queries and rows of a tile."""
        num_pairs = _TILE_PAIRS if self._short else _DEEP_TILE_PAIRS
        if np.isneginf(floors).any():
            num_pairs = _FIRST_PAIRS
        num_tiles = -(-len(floors) // _TILE_QUERIES)
        queries = -(-len(floors) // num_tiles)  # so that the last tile is as wide as the others
        return queries, max(1, num_pairs // max(queries, len(self._few)))


class DistancePass:
    """By sums of differences, for l1: a pair is left as soon as its sum is too large."""

    name = "sums of differences"

    def __init__(self, queries: Rows) -> None:
        self._rough = np.ldexp(queries.values, queries.scales[:, None]).astype(np.float32)
        self._norms = np.ldexp(np.sqrt(queries.norms), queries.scales)
        # D roundings of the sum, and of each difference and what it is the difference of: all
        # at most (D + 4) 2⁻²⁴ times Σ|q| + Σ|x|, which is at most √D (‖q‖ + ‖x‖). The other
        # 4 · 2⁻²⁴ are for the limit's own rounding, and for the canonical distance, which may be
        # below the real one by (D + 2) 2⁻⁵² of it. Slack is a part of the norms: if near
        # neighbours are nearer than that, all of them pass.
        num_dims = self._rough.shape[1]
        self.slack = float((num_dims + 8) * 2.0**-24 * np.sqrt(num_dims))
        self._own = _Own()

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
                query, row = still_near(*near, (self._own.room.query, self._own.room.row))
                query += np.int32(left)
                row += np.int32(top)
                yield query, row


class _Own(threading.local):
    """What each thread has for itself."""

    def __init__(self) -> None:
        self.num_spared = 0  # times for which the second bound is left out
        self.room = Room.of(_DEEP_TILE_PAIRS, _MOST_WAITING)
