"""Exact top-k against its definition in plain loops, bit for bit."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from retrieval.search import METRICS, RULES, Candidates, best, is_distance, score_rule, top_k
from retrieval.search.scores import Rows, pair_scores
from retrieval.vectors import VectorBlock
from tests.retrieval.score_cases import by_the_rule

DTYPES = ("float16", "float32", "float64")


def slow_score(metric, query, row):
    """The canonical score of unit-length vectors, one component after the other."""

    def exact(products):
        total = 0.0
        for product in products:
            total += (product + 6.0) - 6.0
        return total

    if is_distance(metric):
        return by_the_rule(metric, query, row)
    query, row = [float(v) for v in query], [float(v) for v in row]
    dot = exact(a * b for a, b in zip(query, row, strict=True))
    if metric == "ip":
        return dot
    return dot / math.sqrt(exact(a * a for a in query) * exact(b * b for b in row))


def slow_ranking(metric, queries, gallery, k, *, exclude_self=False):
    """For each query its (id, score) in order, by sorting everything."""
    sign = 1 if is_distance(metric) else -1
    answers = []
    for query_id, query in zip(queries.ids, queries.vectors, strict=True):
        scored = [
            (sign * slow_score(metric, query, row), row_id)
            for row_id, row in zip(gallery.ids, gallery.vectors, strict=True)
            if not (exclude_self and row_id == query_id)
        ]
        scored.sort()
        answers.append([(row_id, sign * key + 0.0) for key, row_id in scored[:k]])
    return answers


def as_lists(found: Candidates, num_queries):
    answers = [[] for _ in range(num_queries)]
    for query, row_id, score in zip(found.query, found.ids, found.scores, strict=True):
        answers[query].append((row_id, score))
    return answers


def bits(answers):
    return [[(row_id, np.float64(score).tobytes()) for row_id, score in row] for row in answers]


def unit_rows(rng, num_rows, dim, dtype):
    rows = rng.normal(size=(num_rows, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)


def block(vectors, prefix="g"):
    # Ids in an order of their own, of different lengths: position must not matter.
    order = np.random.default_rng(9).permutation(len(vectors))
    return VectorBlock(np.array([f"{prefix}{n * n}" for n in order], dtype="S"), vectors)


@pytest.fixture(params=range(4), ids="seed{}".format)
def rng(request):
    return np.random.default_rng(request.param)


def split(gallery, bounds):
    edges = [0, *bounds, len(gallery.ids)]
    return [
        VectorBlock(gallery.ids[a:b], gallery.vectors[a:b])
        for a, b in itertools.pairwise(edges)
        if b > a
    ]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_top_k_equals_plain_loops_bit_for_bit(rng, metric, dtype):
    queries, gallery = (
        block(unit_rows(rng, 4, 12, dtype), "q"),
        block(unit_rows(rng, 60, 12, dtype)),
    )
    found = top_k(queries, [gallery], 7, metric)
    assert bits(as_lists(found, 4)) == bits(slow_ranking(metric, queries, gallery, 7))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_ties_are_settled_by_id(rng, metric, dtype):
    # Signs on a small grid: some twenty distinct rows among eighty, each a fourfold tie.
    signs = rng.choice([-0.5, 0.5], (84, 4))
    queries, gallery = block(signs[:4].astype(dtype), "q"), block(signs[4:].astype(dtype))
    for k in (1, 5, 30, 50, 60, 70, 75, 79, 80, 200):
        found = top_k(queries, split(gallery, [3, 40]), k, metric)
        assert bits(as_lists(found, 4)) == bits(slow_ranking(metric, queries, gallery, k))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_tie_exactly_but_not_in_a_matrix_product_are_settled_by_id(rng, metric, dtype):
    # Permutations of one vector are equally far from a constant one; a product that sums in
    # another order for each of them disagrees in the last bits, and would pick by noise.
    one = unit_rows(rng, 1, 301, dtype)[0]
    gallery = block(np.stack([rng.permutation(one) for _ in range(120)]))
    queries = VectorBlock(np.array([b"q"]), np.full((1, 301), 301**-0.5, dtype))
    expected = bits(slow_ranking(metric, queries, gallery, 9))
    assert len({score for _, score in expected[0]}) == 1
    for bounds in ([], [60], [10, 20, 30]):
        assert bits(as_lists(top_k(queries, split(gallery, bounds), 9, metric), 1)) == expected


@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_distance_of_a_vector_to_itself_is_plus_zero(rng, metric, dtype):
    rows = unit_rows(rng, 3, 50, dtype)
    found = top_k(block(rows), [block(rows)], 1, metric)
    assert found.scores.tobytes() == np.zeros(3).tobytes()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_shards_and_their_order_do_not_change_a_bit(rng, metric, dtype):
    queries = block(unit_rows(rng, 5, 33, dtype), "q")
    gallery = block(unit_rows(rng, 200, 33, dtype))
    whole = bits(as_lists(top_k(queries, [gallery], 10, metric), 5))
    for bounds in ([100], [1, 2, 3], [7, 50, 51, 180]):
        parts = split(gallery, bounds)
        folded = top_k(queries, parts[::-1], 10, metric)
        merged = best(
            [top_k(queries, [part], 10, metric) for part in parts],
            10,
            smaller_is_nearer=is_distance(metric),
        )
        assert bits(as_lists(folded, 5)) == whole
        assert bits(as_lists(merged, 5)) == whole


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_smaller_k_gives_a_prefix_and_one_query_the_same_as_many(rng, dtype):
    queries = block(unit_rows(rng, 6, 20, dtype), "q")
    gallery = block(unit_rows(rng, 90, 20, dtype))
    many = as_lists(top_k(queries, split(gallery, [30]), 50, "cosine"), 6)
    for row in range(6):
        one = VectorBlock(queries.ids[row : row + 1], queries.vectors[row : row + 1])
        assert bits(as_lists(top_k(one, [gallery], 9, "cosine"), 1)) == bits([many[row][:9]])


def test_a_case_worked_by_hand():
    queries = VectorBlock(np.array([b"q"]), np.array([[3, 4]], np.float32))
    gallery = VectorBlock(
        np.array([b"same", b"right", b"away"]), np.array([[6, 8], [4, -3], [-3, -4]], np.float32)
    )
    expected = {
        "cosine": [(b"same", 1.0), (b"right", 0.0), (b"away", -1.0)],
        "ip": [(b"same", 50.0), (b"right", 0.0), (b"away", -25.0)],
        "l2": [(b"same", 5.0), (b"right", math.sqrt(50)), (b"away", 10.0)],
        "l1": [(b"same", 7.0), (b"right", 8.0), (b"away", 14.0)],
    }
    for metric, answer in expected.items():
        assert as_lists(top_k(queries, [gallery], 3, metric), 1) == [answer], metric


@pytest.mark.parametrize("metric", METRICS)
def test_exclude_self_leaves_out_every_row_of_the_query_s_id(rng, metric):
    vectors = unit_rows(rng, 30, 8, "float16")
    gallery = VectorBlock(np.array([f"{n // 2}" for n in range(30)], dtype="S"), vectors)
    queries = VectorBlock(gallery.ids[:6:2], vectors[:6:2])
    for k in (3, 30):
        found = top_k(queries, split(gallery, [1, 11]), k, metric, exclude_self=True)
        expected = slow_ranking(metric, queries, gallery, k, exclude_self=True)
        assert bits(as_lists(found, 3)) == bits(expected)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [2.0**-9, 1.0, 3.0, 50.0])
def test_scores_are_right_for_any_length_of_vectors(rng, metric, dtype, scale):
    queries = block((unit_rows(rng, 3, 40, "float64") * scale).astype(dtype), "q")
    gallery = block((unit_rows(rng, 50, 40, "float64") * scale * 2).astype(dtype))
    q, g = queries.vectors.astype(np.longdouble), gallery.vectors.astype(np.longdouble)
    dots = q @ g.T
    truth = {
        "cosine": dots / np.sqrt((q * q).sum(1)[:, None] * (g * g).sum(1)),
        "ip": dots,
        "l2": np.sqrt(((q[:, None] - g) ** 2).sum(2)),
        "l1": np.abs(q[:, None] - g).sum(2),
    }[metric]
    place = {row_id: n for n, row_id in enumerate(gallery.ids)}
    size = {"cosine": 1, "ip": scale**2, "l2": scale, "l1": scale}[metric]
    for query, row_id, score in zip(
        *vars(top_k(queries, [gallery], 50, metric)).values(), strict=True
    ):
        assert abs(score - truth[query, place[row_id]]) < 1e-12 * size


@pytest.mark.parametrize("dtype", DTYPES)
def test_scaling_by_a_power_of_two_leaves_the_cosine_s_bits(rng, dtype):
    queries = block(unit_rows(rng, 3, 16, dtype), "q")
    gallery = block(unit_rows(rng, 40, 16, dtype))
    larger = VectorBlock(gallery.ids, gallery.vectors * gallery.vectors.dtype.type(4))
    plain = as_lists(top_k(queries, [gallery], 40, "cosine"), 3)
    assert bits(as_lists(top_k(queries, [larger], 40, "cosine"), 3)) == bits(plain)


def test_sums_do_not_depend_on_the_order_of_the_components(rng):
    for dtype in DTYPES:
        queries, gallery = unit_rows(rng, 50, 257, dtype), unit_rows(rng, 50, 257, dtype)
        shuffled = rng.permutation(257)
        for metric in METRICS:
            plain = pair_scores(metric, Rows.prepare(queries), Rows.prepare(gallery))
            mixed = pair_scores(
                metric, Rows.prepare(queries[:, shuffled]), Rows.prepare(gallery[:, shuffled])
            )
            assert plain.tobytes() == mixed.tobytes()


@pytest.mark.parametrize("dim", [1, 2, 2048])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_one_dimension_and_many(rng, dim, dtype):
    queries, gallery = (
        block(unit_rows(rng, 2, dim, dtype), "q"),
        block(unit_rows(rng, 9, dim, dtype)),
    )
    for metric in METRICS:
        found = as_lists(top_k(queries, [gallery], 9, metric), 2)
        assert bits(found) == bits(slow_ranking(metric, queries, gallery, 9))


def test_extreme_but_finite_values_neither_overflow_nor_vanish():
    tiny, huge = np.float64(5e-324), np.float64(1e300)
    queries = VectorBlock(np.array([b"q"]), np.array([[tiny, tiny], [huge, huge]])[:1])
    gallery = VectorBlock(np.array([b"a", b"b"]), np.array([[huge, huge], [huge, -huge]]))
    found = as_lists(top_k(queries, [gallery], 2, "cosine"), 1)[0]
    assert [row_id for row_id, _ in found] == [b"a", b"b"]
    assert [score for _, score in found] == pytest.approx([1.0, 0.0])


def test_best_of_nothing_is_nothing():
    assert len(best([Candidates.none()], 3, smaller_is_nearer=False)) == 0


def test_each_metric_has_a_rule_and_distances_have_had_two():
    rules = {metric: score_rule(metric) for metric in (*METRICS, "minkowski:3")}
    assert rules == {"cosine": 1, "ip": 1, "l2": 2, "l1": 2, "minkowski:3": 2}
    assert set(rules.values()) <= set(RULES)
