"""Which pairs of a tile of bounds reach what they have to."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["passing"]

_CHUNK = 64  # bounds that are looked at together; most chunks hold none that passes


def passing(
    bounds: NDArray[np.float32],
    limits: NDArray[np.float32],
    row_terms: tuple[NDArray[np.float32], NDArray[np.float32]],
    room: tuple[NDArray[np.int32], NDArray[np.int32]],
    first_row: int = 0,
) -> int:
    """Pairs with bounds[row, query] ≥ limits[query] · w[row] + b[row].

    Args:
        bounds: float32 (N, Q or more); columns beyond Q do not count.
        limits: float32 (Q,).
        row_terms: w and b, float32 (N,) each.
        room: Where queries and rows go, row by row; two int32 arrays of length N · Q or more.
        first_row: Number of the first row, which is added.

    Returns:
        How many pairs there are.

    Cost: about 0.15 ns a pair where few pass.
    """
    query, row = room
    return int(_collect(bounds, limits, row_terms[0], row_terms[1], query, row, first_row))


@njit(nogil=True, cache=True)
def _collect(bounds, limits, weights, offsets, query, row, first_row):  # noqa: PLR0913
    count = 0
    num_queries = len(limits)
    for number in range(bounds.shape[0]):
        weight, offset = weights[number], offsets[number]
        for start in range(0, num_queries, _CHUNK):
            stop = min(start + _CHUNK, num_queries)
            bound, limit = bounds[number, start:stop], limits[start:stop]
            if _any_passes(bound, limit, weight, offset):
                for place in range(len(bound)):
                    if bound[place] >= limit[place] * weight + offset:
                        query[count], row[count] = start + place, first_row + number
                        count += 1
    return count


@njit(nogil=True, cache=True)
def _any_passes(bound, limit, weight, offset):
    found = np.int32(0)
    for place in range(len(bound)):  # without a branch, so that it is vectorised
        found |= np.int32(bound[place] >= limit[place] * weight + offset)
    return found


def still_passing(
    pairs: tuple[NDArray[np.int32], NDArray[np.int32]],
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    limits: NDArray[np.float32],
    row_terms: tuple[NDArray[np.float32], NDArray[np.float32]],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The pairs whose product queries[query] · gallery[row] passes likewise.

    Args:
        pairs: Queries and rows, int32 (M,) each; overwritten.
        queries: float32 (Q, D).
        gallery: float32 (N, D).
        limits: float32 (Q,).
        row_terms: w and b, float32 (N,) each.

    Cost: M D operations in float32.
    """
    query, row = pairs
    count = _collect_again(query, row, queries, gallery, limits, row_terms)
    return query[:count], row[:count]


@njit(nogil=True, cache=True)
def _collect_again(query, row, queries, gallery, limits, row_terms):
    weights, offsets = row_terms
    count = 0
    for pair in range(len(query)):
        ours, theirs = query[pair], row[pair]
        bound = _product(queries[ours], gallery[theirs])
        if bound >= limits[ours] * weights[theirs] + offsets[theirs]:
            query[count], row[count] = ours, theirs
            count += 1
    return count


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _product(ours, theirs):
    total = np.float32(0.0)
    for dim in range(len(ours)):
        total += ours[dim] * theirs[dim]
    return total


def still_near(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    limits: NDArray[np.float32],
    room: tuple[NDArray[np.int32], NDArray[np.int32]],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pairs with Σ|queries[query] − gallery[row]| ≤ limits[query].

    Args:
        queries: float32 (Q, D).
        gallery: float32 (N, D).
        limits: float32 (Q,).
        room: Two int32 arrays of length N · Q or more, to be overwritten.

    Returns:
        Queries and rows, int32 (M,) each, row by row; views of `room`.

    Cost: Q N D operations at most; far pairs are left after some dimensions.
    """
    query, row = room
    count = _collect_near(queries, gallery, limits, query, row)
    return query[:count], row[:count]


@njit(nogil=True, cache=True)
def _collect_near(queries, gallery, limits, query, row):
    count = 0
    num_dims = queries.shape[1]
    for theirs in range(len(gallery)):
        for ours in range(len(queries)):
            total = np.float32(0.0)
            for start in range(0, num_dims, _CHUNK):
                stop = start + _CHUNK
                total += _apart(queries[ours, start:stop], gallery[theirs, start:stop])
                if total > limits[ours]:
                    break
            if total <= limits[ours]:
                query[count], row[count] = ours, theirs
                count += 1
    return count


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _apart(ours, theirs):
    total = np.float32(0.0)
    for dim in range(len(ours)):
        total += abs(ours[dim] - theirs[dim])
    return total
