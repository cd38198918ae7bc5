"""Which of some pairs, or of all, reach what they have to: pair by pair."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["CHUNK", "still_near", "still_passing"]

CHUNK = 128  # dimensions that are summed at a time, for a sharper bound of the rounding
_LOOK = 64  # dimensions after which a sum is looked at


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

    Cost: M D operations in float32; the sums are of `CHUNK` dimensions at a time.
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
        bound = _product_by_chunks(queries[ours], gallery[theirs])
        if bound >= limits[ours] * weights[theirs] + offsets[theirs]:
            query[count], row[count] = ours, theirs
            count += 1
    return count


@njit(nogil=True, cache=True)
def _product_by_chunks(ours, theirs):
    total = np.float32(0.0)
    for start in range(0, len(ours), CHUNK):
        stop = start + CHUNK
        total += _product(ours[start:stop], theirs[start:stop])
    return total


# Any order within a chunk, so that it is vectorised; the chunks one after the other.
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
            for start in range(0, num_dims, _LOOK):
                stop = start + _LOOK
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
