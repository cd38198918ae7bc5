"""Galleries of near-duplicates: every engine gives the order of the real distances."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retrieval.ranking.verification import BruteForce
from retrieval.search import CpuSearch, guess_floors, scan
from retrieval.search.bounds import principal_directions
from retrieval.search.gallery_block import prepare
from retrieval.search.gpu import GpuSearch, bounds
from retrieval.search.gpu import prefilter as filtering
from retrieval.search.gpu.operands import half_rows
from retrieval.search.prefilter import DistancePass
from retrieval.search.scores import Rows
from retrieval.vectors import Sample, VectorBlock
from tests.retrieval.gpu_cases import DEVICE
from tests.retrieval.score_cases import NEAR_KINDS, is_right, pairs_of, real_square
from tests.retrieval.test_search_bounds import keys_of, reach


def block_of(vectors, letter="g"):
    # Ids whose order is not that of the rows.
    order = np.random.default_rng(5).permutation(len(vectors))
    return VectorBlock(np.array([f"{letter}{n:04}" for n in order], "S"), vectors)


def in_blocks(gallery, step):
    return (
        VectorBlock(gallery.ids[start : start + step], gallery.vectors[start : start + step])
        for start in range(0, len(gallery.ids), step)
    )


def by_cpu(queries, gallery, k, metric):
    search = CpuSearch(queries, k, metric)
    scan(search, [in_blocks(gallery, 50)], 2)
    return search.result()


def by_cpu_with_a_basis(queries, gallery, k, metric):
    directions = principal_directions(gallery.vectors.astype(np.float32), 2)
    search = CpuSearch(queries, k, metric, basis=directions)
    scan(search, [in_blocks(gallery, 61)], 1)
    return search.result()


def by_cpu_with_a_guess(queries, gallery, k, metric):
    search = CpuSearch(queries, k, metric)
    sample = Sample(gallery.vectors[::4], 1 / 4)
    options = {"num_gallery": 16 * len(gallery.ids)}
    search.raise_floors(guess_floors(sample, queries.vectors, k, metric, **options))
    search.add(gallery)
    found = search.result()
    assert len(found) == k * len(queries.ids)  # or the guess was too high
    return found


def by_gpu_engine(queries, gallery, k, metric):
    search = GpuSearch(queries, k, metric, device=DEVICE, use_triton=False)
    for part in in_blocks(gallery, 70):
        search.add(part)
    return search.result()


def by_brute_force(queries, gallery, k, metric):
    order = np.argsort(queries.ids)  # which brute force wants sorted
    search = BruteForce(VectorBlock(queries.ids[order], queries.vectors[order]), k, metric)
    for part in in_blocks(gallery, 40):
        search.add(part)
    found = search.nearest()
    query = order[found.query].astype(np.int32)
    again = np.argsort(query, kind="stable")
    return type(found)(query[again], found.ids[again], found.scores[again])


L2_WAYS = (by_cpu, by_cpu_with_a_basis, by_cpu_with_a_guess, by_gpu_engine, by_brute_force)
WAYS = [(way, "l2") for way in L2_WAYS] + [(way, "l1") for way in (by_cpu, by_brute_force)]


def assert_nearest(found, queries, gallery, k, metric):
    """By fractions of whole numbers: only what a score cannot tell apart may change places."""
    dim = gallery.vectors.shape[1]
    unsure = (1 + Fraction(dim + 2, 2**52)) ** 5
    row_of = {row_id: row for row, row_id in enumerate(gallery.ids.tolist())}
    for number, query in enumerate(queries.vectors):
        squares = [real_square(metric, query, row) for row in gallery.vectors]
        ids, scores = (side[found.query == number] for side in (found.ids, found.scores))
        rows = [row_of[row_id] for row_id in ids.tolist()]
        assert len(set(rows)) == len(rows) == min(k, len(squares))
        for row, score, real in zip(rows, scores, sorted(squares), strict=False):
            assert is_right(float(score), squares[row], dim)
            assert squares[row] <= real * unsure
        keys = list(zip(scores.tolist(), ids.tolist(), strict=True))
        assert keys == sorted(keys)


def near_duplicates(kind, dtype, dim=6, num_rows=160, seed=0):
    """Queries, and rows of which most are nearer to one of them than its norm's last digits."""
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(3, dim))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    queries = (queries * {"large": 60.0}.get(kind, 1.0)).astype(dtype)
    rows = queries[rng.integers(3, size=num_rows)]
    if kind in ("steps", "large"):  # some components some steps away
        for _ in range(3):
            place = np.arange(num_rows), rng.integers(dim, size=num_rows)
            rows[place] = np.nextafter(rows[place], rng.choice([-9, 9], num_rows).astype(dtype))
    elif kind == "far digits":
        rows = (rows * (1 + 1e-7 * rng.normal(size=rows.shape))).astype(dtype)
    elif kind == "crossing zero":  # differences in components that are far smaller than the norm
        queries[:, 1:], rows[:, 1:] = 0, 1e-20 * rng.integers(-9, 10, (num_rows, dim - 1))
    rows[::10] = rng.normal(size=rows[::10].shape).astype(dtype)
    rows[5::20] = queries[rng.integers(3, size=len(rows[5::20]))]
    return block_of(queries, "q"), block_of(rows)


@pytest.mark.parametrize(("way", "metric"), WAYS)
@pytest.mark.parametrize("kind", ["steps", "far digits", "large", "crossing zero"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_nearest_of_near_duplicates_are_the_nearest(way, metric, kind, dtype):
    for k in (1, 3, 9):
        queries, gallery = near_duplicates(kind, dtype, seed=k)
        if not gallery.vectors.any(axis=1).all():
            continue
        found = way(queries, gallery, k, metric)
        assert_nearest(found, queries, gallery, k, metric)


@pytest.mark.parametrize(("way", "metric"), WAYS)
@pytest.mark.parametrize("size", [1e-9, 1e-3, 1.0])
def test_distances_that_differ_by_a_part_of_2_to_the_minus_40_are_told_apart(way, metric, size):
    rng = np.random.default_rng(0)
    dim, num_rows = 64, 200
    query = np.zeros((1, dim))
    query[0, :2] = 0.75, 2.0**-30
    rows = np.tile(query, (num_rows, 1))
    rank = rng.permutation(num_rows)
    place = rng.integers(2, dim, num_rows)  # where the query is 0, so that nothing rounds
    rows[np.arange(num_rows), place] = size * (1 + rank * 2.0**-40)
    gallery = VectorBlock(np.array([f"g{n:03}" for n in rng.permutation(num_rows)], "S"), rows)
    for k in (1, 7, 60):
        found = way(VectorBlock(np.array([b"q"]), query), gallery, k, metric)
        assert found.ids.tolist() == gallery.ids[np.argsort(rank)][:k].tolist()


@pytest.mark.parametrize("basis", [None, np.eye(9, 2, dtype=np.float32)])
@pytest.mark.parametrize("kind", NEAR_KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_no_near_pair_falls_below_the_bound_of_its_own_distance(basis, kind, dtype):
    for seed in range(6):
        ours, theirs = pairs_of(kind, seed, 60, 9, dtype)
        assert reach("l2", ours, theirs, basis).all()
        keys = torch.tensor(keys_of("l2", ours, theirs))
        queries, rows = (half_rows(torch.tensor(x), 64, common=True) for x in (ours, theirs))
        factors, offsets = bounds.row_terms("l2", rows, queries)
        for device in (torch.device("cpu"), torch.device("cuda")):
            error = bounds.accumulation_error(9, device)
            limits = bounds.query_limits("l2", keys, queries, rows, error)
            guess = filtering.guesses(queries.half, rows.half).diagonal()
            assert (guess >= limits * factors + offsets).all()


@pytest.mark.parametrize("kind", NEAR_KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_no_near_pair_is_left_out_by_sums_of_differences(kind, dtype):
    for seed in range(6):
        ours, theirs = pairs_of(kind, seed, 60, 9, dtype)
        block = prepare(theirs, np.empty(theirs.shape, np.float32))
        floors = keys_of("l1", ours, theirs)
        found = [
            number
            for query, row in DistancePass(Rows.prepare(ours)).pairs(block, floors)
            for number in query[query == row].tolist()
        ]
        assert sorted(found) == list(range(60))


COMPONENTS = st.sampled_from([1.0, -1.0, 0.75, 3.0, 1e-8, 2e-8])


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 5), st.sampled_from(["float32", "float64"]), st.integers(1, 4))
def test_any_gallery_of_a_few_steps_around_its_queries(data, dim, dtype, k):
    queries = data.draw(hnp.arrays(np.float64, (2, dim), elements=COMPONENTS)).astype(dtype)
    num_rows = data.draw(st.integers(1, 12))
    steps = data.draw(hnp.arrays(np.int8, (num_rows, dim), elements=st.integers(-3, 3)))
    rows = queries[np.arange(num_rows) % 2]
    rows = rows + steps.astype(dtype) * np.spacing(rows)
    for metric in ("l2", "l1"):
        sides = block_of(queries, "q"), block_of(rows)
        assert_nearest(by_cpu(*sides, k, metric), *sides, k, metric)
        assert_nearest(by_brute_force(*sides, k, metric), *sides, k, metric)
    assert_nearest(by_gpu_engine(*sides, k, "l2"), *sides, k, "l2")
