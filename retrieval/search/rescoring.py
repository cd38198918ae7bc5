"""Canonical keys of chosen pairs, in compiled loops: the bits of `scores.pair_scores`.

A key grows with nearness: the score of a similarity, minus the distance of a distance. The twin on
a GPU is `gpu.rescoring`; the rule and its constants are those of `scores`.

A row's sum is taken in the fast way, in any order and with fused multiply-add, where `scores`
proves that it cannot round: both vectors float16, of norms below 2√2 (for l2 and l1 √2).
Else each term is rounded to a grid first, and then the sum cannot round either.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from retrieval.search.gallery_block import GalleryBlock
from retrieval.search.scores import (
    COARSE_GRID,
    EXACT_SQUARES,
    METRICS,
    PRODUCT_GRID,
    SIZE_GRID,
    SQUARE_GRID,
    Rows,
    minkowski_power,
)

__all__ = ["ExactPairs"]

_COSINE, _IP, _L2, _L1, _MINKOWSKI = range(5)  # the first four as in METRICS
_ANY_ORDER = {"reassoc", "contract"}


class ExactPairs:
    """Canonical keys for one block of queries."""

    def __init__(self, metric: str, queries: Rows) -> None:
        """Prepare the queries' side.

        Args:
            metric: One of METRICS, or "minkowski:P".
            queries: Q prepared queries.
        """
        power = minkowski_power(metric)
        self._metric = _MINKOWSKI if power else METRICS.index(metric)
        self._power = power or 0.0
        # Plain rows of l2 and l1 need the smaller norm, since theirs is a sum of differences.
        self._largest_square = EXACT_SQUARES.get(metric, 0.0)
        limit = 1 if metric in ("cosine", "ip") else 0  # a squared norm is below 2 · 4 ** scale
        is_plain = (queries.scales <= limit) & (queries.is_half and not power)
        # float32 holds them exactly, and half the bytes are twice the speed.
        stored = np.ldexp(queries.values, queries.scales[:, None] * is_plain[:, None])
        squares = np.ldexp(queries.norms, 2 * queries.scales * is_plain)
        self._plain = is_plain, stored.astype(np.float32), squares
        is_product = self._metric in (_COSINE, _IP)
        rows = queries.values if is_product else queries.stored.astype(np.float64)
        self._queries = rows, queries.scales.astype(np.int64), queries.norms

    def keys(
        self,
        gallery: GalleryBlock,
        pairs: tuple[NDArray[np.int32], NDArray[np.int32]],
        floors: NDArray[np.float64],
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
        """Keys of pairs, without those below their query's floor.

        Args:
            gallery: N gallery rows.
            pairs: Numbers of queries and of gallery rows, (M,) each. Overwritten. Pairs of
                one query should stand together if both sides are float16, else pairs of one
                row: it is made ready once for each run.
            floors: float64 (Q,), smallest key to keep.

        Returns:
            Queries, rows and float64 keys of the pairs that are kept, in their order.

        Cost: M D operations in float64, no extra memory beyond the keys.
        """
        query, row = pairs
        keys = np.empty(len(query))
        largest_square = self._largest_square if gallery.is_half else 0.0
        kept = _keys(
            (self._metric, self._power),
            self._plain,
            self._queries,
            (gallery.exact, gallery.squares, largest_square),
            (query, row, keys),
            floors,
        )
        return query[:kept], row[:kept], keys[:kept]


@njit(nogil=True, cache=True)
def _keys(measure, plain_queries, queries, gallery, pairs, floors):
    metric, power = measure
    is_plain, plain_values, plain_squares = plain_queries
    values, scales, norms = queries  # scaled for products, else as they are stored
    exact, squares, largest_square = gallery
    query, row, keys = pairs
    num_dims = exact.shape[1]
    plain, scaled, terms = np.empty(num_dims), np.empty(num_dims), np.empty(num_dims)
    depth = np.int64(np.ceil(np.log2(float(num_dims + 1))))  # the L of `scores`
    kept, plain_query, scaled_row = 0, -1, -1
    scale, norm = 0, 0.0
    for pair in range(len(query)):
        ours, theirs = query[pair], row[pair]
        if is_plain[ours] and squares[theirs] < largest_square:
            if plain_query != ours:
                plain[:] = plain_values[ours]
                plain_query = ours
            product = plain_squares[ours] * squares[theirs]
            key = _plain_key(metric, plain, exact[theirs], product)
        elif metric in (_COSINE, _IP):
            if scaled_row != theirs:
                scale, norm = _scale(exact[theirs], scaled, terms, depth)
                scaled_row = theirs
            query_row = (values[ours], scales[ours], norms[ours])
            key = _rounded_product(metric, query_row, (scaled, scale, norm), terms)
        else:
            key = -_rounded_distance((metric, power, depth), values[ours], exact[theirs], terms)
        if key >= floors[ours]:
            query[kept], row[kept], keys[kept] = ours, theirs, key
            kept += 1
    return kept


@njit(nogil=True, cache=True)
def _plain_key(metric, ours, theirs, product):
    """Of two rows as they are stored, and the product of their squared norms."""
    if metric == _COSINE:
        return _dot(ours, theirs) / np.sqrt(product) + 0.0
    if metric == _IP:
        return _dot(ours, theirs) + 0.0
    if metric == _L2:
        return -(np.sqrt(_square_distance(ours, theirs)) + 0.0)
    return -(_distance(ours, theirs) + 0.0)


@njit(nogil=True, cache=True)
def _rounded_product(metric, query, gallery, terms):
    """Of two rows times powers of two, each term rounded to the grid of `scores`."""
    ours, our_scale, our_norm = query
    theirs, their_scale, their_norm = gallery
    for dim in range(len(terms)):
        terms[dim] = (ours[dim] * theirs[dim] + PRODUCT_GRID) - PRODUCT_GRID
    dot = _sum(terms)
    if metric == _IP:
        return math.ldexp(dot, our_scale + their_scale) + 0.0
    return dot / np.sqrt(our_norm * their_norm) + 0.0


@njit(nogil=True, cache=True)
def _rounded_distance(measure, ours, theirs, sizes):
    """Of two rows as they are stored; `sizes` is overwritten. See `scores` for the grids."""
    metric, power, depth = measure
    largest = _differences(ours, theirs, sizes)
    if largest == 0.0 or largest == np.inf:
        return largest
    if metric == _MINKOWSKI:
        total = 0.0
        for dim in range(len(sizes)):  # in this order on every machine
            total += (sizes[dim] / largest) ** power
        return total ** (1 / power) * largest
    scale, shift = math.frexp(largest)[1], 0
    if abs(scale) > 1000:  # whose factors float64 may not hold
        _times_power(sizes, -scale, sizes)
        scale, shift = 0, scale
    is_square = metric == _L2
    steps = _steps(sizes, math.ldexp(1.0, -scale), math.ldexp(COARSE_GRID, depth), is_square)
    exponent = math.frexp(float(steps))[1] + depth - 53
    scale += exponent // 2 if is_square else exponent
    grid = SQUARE_GRID if is_square else SIZE_GRID
    steps = _steps(sizes, math.ldexp(1.0, -scale), grid, is_square)
    if is_square:  # steps of 2⁻⁵⁰
        return math.ldexp(np.sqrt(float(steps)), scale + shift - 25)
    return math.ldexp(float(steps), scale + shift - 51)


@njit(nogil=True, cache=True)
def _differences(ours, theirs, sizes):
    """Write their sizes, and return the largest: as integers, floats of one sign sort alike."""
    largest = np.int64(0)
    for dim in range(len(sizes)):
        sizes[dim] = abs(ours[dim] - np.float64(theirs[dim]))
        largest = max(largest, _bits(sizes[dim]))
    return np.int64(largest).view(np.float64)


@njit(nogil=True, cache=True)
def _steps(sizes, factor, grid, is_square):
    """Σ (v + grid) − grid, v = size · factor or its square, in steps of the numbers near `grid`.

    Their bits count the steps. Integers may be summed in any order, and so are vectorised.
    """
    origin, total = _bits(grid), np.int64(0)
    if is_square:
        for dim in range(len(sizes)):
            value = sizes[dim] * factor
            total += _bits(value * value + grid) - origin
    else:
        for dim in range(len(sizes)):
            total += _bits(sizes[dim] * factor + grid) - origin
    return total


@njit(nogil=True, cache=True)
def _bits(value):
    return np.float64(value).view(np.int64)


@njit(nogil=True, cache=True)
def _scale(stored, scaled, terms, depth):
    """`Rows.prepare` for one row: its values times 2^-scale, the scale, its squared norm."""
    largest = 0.0
    for dim in range(len(stored)):
        largest = max(largest, abs(np.float64(stored[dim])))
    scale = np.int64(math.frexp(largest)[1])
    _times_power(stored, -scale, scaled)
    coarse = math.ldexp(COARSE_GRID, depth)
    for dim in range(len(stored)):
        terms[dim] = (scaled[dim] * scaled[dim] + coarse) - coarse
    scale += np.int64(np.ceil((math.frexp(_sum(terms))[1] - 1) / 2))
    _times_power(stored, -scale, scaled)
    for dim in range(len(stored)):
        terms[dim] = (scaled[dim] * scaled[dim] + PRODUCT_GRID) - PRODUCT_GRID
    return scale, _sum(terms)


@njit(nogil=True, cache=True)
def _times_power(stored, exponent, result):
    half = exponent // 2  # in two steps: see `scores._times_power`
    first, second = math.ldexp(1.0, half), math.ldexp(1.0, exponent - half)
    for dim in range(len(stored)):
        result[dim] = np.float64(stored[dim]) * first * second


@njit(nogil=True, cache=True, fastmath=_ANY_ORDER)
def _sum(terms):
    total = 0.0
    for dim in range(len(terms)):
        total += terms[dim]
    return total


@njit(nogil=True, cache=True, fastmath=_ANY_ORDER)
def _dot(ours, theirs):
    total = 0.0
    for dim in range(len(ours)):
        total += ours[dim] * np.float64(theirs[dim])
    return total


@njit(nogil=True, cache=True, fastmath=_ANY_ORDER)
def _square_distance(ours, theirs):
    total = 0.0
    for dim in range(len(ours)):
        apart = ours[dim] - np.float64(theirs[dim])
        total += apart * apart
    return total


@njit(nogil=True, cache=True, fastmath=_ANY_ORDER)
def _distance(ours, theirs):
    total = 0.0
    for dim in range(len(ours)):
        total += abs(ours[dim] - np.float64(theirs[dim]))
    return total
