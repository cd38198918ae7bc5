"""Brute force equals scoring every pair; it leaves out no pair that could be near."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import numpy as np
import pytest

from retrieval.errors import IndexFormatError
from retrieval.ranking import verification
from retrieval.ranking.verification import (
    BruteForce,
    IdCounter,
    JudgedPairs,
    canonical,
    compare,
    find_ids,
    judged_pairs,
    relative_tolerance,
)
from retrieval.ranking.verification.brute_force import _upper_bounds
from retrieval.ranking.verification.real_values import real_value
from retrieval.search.merge import Candidates, best
from retrieval.search.scores import Rows, is_distance, pair_scores, score_rule
from retrieval.vectors import VectorBlock
from tests.retrieval.score_cases import WIDE_KINDS, pairs_of

METRICS = ("cosine", "ip", "l2", "l1", "minkowski:3")
KINDS = ("float16", "float32", "float64", "grid", "near copies", "far apart")


def vectors_of(kind, seed, num_rows, dim):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num_rows, dim))
    if kind == "grid":  # most scores tie, often many times
        rows = rng.integers(-1, 2, (num_rows, dim)) * 0.5
        rows[~rows.any(axis=1)] = 0.5
        return rows.astype(np.float16)
    if kind == "near copies":  # scores that differ in their last bits alone, if at all
        first = np.random.default_rng(0).normal(size=dim)
        return first * (1 + rng.integers(-2, 3, (num_rows, dim)) * 2.0**-52)
    if kind == "far apart":  # each of another size, from 1e-150 to 1e150
        return rows * 10.0 ** rng.integers(-150, 150, (num_rows, 1))
    return rows.astype(kind)


def block_of(vectors, letter="g"):
    return VectorBlock(np.array([f"{letter}{n:03}".encode() for n in range(len(vectors))]), vectors)


def every_pair(metric, queries, gallery):
    """Candidates of all pairs by the definition."""
    num_queries, num_rows = len(queries.ids), len(gallery.ids)
    query, row = np.divmod(np.arange(num_queries * num_rows), num_rows)
    ours, theirs = Rows.prepare(queries.vectors), Rows.prepare(gallery.vectors)
    scores = pair_scores(metric, ours.take(query), theirs.take(row))
    return Candidates(query.astype(np.int32), gallery.ids[row], scores)


def found_by(search, gallery, step):
    for start in range(0, len(gallery.ids), step):
        piece = slice(start, start + step)
        search.add(VectorBlock(gallery.ids[piece], gallery.vectors[piece]))
    return search.nearest()


def as_tuples(found):
    return list(
        zip(found.query.tolist(), found.ids.tolist(), found.scores.view("i8").tolist(), strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", METRICS)
def test_the_nearest_are_those_of_all_pairs_whatever_the_blocks(metric, kind):
    queries, gallery = (
        block_of(vectors_of(kind, seed, num, 24), letter)
        for seed, num, letter in ((1, 6, "q"), (2, 150, "g"))
    )
    for k, step in ((1, 7), (10, 7), (10, 150), (149, 40), (150, 40), (1000, 40)):
        expected = best(
            [every_pair(metric, queries, gallery)], k, smaller_is_nearer=is_distance(metric)
        )
        found = found_by(BruteForce(queries, k, metric), gallery, step)
        assert as_tuples(found) == as_tuples(expected), (k, step)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_with_the_query_s_own_id_are_left_out_all_of_them(metric):
    vectors = vectors_of("grid", 1, 60, 5)
    gallery = block_of(vectors)
    gallery.ids[40] = gallery.ids[3]
    queries = VectorBlock(gallery.ids[[3, 5]], vectors[[3, 5]])
    expected = every_pair(metric, queries, gallery)
    is_other = queries.ids[expected.query] != expected.ids
    expected = Candidates(*(getattr(expected, n)[is_other] for n in ("query", "ids", "scores")))
    expected = best([expected], 60, smaller_is_nearer=is_distance(metric))
    found = found_by(BruteForce(queries, 60, metric, exclude_self=True), gallery, 16)
    assert as_tuples(found) == as_tuples(expected)
    assert np.bincount(found.query).tolist() == [58, 59]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
@pytest.mark.parametrize("dim", [1, 3, 500])
def test_no_canonical_key_exceeds_its_bound(metric, kind, dim):
    for seed in range(5):
        queries, gallery = (
            canonical.Rows.prepare(vectors_of(kind, 2 * seed + side, num, dim))
            for side, num in ((0, 8), (1, 60))
        )
        bounds = _upper_bounds(metric, queries, gallery)
        query, row = np.divmod(np.arange(8 * 60), 60)
        pairs = queries.take(query), gallery.take(row)
        for rule in range(1, score_rule(metric) + 1):
            keys = canonical.pair_scores(metric, rule, *pairs).reshape(8, 60)
            keys = -keys if metric == "l2" else keys
            assert (bounds >= keys).all()
        if metric == "cosine":  # nor is the bound so loose that it would leave out nothing
            assert (bounds - keys).max() < 2 * (dim + 2) * 2.0**-49


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", [*KINDS, *WIDE_KINDS])
def test_canonical_scores_by_integers_have_the_bits_of_the_engines_definition(metric, kind):
    for dim in (1, 3, 500):
        if kind in KINDS:
            ours, theirs = (vectors_of(kind, seed, 40, dim) for seed in (1, 2))
        else:
            ours, theirs = pairs_of(kind, 1, 40, dim)
        with np.errstate(over="ignore"):
            expected = pair_scores(metric, Rows.prepare(ours), Rows.prepare(theirs))
            sides = canonical.Rows.prepare(ours), canonical.Rows.prepare(theirs)
            found = canonical.pair_scores(metric, score_rule(metric), *sides)
        assert found.tobytes() == expected.tobytes(), dim


def by_rule_one(metric, ours, theirs):
    """Distances of rows of norms from 1/√2 to √2 as they were once, one component at a time."""
    sizes = [abs(float(a) - float(b)) for a, b in zip(ours, theirs, strict=True)]
    if metric == "l2":
        return math.sqrt(sum((size * size + 24.0) - 24.0 for size in sizes))
    grid = 1.5 * 2.0 ** math.ceil(math.log2(8 * math.sqrt(len(sizes))))
    return sum((size + grid) - grid for size in sizes)


@pytest.mark.parametrize("metric", ["l2", "l1"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_rule_one_gives_what_it_gave(metric, dtype):
    rng = np.random.default_rng(0)
    for dim in (1, 2, 4, 5, 63, 64, 65, 300):
        ours, theirs = rng.normal(size=(2, 30, dim))
        theirs[:15] = ours[:15] * (1 + 1e-7 * theirs[:15])
        ours, theirs = (
            (side / np.linalg.norm(side, axis=1, keepdims=True) * 1.1).astype(dtype)
            for side in (ours, theirs)
        )
        sides = canonical.Rows.prepare(ours), canonical.Rows.prepare(theirs)
        assert (sides[0].scales == 0).all()
        found = canonical.pair_scores(metric, 1, *sides)
        expected = [by_rule_one(metric, *pair) for pair in zip(ours, theirs, strict=True)]
        assert found.tobytes() == np.array(expected).tobytes()
        for power in (-30, 3):  # in another scale
            scaled = (np.ldexp(side.astype("f8"), power) for side in (ours, theirs))
            found = canonical.pair_scores(metric, 1, *map(canonical.Rows.prepare, scaled))
            assert found.tobytes() == np.ldexp(expected, power).tobytes()


def test_rule_one_loses_near_neighbours():
    query, rows = np.array([[1.0, 0]] * 2), np.array([[1, 1e-8], [1, 3e-8]])
    sides = canonical.Rows.prepare(query), canonical.Rows.prepare(rows)
    assert canonical.pair_scores("l2", 1, *sides).tolist() == [0.0, 0.0]
    assert canonical.pair_scores("l2", 2, *sides) == pytest.approx([1e-8, 3e-8], rel=1e-15)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", WIDE_KINDS)
def test_each_rule_keeps_its_promise_of_the_real_value_and_no_more(metric, kind):
    for dim in (1, 3, 40):
        ours, theirs = pairs_of(kind, 3, 12, dim)
        sides = canonical.Rows.prepare(ours), canonical.Rows.prepare(theirs)
        for rule in range(1, score_rule(metric) + 1):
            with np.errstate(over="ignore"):
                scores = canonical.pair_scores(metric, rule, *sides).tolist()
            values = [real_value(metric, rule, *pair) for pair in zip(ours, theirs, strict=True)]
            for score, value in zip(scores, values, strict=True):
                assert value.allows(score), (score, str(value))
                assert not value.allows(math.nan)
                if 1e-300 < abs(score) < 1e300 and value.error < 10**300:
                    assert not value.allows(score + 3 * float(value.error))
                    assert not value.allows(score - 3 * float(value.error))


def test_real_values_worked_by_hand():
    query, row = np.array([3.0, 4.0]), np.array([3.0, 0.0])
    worked = {"cosine": "0.6", "ip": "9", "l2": "4", "l1": "4", "minkowski:3": "4"}
    for metric, value in worked.items():
        assert str(real_value(metric, 1, query, row)).startswith(f"{value}, from which")
    apart = real_value("ip", 1, query, np.array([-4.0, 3.0]))
    assert (apart.allows(0.0), apart.allows(1e-13), apart.allows(-1e-13)) == (True, False, False)
    opposite = real_value("cosine", 1, query, -query)
    assert (opposite.allows(-1.0), opposite.allows(1.0)) == (True, False)
    far = real_value("l2", 2, np.array([1.7e308]), np.array([-1.7e308]))
    assert [far.allows(score) for score in (math.inf, -math.inf, 1.7e308)] == [True, False, False]
    equal = real_value("l2", 2, query, query)
    assert (equal.allows(0.0), equal.allows(1e-300)) == (True, False)
    # By rule 1 any distance below about 2⁻²³ of the norm may have been 0.
    near = np.array([3.0, 4.0 + 1e-8])
    assert [real_value("l2", rule, query, near).allows(0.0) for rule in (1, 2)] == [True, False]


def test_pairs_are_drawn_by_the_seed_the_first_of_each_query_always(monkeypatch):
    monkeypatch.setattr(judged_pairs, "_MOST_COMPONENTS", 8 * 12)
    queries = block_of(vectors_of("float32", 1, 5, 8), "q")
    gallery = block_of(vectors_of("float32", 2, 60, 8))
    nearest = found_by(BruteForce(queries, 30, "l2"), gallery, 60)
    drawn = set()
    for seed in range(6):
        judged = JudgedPairs(queries, nearest, "l2", 2, seed=seed)
        assert len(judged) == 12
        assert set(judged._pairs.query[judged._ranks == 1].tolist()) == set(range(5))
        drawn.add(tuple(as_tuples(judged._pairs)))
        for start in range(0, 60, 7):
            piece = slice(start, start + 7)
            judged.add(VectorBlock(gallery.ids[piece], gallery.vectors[piece]))
        judged.check("r")
    assert len(drawn) == 6


def test_a_judged_pair_of_an_id_that_occurs_twice_may_be_either_row():
    queries = VectorBlock(np.array([b"q"]), np.array([[0.0, 1.0]]))
    gallery = VectorBlock(np.array([b"a", b"a"]), np.array([[0, 3.0], [0, 2.0]]))
    for score, is_right in ((1.0, True), (2.0, True), (1.5, False)):
        judged = JudgedPairs(queries, candidates((0, b"a", score)), "l2", 2, seed=0)
        judged.add(gallery)
        if is_right:
            judged.check("r")
            continue
        with pytest.raises(IndexFormatError) as caught:
            judged.check("r")
        assert str(caught.value).startswith(
            "r: query 'q', rank 1: the ranking holds 'a' with score 1.5; exact arithmetic gives "
            "1, from which a score may differ by 8.9e-16 by rule 2. 1 of 1 pairs judged by exact "
            "arithmetic differs."
        )


def test_a_bound_that_is_met_exactly_still_counts():
    """Rows of one direction all tie, so that the smallest ids win, which come last."""
    gallery = VectorBlock(
        np.array([f"g{n:03}".encode() for n in range(99, -1, -1)]),
        np.outer(2.0 ** np.arange(100), [0.3, 0.1, 0.7]),
    )
    queries = VectorBlock(np.array([b"q"]), np.array([[0.1, 0.7, 0.9]]))
    found = found_by(BruteForce(queries, 3, "cosine"), gallery, 1)
    assert found.ids.tolist() == [b"g000", b"g001", b"g002"]


def test_scores_of_listed_pairs_are_kept_though_they_are_far():
    queries = block_of(vectors_of("float32", 1, 2, 8), "q")
    gallery = block_of(vectors_of("float32", 2, 50, 8))
    pairs = Candidates(
        np.array([0, 0, 1, 1], np.int32), np.array([b"g001", b"g030", b"g001", b"nowhere"]),
        np.zeros(4),
    )  # fmt: skip
    search = BruteForce(queries, 1, "minkowski:3", listed=pairs)
    found_by(search, gallery, 8)
    found = search.scores_of_listed()
    expected = as_tuples(every_pair("minkowski:3", queries, gallery))
    assert sorted(as_tuples(found)) == [expected[1], expected[30], expected[51]]


def candidates(*rows):
    query, ids, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return Candidates(
        np.array(query, np.int32), np.array(ids or [], "S4"), np.array(scores, np.float64)
    )


def test_with_a_tolerance_rows_as_near_may_stand_in_either_order():
    near = 1 + 1e-14
    nearest = candidates((0, b"a", 0.5), (0, b"b", 1.0), (0, b"c", near), (1, b"a", 2.0))
    scored = candidates((1, b"a", 2.0), (0, b"c", near), (0, b"a", 0.5), (0, b"d", near))
    listed = candidates((0, b"a", 0.5), (0, b"c", near), (0, b"d", near), (1, b"a", 2.0))
    ids = np.array([b"p", b"q"])
    compare("r", ids, listed, nearest, tolerance=1e-13, scored=scored)
    for tolerance, other in ((0.0, scored), (1e-15, scored), (1e-13, candidates())):
        with pytest.raises(IndexFormatError, match=r"^r: query 'p', rank "):
            compare("r", ids, listed, nearest, tolerance=tolerance, scored=other)


def test_with_a_tolerance_an_id_with_another_s_score_is_found():
    nearest = candidates((0, b"a", 0.5), (0, b"b", 1.0))
    listed = candidates((0, b"b", 0.5), (0, b"a", 1.0))
    with pytest.raises(IndexFormatError) as caught:
        compare("r", np.array([b"q"]), listed, nearest, tolerance=1e-12, scored=nearest)
    assert str(caught.value) == (
        "r: query 'q', rank 1: the ranking holds 'b' with score 0.5; brute force gives 'a' with "
        "score 0.5, and scores may differ by 1e-12 of their size. 1 of 1 checked queries differs. "
        "The ranking or the vectors were changed since, or the search is at fault: rank again, "
        "and report a bug if that differs too."
    )


def test_with_a_tolerance_an_id_of_several_rows_has_a_score_of_each():
    both = candidates((0, b"a", 0.5), (0, b"a", 1.0))
    compare("r", np.array([b"q"]), both, both, tolerance=1e-12, scored=both)
    twice = candidates((0, b"a", 0.5), (0, b"a", 0.5))
    with pytest.raises(IndexFormatError, match=r"rank 2: the ranking holds 'a' with score 0.5;"):
        compare("r", np.array([b"q"]), twice, both, tolerance=1e-12, scored=both)


def test_only_powers_have_a_tolerance():
    assert [relative_tolerance(metric, 4) for metric in METRICS] == [0, 0, 0, 0, 2.0**-47]


def test_ids_are_found_whatever_the_width_of_their_arrays():
    known = np.array([b"a", b"b", b"bc"])
    for ids in ([b"bc", b"a"], [b"bcd", b"b", b""], [b"a"], [b"ab", b"bb", b"zzz"]):
        expected = [known.tolist().index(name) if name in known.tolist() else -1 for name in ids]
        assert find_ids(known, np.array(ids)).tolist() == expected
    assert find_ids(np.empty(0, "S1"), np.array([b"a"])).tolist() == [-1]
    counter = IdCounter(np.array([b"b", b"bc", b"b"]))
    for ids in ([b"bcd", b"b"], [b"b", b"bc", b"a"]):
        counter.add(np.array(ids))
    assert counter.counts(np.array([b"bc", b"b", b"bc"])).tolist() == [1, 2, 1]


def test_no_engine_no_numba_and_no_float32_have_a_part_in_it():
    folder = Path(verification.__file__).parent
    paths = list(folder.glob("*.py"))
    assert folder / "verify.py" in paths
    for path in paths:
        text = path.read_text()
        imported = [
            node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
        ]
        searches = {name for name in imported if name and name.startswith("retrieval.search")}
        assert searches <= {"retrieval.search.merge", "retrieval.search.scores"}, path
        # Of the scores only what metrics and rules are called: nothing that computes.
        assert {
            name.name
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom) and node.module == "retrieval.search.scores"
            for name in node.names
        } <= {"METRICS", "RULES", "is_distance", "minkowski_power", "score_rule"}, path
        assert "np.float32" not in text
        assert not {"numba", "ray", "torch", "pipelines"} & set(imported), path
