"""Canonical keys in compiled loops: the bits of `scores.pair_scores`."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.search import METRICS, is_distance
from retrieval.search.gallery_block import prepare
from retrieval.search.rescoring import ExactPairs
from retrieval.search.scores import Rows, pair_scores

DTYPES = ("float16", "float32", "float64")


def every_pair(num_queries, num_rows):
    """Row by row, as the first passes find them."""
    rows, queries = np.divmod(np.arange(num_queries * num_rows, dtype=np.int32), num_queries)
    return queries.astype(np.int32), rows.astype(np.int32)


def expected_keys(metric, queries, gallery, pairs):
    query, row = pairs
    with np.errstate(over="ignore"):  # an inner product of 1e300 and 1e300 has no end
        scores = pair_scores(
            metric, Rows.prepare(queries).take(query), Rows.prepare(gallery).take(row)
        )
    return -scores if is_distance(metric) else scores


def found_keys(metric, queries, gallery, pairs, floors=None):
    block = prepare(gallery, np.full(gallery.shape, np.nan, np.float32))
    floors = np.full(len(queries), -np.inf) if floors is None else floors
    own = tuple(side.copy() for side in pairs)  # they are overwritten
    return ExactPairs(metric, Rows.prepare(queries)).keys(block, own, floors)


def assert_same_bits(queries, gallery):
    pairs = every_pair(len(queries), len(gallery))
    for metric in METRICS:
        query, row, keys = found_keys(metric, queries, gallery, pairs)
        assert (query.tolist(), row.tolist()) == (pairs[0].tolist(), pairs[1].tolist())
        assert keys.tobytes() == expected_keys(metric, queries, gallery, pairs).tobytes(), metric


def rows_of_length(rng, lengths, num_dims, dtype):
    rows = rng.normal(size=(len(lengths), num_dims))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True) * lengths[:, None]).astype(dtype)


@pytest.mark.parametrize("num_dims", [1, 2, 17, 300, 2048])
@pytest.mark.parametrize("theirs", DTYPES)
@pytest.mark.parametrize("ours", DTYPES)
def test_keys_have_the_bits_of_the_canonical_scores(ours, theirs, num_dims):
    rng = np.random.default_rng(num_dims)
    queries = rows_of_length(rng, np.ones(9), num_dims, ours)
    gallery = rows_of_length(rng, np.ones(20), num_dims, theirs)
    gallery[:4] = queries[:4]
    gallery[4:6] = -queries[4:6]
    assert_same_bits(queries, gallery)


# Where float16 sums stop being exact: √2 for distances, 2√2 for products; and on both sides of
# each power of √2, where the canonical scale changes.
AROUND = np.concatenate([2.0 ** (n / 2) * (1 + np.array([-1, 0, 1]) / 512) for n in range(-3, 9)])


@pytest.mark.parametrize("theirs", DTYPES)
@pytest.mark.parametrize("ours", DTYPES)
def test_norms_on_both_sides_of_the_limits_of_exact_sums(ours, theirs):
    rng = np.random.default_rng(0)
    for num_dims in (3, 130):
        queries = rows_of_length(rng, AROUND, num_dims, ours)
        gallery = rows_of_length(rng, rng.permutation(AROUND), num_dims, theirs)
        assert_same_bits(queries, gallery)


@pytest.mark.parametrize("square", [2.0, 8.0])
def test_float16_rows_of_exactly_the_limit_s_norm(square):
    # Of norms √2 and 2√2 without rounding, and one step below and above.
    edge = np.full(8, np.sqrt(square / 8))
    rows = np.stack([edge, -edge, np.nextafter(edge, 0), np.nextafter(edge, 9)])
    rows = np.concatenate([rows, np.eye(8)]).astype(np.float16)
    rows[2, 1:] = rows[0, 1:]
    rows[2, 0] = np.nextafter(rows[0, 0], np.float16(0))
    rows[3, 0] = np.nextafter(rows[0, 0], np.float16(9))
    rng = np.random.default_rng(1)
    subnormal = rows.copy()
    subnormal[:, 1:] = (rng.integers(1, 2**10, (12, 7)) * 2.0**-24).astype(np.float16)
    assert_same_bits(rows, np.concatenate([rows, subnormal]))
    assert_same_bits(subnormal, rows)


@pytest.mark.parametrize("num_dims", [1, 40])
def test_huge_and_tiny_norms_and_scales_that_differ(num_dims):
    rng = np.random.default_rng(2)
    lengths = 10.0 ** np.array([-300, -200, -160, -30, -3, 0, 3, 30, 160, 200, 300])
    queries = rows_of_length(rng, lengths, num_dims, "float64")
    gallery = rows_of_length(rng, rng.permutation(lengths), num_dims, "float64")
    gallery = np.concatenate([gallery, queries, np.full((1, num_dims), 5e-324)])
    assert_same_bits(queries, gallery)
    near = rows_of_length(rng, 10.0 ** np.arange(-30.0, 31, 6), num_dims, "float32")
    assert_same_bits(
        near, np.concatenate([near, rows_of_length(rng, lengths[3:8], num_dims, "f4")])
    )
    assert_same_bits(near, gallery)
    assert_same_bits(queries, near)


def test_components_of_very_different_sizes():
    rng = np.random.default_rng(3)
    sizes = 10.0 ** rng.integers(-300, 1, (12, 30))
    sizes[np.arange(12), rng.integers(30, size=12)] = 1
    rows = rng.normal(size=(12, 30)) * sizes
    assert_same_bits(rows, rows * 10.0 ** rng.integers(-5, 6, (12, 1)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_order_of_the_components_does_not_matter(dtype):
    rng = np.random.default_rng(4)
    queries = rows_of_length(rng, np.array([1.0, 1, 3, 0.1]), 257, dtype)
    gallery = rows_of_length(rng, np.array([1.0, 1, 1, 5, 1.41, 2.82]), 257, dtype)
    pairs = every_pair(4, 6)
    for metric in METRICS:
        keys = found_keys(metric, queries, gallery, pairs)[2].tobytes()
        for _ in range(5):
            order = rng.permutation(257)
            assert (
                found_keys(metric, queries[:, order], gallery[:, order], pairs)[2].tobytes() == keys
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", [*METRICS, "minkowski:3"])
def test_floors_drop_exactly_the_pairs_below_them(metric, dtype):
    rng = np.random.default_rng(5)
    queries = rows_of_length(rng, np.array([1.0, 1, 1, 7]), 16, dtype)
    gallery = rows_of_length(rng, np.ones(50), 16, dtype)
    gallery[10:20] = gallery[:10]
    pairs = every_pair(4, 50)
    query, row, keys = found_keys(metric, queries, gallery, pairs)
    floors = np.array([keys[query == number][11] for number in range(4)])  # equal to some keys
    kept = keys >= floors[query]
    assert 4 <= kept.sum() < 200
    found = found_keys(metric, queries, gallery, pairs, floors)
    assert found[0].tolist() == query[kept].tolist()
    assert found[1].tolist() == row[kept].tolist()
    assert found[2].tobytes() == keys[kept].tobytes()
    higher = np.nextafter(floors, np.inf)
    assert (
        len(found_keys(metric, queries, gallery, pairs, higher)[2]) == (keys > floors[query]).sum()
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_pairs_may_come_in_any_order_and_more_than_once(dtype):
    rng = np.random.default_rng(6)
    queries = rows_of_length(rng, np.array([1.0, 9, 0.01, 2]), 20, dtype)
    gallery = rows_of_length(rng, np.array([1.0, 1.5, 1, 3, 40, 0.1]), 20, dtype)
    query, row = rng.integers(4, size=300), rng.integers(6, size=300)
    pairs = query.astype(np.int32), row.astype(np.int32)
    for metric in METRICS:
        keys = found_keys(metric, queries, gallery, pairs)[2]
        assert keys.tobytes() == expected_keys(metric, queries, gallery, pairs).tobytes()


@pytest.mark.parametrize("metric", METRICS)
def test_no_pairs_have_no_keys(metric):
    none = np.empty(0, np.int32)
    rows = np.ones((2, 3), np.float32)
    assert [len(part) for part in found_keys(metric, rows, rows, (none, none))] == [0, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_rows_are_plus_zero_apart_and_right_angles_score_plus_zero(dtype):
    rows = np.array([[1, 0], [-1, 0], [0, -1]], dtype)
    pairs = np.array([0, 1, 2], np.int32), np.array([0, 1, 2], np.int32)
    for metric in ("l2", "l1", "minkowski:3"):
        keys = found_keys(metric, rows, rows, pairs)[2]
        assert (-keys).tobytes() == np.zeros(3).tobytes()
    across = np.array([0, 1, 2], np.int32), np.array([2, 2, 0], np.int32)
    for metric in ("cosine", "ip"):
        assert found_keys(metric, rows, rows, across)[2].tobytes() == np.zeros(3).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("power", [1, 1.5, 2, 3, 7])
def test_minkowski_is_right_to_its_relative_error(power, dtype):
    rng = np.random.default_rng(7)
    for num_dims in (1, 5, 200):
        queries = rows_of_length(rng, np.array([1.0, 3, 1e-3]), num_dims, dtype)
        gallery = rows_of_length(rng, np.array([1.0, 1, 0.1, 20]), num_dims, dtype)
        query, row = pairs = every_pair(3, 4)
        apart = np.abs(queries.astype(np.longdouble)[query] - gallery.astype(np.longdouble)[row])
        truth = (apart**power).sum(axis=1) ** (1 / np.longdouble(power))
        metric = f"minkowski:{power}"
        tolerance = num_dims * 2.0**-50 * truth
        assert (np.abs(-found_keys(metric, queries, gallery, pairs)[2] - truth) <= tolerance).all()
        theirs = expected_keys(metric, queries, gallery, pairs)
        assert (np.abs(-theirs - truth) <= tolerance).all()


@pytest.mark.parametrize("power", [500, 5000.5, 1e6, 1e300])
def test_a_high_power_of_minkowski_comes_near_the_largest_difference(power):
    rng = np.random.default_rng(8)
    queries, gallery = rng.normal(size=(3, 512)), rng.normal(size=(4, 512))
    gallery[0] = queries[0]
    query, row = pairs = every_pair(3, 4)
    largest = np.abs(queries[query] - gallery[row]).max(axis=1)
    for keys in (
        found_keys(f"minkowski:{power}", queries, gallery, pairs)[2],
        expected_keys(f"minkowski:{power}", queries, gallery, pairs),
    ):
        assert (-keys >= largest * (1 - 1e-12)).all()
        assert (-keys <= largest * 512 ** (1 / power) * (1 + 1e-12)).all()
