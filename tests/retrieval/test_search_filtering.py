"""The filters of a first pass against plain Python loops."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.search.prefilter_pairs import still_near, still_passing
from retrieval.search.tiles import collect

WIDTHS = (1, 63, 64, 65, 1025)
NUM_ROWS = 5


def room(num_pairs):
    """Space with nothing sensible in it, and no more than is asked for."""
    return np.full(num_pairs, -7, np.int32), np.full(num_pairs, -7, np.int32)


def as_pairs(found):
    query, row = found
    assert query.dtype == row.dtype == np.int32
    return list(zip(query.tolist(), row.tolist(), strict=True))


def small_numbers(rng, shape):
    """Multiples of a quarter: float32 arithmetic is exact, and many are equal."""
    return (rng.integers(-8, 9, shape) / 4).astype(np.float32)


def run_passing(bounds, limits, terms, space):
    count = collect(bounds, limits, terms, space, (0, 0), 0)
    return space[0][:count], space[1][:count]


def slowly_passing(bounds, limits, weights, offsets):
    return [
        (query, row)
        for row in range(bounds.shape[0])
        for query in range(bounds.shape[1])
        if bounds[row, query] >= limits[query] * weights[row] + offsets[row]
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("make", [small_numbers, "noise"])
def test_passing_finds_what_plain_loops_find_row_by_row(width, make):
    rng = np.random.default_rng(width)
    if make == "noise":
        make = noise
    bounds, limits = make(rng, (NUM_ROWS, width)), make(rng, width)
    weights, offsets = np.abs(make(rng, NUM_ROWS)), make(rng, NUM_ROWS)
    found = run_passing(bounds, limits, (weights, offsets), room(NUM_ROWS * width))
    assert as_pairs(found) == slowly_passing(bounds, limits, weights, offsets)


def noise(rng, shape):
    return rng.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_bound_that_equals_its_limit_passes_and_the_next_smaller_number_does_not(width):
    bounds = np.full((NUM_ROWS, width), 3.25, np.float32)
    limits = np.full(width, 1.5, np.float32)
    terms = np.full(NUM_ROWS, 2, np.float32), np.full(NUM_ROWS, 0.25, np.float32)
    every = [(query, row) for row in range(NUM_ROWS) for query in range(width)]
    assert as_pairs(run_passing(bounds, limits, terms, room(len(every)))) == every
    lower = np.nextafter(bounds, np.float32(0))
    assert as_pairs(run_passing(lower, limits, terms, room(len(every)))) == []
    for query, row in (every[0], every[-1]):
        one = lower.copy()
        one[row, query] = 3.25
        assert as_pairs(run_passing(one, limits, terms, room(1))) == [(query, row)]


@pytest.mark.parametrize("width", WIDTHS)
def test_without_a_limit_every_pair_passes_and_with_an_endless_one_none(width):
    bounds = np.full((NUM_ROWS, width), -1e30, np.float32)
    weights, offsets = np.full(NUM_ROWS, 1e-9, np.float32), np.zeros(NUM_ROWS, np.float32)
    limits = np.full(width, -np.inf, np.float32)
    found = run_passing(bounds, limits, (weights, offsets), room(NUM_ROWS * width))
    assert as_pairs(found) == [(query, row) for row in range(NUM_ROWS) for query in range(width)]
    assert as_pairs(run_passing(bounds, -limits, (weights, offsets), room(0))) == []
    limits[0] = 0  # one query has a limit, the others have none
    found = run_passing(bounds, limits, (weights, offsets), room(NUM_ROWS * width))
    assert as_pairs(found) == [(query, row) for row in range(NUM_ROWS) for query in range(1, width)]


def test_passing_takes_a_tile_within_a_larger_array():
    rng = np.random.default_rng(0)
    bounds, limits = small_numbers(rng, (9, 80)), small_numbers(rng, 80)
    weights, offsets = np.ones(9, np.float32), small_numbers(rng, 9)
    tile = bounds[2:7, 3:70]
    found = run_passing(tile, limits[3:70], (weights[2:7], offsets[2:7]), room(tile.size))
    assert as_pairs(found) == slowly_passing(tile, limits[3:70], weights[2:7], offsets[2:7])


@pytest.mark.parametrize("num_dims", [1, 7, 64, 65, 130])
def test_still_passing_keeps_the_pairs_that_plain_loops_keep_in_their_order(num_dims):
    rng = np.random.default_rng(num_dims)
    queries, gallery = small_numbers(rng, (6, num_dims)), small_numbers(rng, (9, num_dims))
    limits, offsets = small_numbers(rng, 6) * 4, small_numbers(rng, 9)
    limits[0] = -np.inf
    weights = np.abs(small_numbers(rng, 9))
    weights[weights == 0] = 1
    pairs = rng.integers(6, size=200).astype(np.int32), rng.integers(9, size=200).astype(np.int32)
    products = queries.astype(np.float64) @ gallery.T.astype(np.float64)
    expected = [
        (query, row)
        for query, row in as_pairs(pairs)
        if products[query, row] >= limits[query] * weights[row] + offsets[row]
    ]
    assert 20 < len(expected) < 190
    found = still_passing(pairs, queries, gallery, limits, (weights, offsets))
    assert as_pairs(found) == expected


@pytest.mark.parametrize(("step", "passes"), [(0, True), (1, False)])
def test_still_passing_lets_equality_pass(step, passes):
    queries, gallery = np.full((1, 64), 0.5, np.float32), np.full((1, 64), 2, np.float32)
    limits = np.full(1, 64 + step * 2.0**-17, np.float32)
    pairs = np.zeros(1, np.int32), np.zeros(1, np.int32)
    terms = np.ones(1, np.float32), np.zeros(1, np.float32)
    assert as_pairs(still_passing(pairs, queries, gallery, limits, terms)) == [(0, 0)] * passes


def test_still_passing_of_no_pairs_is_none():
    rows, none = np.ones((1, 3), np.float32), np.empty(0, np.int32)
    terms = np.ones(1, np.float32), np.zeros(1, np.float32)
    assert as_pairs(still_passing((none, none), rows, rows, terms[0], terms)) == []


@pytest.mark.parametrize("num_dims", [1, 63, 64, 65, 200])
def test_still_near_finds_what_plain_loops_find_row_by_row(num_dims):
    rng = np.random.default_rng(num_dims)
    queries, gallery = small_numbers(rng, (7, num_dims)), small_numbers(rng, (30, num_dims))
    apart = np.abs(queries[:, None].astype(np.float64) - gallery).sum(axis=2)
    limits = np.median(apart, axis=1).astype(np.float32)  # between two, or equal to one
    limits[0], limits[1], limits[2] = np.inf, -np.inf, apart[2].min()
    expected = [(q, row) for row in range(30) for q in range(7) if apart[q, row] <= limits[q]]
    assert {query for query, _ in expected} == {0, 2, 3, 4, 5, 6}
    assert as_pairs(still_near(queries, gallery, limits, room(210))) == expected


@pytest.mark.parametrize("num_dims", [1, 64, 65, 130])
@pytest.mark.parametrize(("step", "passes"), [(0, True), (-1, False)])
def test_still_near_lets_equality_pass(num_dims, step, passes):
    queries = np.zeros((1, num_dims), np.float32)
    gallery = np.zeros((1, num_dims), np.float32)
    gallery[0, 0], gallery[0, -1] = -0.75, 0.5 if num_dims > 1 else -1.25
    limits = np.full(1, 1.25 + step * 2.0**-23, np.float32)
    assert as_pairs(still_near(queries, gallery, limits, room(1))) == [(0, 0)] * passes
