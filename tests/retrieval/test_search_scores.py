"""Distances: right to a small part of themselves, and free of any order."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retrieval.ranking.verification import canonical
from retrieval.search import top_k
from retrieval.search.gallery_block import prepare
from retrieval.search.rescoring import ExactPairs
from retrieval.search.scores import Rows, pair_scores
from retrieval.vectors import VectorBlock
from tests.retrieval.score_cases import (
    NEAR_KINDS,
    WIDE_KINDS,
    by_the_rule,
    is_right,
    pairs_of,
    real_square,
)

DISTANCES = ("l2", "l1")
STEP = 5e-324


def defined(metric, ours, theirs):
    """By the definition in NumPy."""
    return pair_scores(metric, Rows.prepare(ours), Rows.prepare(theirs))


def compiled(metric, ours, theirs):
    """By the CPU engine's loops."""
    block = prepare(theirs, np.empty(theirs.shape, np.float32))
    query, row = (np.arange(len(ours), dtype=np.int32) for _ in range(2))
    floors = np.full(len(ours), -np.inf)
    return -ExactPairs(metric, Rows.prepare(ours)).keys(block, (query, row), floors)[2] + 0.0


def verified(metric, ours, theirs):
    """By the verification's integers."""
    rows = canonical.Rows.prepare(ours), canonical.Rows.prepare(theirs)
    return canonical.pair_scores(metric, 2, *rows)


WAYS = pytest.mark.parametrize("way", [defined, compiled, verified])


@WAYS
def test_three_near_neighbours_are_told_apart(way):
    query = np.array([[1, 0]] * 3, np.float32)
    rows = np.array([[1, 3e-8], [1, 1e-8], [1, 2e-8]], np.float32)
    for metric in DISTANCES:
        assert way(metric, query, rows) == pytest.approx(rows[:, 1].astype(float), rel=1e-15)


@pytest.mark.parametrize("metric", [*DISTANCES, "minkowski:3"])
def test_near_neighbours_are_ranked_by_their_distances_and_not_by_their_ids(metric):
    rows = np.array([[1, 3e-8], [1, 1e-8], [1, 2e-8]], np.float32)
    gallery = VectorBlock(np.array([b"a", b"b", b"c"]), rows)
    found = top_k(VectorBlock(np.array([b"q"]), rows[:1] * [1, 0]), [gallery], 3, metric)
    assert found.ids.tolist() == [b"b", b"c", b"a"]
    assert found.scores == pytest.approx([1e-8, 2e-8, 3e-8], rel=1e-7)


WORKED = [  # query, row, l2, l1
    ([1, 1], [1 + 3 * 2**-20, 1 + 4 * 2**-20], 5 * 2**-20, 7 * 2**-20),
    ([2.0**600, 0], [2.0**600, 3 * 2.0**-600], 3 * 2.0**-600, 3 * 2.0**-600),
    ([2.0**600, 2.0**-600], [2.0**600, -(2.0**-600)], 2.0**-599, 2.0**-599),
    ([1e300, STEP], [1e300, 2 * STEP], STEP, STEP),
    ([3 * STEP, STEP], [STEP * 6, STEP * 5], 5 * STEP, 7 * STEP),
    ([2.0**-1074], [2.0**1023], 2.0**1023, 2.0**1023),
    ([2.0**1022, 1], [-(2.0**1022), 1], 2.0**1023, 2.0**1023),
    ([1e308, 1], [-1e308, 1], math.inf, math.inf),
    ([1e308, 1e308, 1e308, 1e308], [STEP] * 4, math.inf, math.inf),
    ([2.0**1022, 2.0**1022], [STEP, STEP], 1.5 * 2**1022 * math.sqrt(2) / 1.5, 2.0**1023),
    ([0.5, 0.25, -3], [0.5, 0.25, -3], 0.0, 0.0),
    ([-7], [5], 12.0, 12.0),
    ([1] * 16, [3] * 16, 8.0, 32.0),
    ([0.0, 1], [-0.0, 1], 0.0, 0.0),
]


@WAYS
@pytest.mark.parametrize(("query", "row", "l2", "l1"), WORKED)
def test_cases_worked_by_hand(way, query, row, l2, l1):
    ours, theirs = np.array([query], np.float64), np.array([row], np.float64)
    for metric, expected in (("l2", l2), ("l1", l1)):
        assert way(metric, ours, theirs).tobytes() == np.float64([expected]).tobytes(), metric
        assert way(metric, theirs, ours).tobytes() == np.float64([expected]).tobytes(), metric


@pytest.mark.parametrize("metric", DISTANCES)
@pytest.mark.parametrize("kind", WIDE_KINDS)
def test_three_implementations_have_the_bits_of_the_rule_and_are_right(metric, kind):
    for dim in (1, 2, 3, 20, 260):
        dtypes = ("float64", "float32", "float16") if kind in ("plain", *NEAR_KINDS) else ("f8",)
        for dtype in dtypes:
            ours, theirs = pairs_of(kind, 1, 12, dim, dtype)
            scores = defined(metric, ours, theirs)
            expected = [by_the_rule(metric, *pair) for pair in zip(ours, theirs, strict=True)]
            assert scores.tobytes() == np.array(expected).tobytes(), (dim, dtype)
            assert compiled(metric, ours, theirs).tobytes() == scores.tobytes(), (dim, dtype)
            assert verified(metric, ours, theirs).tobytes() == scores.tobytes(), (dim, dtype)
            for score, *pair in zip(scores, ours, theirs, strict=True):
                assert is_right(float(score), real_square(metric, *pair), dim), (dim, dtype)


@WAYS
@pytest.mark.parametrize("metric", DISTANCES)
@pytest.mark.parametrize("kind", WIDE_KINDS)
def test_neither_the_order_of_the_components_nor_of_the_sides_matters(way, metric, kind):
    rng = np.random.default_rng(0)
    for dim in (2, 5, 257):
        ours, theirs = pairs_of(kind, 2, 20, dim)
        scores = way(metric, ours, theirs).tobytes()
        assert way(metric, theirs, ours).tobytes() == scores
        for _ in range(4):
            order = rng.permutation(dim)
            assert way(metric, ours[:, order], theirs[:, order]).tobytes() == scores


@WAYS
@pytest.mark.parametrize("metric", DISTANCES)
def test_distances_scale_with_the_vectors_by_powers_of_two(way, metric):
    for kind in ("plain", *NEAR_KINDS):
        for dtype, powers in (("f4", (-80, -1, 1, 7, 80)), ("f8", (-900, -3, 1, 900))):
            ours, theirs = pairs_of(kind, 3, 20, 33, dtype)
            scores = way(metric, ours, theirs)
            for power in powers:
                scaled = (np.ldexp(side, power).astype(dtype) for side in (ours, theirs))
                assert way(metric, *scaled).tobytes() == np.ldexp(scores, power).tobytes()


@WAYS
@pytest.mark.parametrize("dim", [1, 2, 3, 512, 1280, 2048])
def test_float16_vectors_of_length_one_have_the_rounded_root_of_the_real_square(way, dim):
    """Whatever the rule, this is what their scores have been from the first release on."""
    rng = np.random.default_rng(dim)
    ours, theirs = (rng.normal(size=(20, dim)) for _ in range(2))
    for side in (ours, theirs):
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        side *= rng.choice([1, 1, 1.35, 0.01], (20, 1))
    ours, theirs = ours.astype(np.float16), theirs.astype(np.float16)
    theirs[:5] = ours[:5]
    theirs[np.arange(3), rng.integers(dim, size=3)] *= np.float16(1.01)
    theirs[5] = -ours[5]
    # Multiples of 2⁻²⁴, whose squares' sums an int64 holds.
    whole = [np.ldexp(side.astype(np.float64), 24).astype(np.int64) for side in (ours, theirs)]
    apart = np.abs(whole[0] - whole[1])
    expected = {
        "l2": np.sqrt(np.ldexp((apart * apart).sum(axis=1).astype(np.float64), -48)),
        "l1": np.ldexp(apart.sum(axis=1).astype(np.float64), -24),
    }
    for metric in DISTANCES:
        assert way(metric, ours, theirs).tobytes() == expected[metric].tobytes()


@pytest.mark.parametrize("power", [1, 1.5, 3, 30, 1e6])
def test_minkowski_is_right_for_near_neighbours_and_extreme_sizes(power):
    metric = f"minkowski:{power}"
    for kind in WIDE_KINDS:
        ours, theirs = pairs_of(kind, 4, 8, 7)
        for way in (defined, compiled, verified):
            scores = way(metric, ours, theirs)
            for score, ours_row, theirs_row in zip(scores, ours, theirs, strict=True):
                sizes = [
                    abs(Fraction(a) - Fraction(b))
                    for a, b in zip(ours_row, theirs_row, strict=True)
                ]
                largest = max(sizes)
                if not largest or math.isinf(score):
                    assert score == (math.inf if largest else 0.0)
                    assert not largest or largest * 7 > Fraction(2) ** 1023
                    continue
                ratios = np.array([np.longdouble(size / largest) for size in sizes])
                length = float((ratios**power).sum() ** (1 / np.longdouble(power)))
                real = Fraction(length) * largest
                assert abs(Fraction(float(score)) - real) <= real * Fraction(8, 2**50) + Fraction(
                    STEP
                )


FINITE = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 9), st.sampled_from(DISTANCES))
def test_any_finite_vectors_have_right_distances(data, dim, metric):
    shape = (1, dim)
    ours = data.draw(hnp.arrays(np.float64, shape, elements=FINITE))
    # Near neighbours as well as strangers: some components are shared, or a step away.
    theirs = data.draw(hnp.arrays(np.float64, shape, elements=FINITE))
    shared = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 2)))
    with np.errstate(over="ignore"):
        step = np.nextafter(ours, 0)
    theirs = np.where(shared == 1, ours, np.where(shared == 2, step, theirs))
    ours[~ours.any(axis=1)], theirs[~theirs.any(axis=1)] = 1.0, 1.0
    score = defined(metric, ours, theirs)
    assert is_right(float(score[0]), real_square(metric, ours[0], theirs[0]), dim)
    for other in (compiled(metric, ours, theirs), verified(metric, theirs, ours)):
        assert other.tobytes() == score.tobytes()
