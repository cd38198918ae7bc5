"""How long the first product should be: a matter of speed alone."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from retrieval.search import METRICS
from retrieval.search.cpu_engine import CpuSearch
from retrieval.search.tuning import choose_basis, is_worth_a_sample, whole_product_ns
from retrieval.vectors import VectorBlock

MILLION = 10**6


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def isotropic(rng, num_rows, num_dims=128):
    return unit(rng.normal(size=(num_rows, num_dims)))


def of_low_rank(rng, num_rows, num_dims=128, rank=6):
    turn = np.linalg.qr(rng.normal(size=(num_dims, num_dims)))[0][:rank]
    noise = 1e-3 * rng.normal(size=(num_rows, num_dims))
    return unit(rng.normal(size=(num_rows, rank)) @ turn + noise)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_gallery_of_few_directions_gets_a_short_basis(dtype):
    rows = of_low_rank(np.random.default_rng(0), 1300).astype(dtype)
    choice = choose_basis(rows[:1000], rows[1000:], 10, MILLION)
    assert choice.basis.shape == (128, 8)
    assert choice.basis.dtype == np.float32
    assert choice.basis.flags.c_contiguous
    product = choice.basis.T.astype(np.float64) @ choice.basis
    assert product == pytest.approx(np.eye(8), abs=1e-6)
    left = 1 - ((rows.astype(np.float64) @ choice.basis) ** 2).sum(axis=1)
    assert left.max() < 1e-2  # nearly all of each row


def test_a_gallery_of_more_directions_gets_a_longer_basis_or_none():
    rng = np.random.default_rng(1)
    rows = of_low_rank(rng, 1300, rank=30)
    choice = choose_basis(rows[:1000], rows[1000:], 10, MILLION)
    assert choice.basis is None or choice.basis.shape[1] > 8


def test_a_gallery_without_leading_directions_gets_none():
    rows = isotropic(np.random.default_rng(2), 1300)
    assert choose_basis(rows[:1000], rows[1000:], 10, MILLION).basis is None


@pytest.mark.parametrize(
    ("num_sample", "num_queries", "num_gallery", "num_dims"),
    [(1000, 1, 10_000, 128), (511, 300, MILLION, 128), (1000, 300, MILLION, 31)],
    ids=["little work", "a small sample", "few dimensions"],
)
def test_what_is_too_little_to_pay_gets_none(num_sample, num_queries, num_gallery, num_dims):
    rows = of_low_rank(np.random.default_rng(3), num_sample + num_queries, num_dims)
    choice = choose_basis(rows[:num_sample], rows[num_sample:], 10, num_gallery)
    assert choice.basis is None
    assert choice.ns_a_row > 0


def test_a_basis_is_only_chosen_where_a_row_is_expected_to_cost_less():
    rng = np.random.default_rng(4)
    plain, short = isotropic(rng, 1300), of_low_rank(rng, 1300)
    expected = [
        choose_basis(rows[:1000], rows[1000:], 10, MILLION).ns_a_row for rows in (plain, short)
    ]
    assert 0 < expected[1] < expected[0]


def test_the_choice_is_the_same_each_time():
    rows = of_low_rank(np.random.default_rng(5), 1300).astype(np.float16)
    first, second = (choose_basis(rows[:1000], rows[1000:], 10, MILLION) for _ in range(2))
    assert first.basis.tobytes() == second.basis.tobytes()


@pytest.mark.parametrize("k", [1, MILLION, 10 * MILLION])
@pytest.mark.parametrize("num_queries", [1, 63, 64, 65, 300])
def test_any_number_of_queries_and_neighbours_is_taken(k, num_queries):
    rows = of_low_rank(np.random.default_rng(6), 1300)
    choice = choose_basis(rows[:1000], rows[1000 : 1000 + num_queries], k, 100 * MILLION)
    assert choice.ns_a_row > 0
    assert choice.basis is None or choice.basis.shape[0] == 128


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
@pytest.mark.parametrize("side", ["sample", "queries", "both"])
def test_huge_and_tiny_norms_neither_fail_nor_warn(scale, side):
    rows = of_low_rank(np.random.default_rng(7), 1300)
    sample, queries = rows[:1000].copy(), rows[1000:].copy()
    if side != "queries":
        sample[::3] *= scale
    if side != "sample":
        queries[::2] *= scale
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choice = choose_basis(sample, queries, 10, MILLION)
    if choice.basis is not None:
        product = choice.basis.T.astype(np.float64) @ choice.basis
        assert product == pytest.approx(np.eye(len(product)), abs=1e-6)


def test_a_sample_of_equal_rows_gets_an_orthonormal_basis_or_none():
    rows = np.repeat(isotropic(np.random.default_rng(8), 1), 1300, axis=0)
    basis = choose_basis(rows[:1000], rows[1000:], 10, MILLION).basis
    if basis is not None:
        assert basis.T.astype(np.float64) @ basis == pytest.approx(np.eye(basis.shape[1]), abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_chosen_basis_does_not_change_a_bit_of_the_result(metric, dtype):
    rows = of_low_rank(np.random.default_rng(9), 1300).astype(dtype)
    queries = VectorBlock(np.array([f"q{n}" for n in range(300)], "S"), rows[1000:])
    gallery = VectorBlock(np.array([f"g{n}" for n in range(1000)], "S"), rows[:1000])
    basis = choose_basis(gallery.vectors, queries.vectors, 10, MILLION).basis
    assert basis is not None
    plain, tuned = CpuSearch(queries, 10, metric), CpuSearch(queries, 10, metric, basis=basis)
    for search in (plain, tuned):
        search.add(gallery)
    assert tuned.result().ids.tolist() == plain.result().ids.tolist()
    assert tuned.result().scores.tobytes() == plain.result().scores.tobytes()


def test_a_sample_is_worth_its_while_from_half_a_second_of_one_core_on():
    rows = 5e8 / whole_product_ns(100, 512)
    assert is_worth_a_sample(100, 512, int(rows) + 1)
    assert not is_worth_a_sample(100, 512, int(rows) - 1)
