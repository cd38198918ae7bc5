"""The first product of a part of the gallery, tile by tile, and the pairs that pass.

A tile of bounds stays in a core's L2 cache from the product to the filter. Pairs of several
tiles wait for one another: so several tiles, and mostly all of a part, are one compiled call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from retrieval.search.blas import SGEMM, multiply, place_of
from retrieval.search.small_gemm import few_products

__all__ = ["Place", "Room", "collect", "next_pairs"]

Place = tuple[int, int]  # the next query and the next row
_CHUNK = 64  # bounds that are looked at together; most chunks hold none that passes


@dataclass(frozen=True, eq=False)
class Room:
    """Arrays that one thread overwrites again and again.

    Attributes:
        bounds: float32, of a tile.
        query, row: int32, of pairs; as many as may wait, and those of one tile.
        sorted_query, sorted_row: As many.
    """

    bounds: NDArray[np.float32]
    query: NDArray[np.int32]
    row: NDArray[np.int32]
    sorted_query: NDArray[np.int32]
    sorted_row: NDArray[np.int32]

    @staticmethod
    def of(tile_pairs: int, most_waiting: int) -> Room:
        """Room for tiles of some pairs, and for pairs that wait."""
        return Room(
            np.empty(tile_pairs, np.float32),
            *(np.empty(most_waiting + tile_pairs, np.int32) for _ in range(4)),
        )


def next_pairs(  # noqa: PLR0913 - all plain arrays
    gallery: NDArray[np.float32],
    queries: NDArray[np.float32],
    few: NDArray[np.float32],
    limits: NDArray[np.float32],
    row_terms: tuple[NDArray[np.float32], NDArray[np.float32]],
    room: Room,
    *,
    place: Place,
    tile: tuple[int, int],
    most_waiting: int,
    by_query: bool,
) -> tuple[NDArray[np.int32], NDArray[np.int32], Place]:
    """Find pairs with gallery[row] · queries[:, query] ≥ limits[query] · w[row] + b[row].

    Args:
        gallery: float32 (N, p).
        queries: float32 (p, Q).
        few: float32 (Q' ≥ Q, p), `few_products.padded`, to be used in place of `queries`; or
            (0, p).
        limits: float32 (Q,).
        row_terms: w and b, float32 (N,) each.
        room: To be overwritten.
        place: Where to begin; (0, 0) at first.
        tile: Queries and rows of a tile.
        most_waiting: It ends after the tile with which there are more pairs.
        by_query: Whether all pairs of a query shall stand together.

    Returns:
        Queries and rows, int32 (M,) each, in `room`; and the place that is next, whose query
        is Q at the end.
    """
    numbers = (*place, *tile, most_waiting)
    found, spare = (room.query, room.row), (room.sorted_query, room.sorted_row)
    operands = gallery, queries, few
    count, left, top = _pairs(SGEMM, operands, limits, row_terms, (room.bounds, *found), numbers)
    if by_query:
        _sort_by_query(found[0][:count], found[1][:count], *spare)
        found = spare
    return found[0][:count], found[1][:count], (left, top)


@njit(nogil=True, cache=True)
def _pairs(sgemm, operands, limits, row_terms, room, numbers):
    gallery, queries, few = operands
    weights, offsets = row_terms
    bounds, query, row = room
    left, top, tile_queries, tile_rows, most_waiting = numbers
    num_rows, depth = gallery.shape
    num_queries, count = len(limits), 0
    while left < num_queries:
        right = min(left + tile_queries, num_queries)
        width = len(few) if len(few) else right - left
        while top < num_rows and count <= most_waiting:
            bottom = min(top + tile_rows, num_rows)
            tile = bounds[: (bottom - top) * width].reshape((bottom - top, width))
            if len(few):
                few_products(gallery[top:bottom], few, tile)
            else:
                shape = bottom - top, width, depth
                ours, theirs = place_of(queries[:, left:]), place_of(gallery[top:])
                multiply(sgemm, shape, theirs, ours, place_of(tile))
            terms = weights[top:bottom], offsets[top:bottom]
            count = collect(tile, limits[left:right], terms, (query, row), (left, top), count)
            top = bottom
        if top < num_rows:
            return count, left, top
        left, top = right, 0
    return count, left, top


@njit(nogil=True, cache=True)
def collect(bounds, limits, row_terms, room, corner, count):
    """Append the pairs with bounds[row, query] ≥ limits[query] · w[row] + b[row].

    For compiled loops; about 0.15 ns a pair where few pass.

    Args:
        bounds: float32 (N, Q or more); columns beyond Q do not count.
        limits: float32 (Q,).
        row_terms: w and b, float32 (N,) each.
        room: Where queries and rows go, row by row; two int32 arrays.
        corner: Numbers of the first query and of the first row.
        count: Pairs that are there already.

    Returns:
        How many pairs there are.
    """
    (weights, offsets), (query, row), (first_query, first_row) = row_terms, room, corner
    num_queries = len(limits)
    for number in range(bounds.shape[0]):
        weight, offset = weights[number], offsets[number]
        for start in range(0, num_queries, _CHUNK):
            stop = min(start + _CHUNK, num_queries)
            bound, limit = bounds[number, start:stop], limits[start:stop]
            if _any_passes(bound, limit, weight, offset):
                for place in range(len(bound)):
                    if bound[place] >= limit[place] * weight + offset:
                        query[count] = first_query + start + place
                        row[count] = first_row + number
                        count += 1
    return count


@njit(nogil=True, cache=True)
def _any_passes(bound, limit, weight, offset):
    found = np.int32(0)
    for place in range(len(bound)):  # without a branch, so that it is vectorised
        found |= np.int32(bound[place] >= limit[place] * weight + offset)
    return found


@njit(nogil=True, cache=True)
def _sort_by_query(query, row, sorted_query, sorted_row):
    """By counting: pairs of one query together, their rows in the order in which they were."""
    if not len(query):
        return
    starts = np.zeros(query.max() + 2, np.int64)
    for pair in range(len(query)):
        starts[query[pair] + 1] += 1
    starts = np.cumsum(starts)
    for pair in range(len(query)):
        place = starts[query[pair]]
        sorted_query[place], sorted_row[place] = query[pair], row[pair]
        starts[query[pair]] += 1
