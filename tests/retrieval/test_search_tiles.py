"""Products and the pairs that pass, tile by tile, against plain loops; BLAS in compiled loops."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from numba import njit

from retrieval.search.blas import SGEMM, multiply, place_of
from retrieval.search.small_gemm import padded
from retrieval.search.tiles import Room, next_pairs


@njit
def product(sgemm, left, right, result):
    shape = left.shape[0], right.shape[1], left.shape[1]
    multiply(sgemm, shape, place_of(left), place_of(right), place_of(result))


def whole_numbers(rng, shape):
    """Small ones: float32 arithmetic is exact in any order, and many products are equal."""
    return rng.integers(-4, 5, shape).astype(np.float32)


def test_a_product_worked_by_hand():
    left = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    right = np.array([[1, 0], [0, 1], [2, -1]], np.float32)
    result = np.full((2, 2), np.nan, np.float32)  # what was there does not matter
    product(SGEMM, left, right, result)
    assert result.tolist() == [[7, -1], [16, -1]]


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 9, 4), (9, 1, 4), (9, 4, 1), (17, 33, 130)])
def test_products_of_parts_of_larger_matrices(shape):
    rng = np.random.default_rng(0)
    num_rows, num_columns, depth = shape
    left = whole_numbers(rng, (num_rows + 2, depth + 3))[1 : num_rows + 1, 2 : depth + 2]
    right = whole_numbers(rng, (depth + 1, num_columns + 5))[1:, 4 : num_columns + 4]
    outside = np.full((num_rows + 2, num_columns + 2), 99, np.float32)
    product(SGEMM, left, right, outside[1:-1, 1:-1])
    assert (outside[1:-1, 1:-1] == left @ right).all()
    outside[1:-1, 1:-1] = 99
    assert (outside == 99).all()


def test_the_step_of_a_single_row_may_be_anything():
    right = np.arange(5, dtype=np.float32)[:, None].T
    assert right.flags.c_contiguous
    assert right.strides[0] < 5 * 4  # as NumPy may have it, and BLAS may not
    result = np.zeros((2, 5), np.float32)
    product(SGEMM, np.array([[1], [2]], np.float32), right, result)
    assert result.tolist() == [[0, 1, 2, 3, 4], [0, 2, 4, 6, 8]]


class Case:
    """Queries and rows with limits that let about a third of the pairs pass."""

    def __init__(self, seed, num_queries, num_rows, depth=6):
        rng = np.random.default_rng(seed)
        self.gallery = whole_numbers(rng, (num_rows, depth))
        self.queries = whole_numbers(rng, (num_queries, depth))
        self.limits = whole_numbers(rng, num_queries) * 4
        self.terms = np.abs(whole_numbers(rng, num_rows)), whole_numbers(rng, num_rows)

    def expected(self):
        bounds = self.gallery @ self.queries.T
        return [
            (query, row)
            for row in range(len(self.gallery))
            for query in range(len(self.queries))
            if bounds[row, query] >= self.limits[query] * self.terms[0][row] + self.terms[1][row]
        ]

    def found(self, tile, most_waiting, *, by_query=False, few=False):
        """The pairs of each call."""
        width = len(padded(self.queries)) if few else tile[0]
        room, place, calls = Room.of(width * tile[1], most_waiting), (0, 0), []
        while place[0] < len(self.queries):
            query, row, place = next_pairs(
                self.gallery,
                np.ascontiguousarray(self.queries.T),
                padded(self.queries if few else self.queries[:0]),
                self.limits,
                self.terms,
                room,
                place=place,
                tile=tile,
                most_waiting=most_waiting,
                by_query=by_query,
            )
            assert query.dtype == row.dtype == np.int32
            calls.append(list(zip(query.tolist(), row.tolist(), strict=True)))
        return calls


@pytest.mark.parametrize("tile", [(1, 1), (3, 2), (4, 7), (7, 40), (64, 1), (100, 100)])
@pytest.mark.parametrize("most_waiting", [0, 5, 10_000])
@pytest.mark.parametrize("by_query", [False, True])
def test_each_pair_that_passes_is_found_once_whatever_the_tiles(tile, most_waiting, by_query):
    case = Case(1, num_queries=70, num_rows=33)
    expected = case.expected()
    assert 300 < len(expected) < 2000
    calls = case.found(tile, most_waiting, by_query=by_query)
    assert sorted(list(chain(*calls))) == sorted(expected)


@pytest.mark.parametrize("num_queries", [1, 3, 4, 11])
def test_few_queries_are_multiplied_another_way_with_the_same_pairs(num_queries):
    case = Case(num_queries, num_queries, num_rows=61)
    calls = case.found((num_queries, 8), 3, few=True)
    assert sorted(list(chain(*calls))) == sorted(case.expected())


def test_a_call_ends_after_the_tile_with_which_too_many_wait():
    case = Case(2, num_queries=40, num_rows=50)
    for most_waiting in (0, 9):
        for pairs in case.found((10, 5), most_waiting)[:-1]:
            last = (pairs[-1][0] // 10, pairs[-1][1] // 5)
            before = [pair for pair in pairs if (pair[0] // 10, pair[1] // 5) != last]
            assert len(before) <= most_waiting < len(pairs)


def test_by_query_the_rows_of_each_query_stand_together_in_their_order():
    case = Case(3, num_queries=20, num_rows=30)
    plain = case.found((20, 7), 10_000)
    ((pairs),) = [call for call in case.found((20, 7), 10_000, by_query=True) if call]
    assert pairs == sorted(list(chain(*plain)))


def test_where_nothing_passes_there_is_no_pair():
    case = Case(4, num_queries=5, num_rows=9)
    case.limits[:] = np.inf
    case.terms[0][:] = 1
    for by_query in (False, True):
        assert list(chain(*case.found((2, 2), 0, by_query=by_query))) == []
