"""Brute force equals scoring every pair; it leaves out no pair that could be near."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from retrieval import verification
from retrieval.errors import IndexFormatError
from retrieval.search.candidates import Candidates, best
from retrieval.search.scores import Rows, is_distance, pair_scores
from retrieval.vectors import VectorBlock
from retrieval.verification import BruteForce, IdCounter, compare, find_ids, relative_tolerance
from retrieval.verification.brute_force import _upper_bounds

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
            Rows.prepare(vectors_of(kind, 2 * seed + side, num, dim))
            for side, num in ((0, 8), (1, 60))
        )
        bounds = _upper_bounds(metric, queries, gallery)
        query, row = np.divmod(np.arange(8 * 60), 60)
        keys = pair_scores(metric, queries.take(query), gallery.take(row)).reshape(8, 60)
        keys = -keys if metric == "l2" else keys
        assert (bounds >= keys).all()
        if metric == "cosine":  # nor is the bound so loose that it would leave out nothing
            assert (bounds - keys).max() < 2 * (dim + 2) * 2.0**-49


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
    job = Path(__file__).parents[2] / "pipelines" / "verify.py"
    for path in [*folder.glob("*.py"), job]:
        text = path.read_text()
        imported = [
            node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
        ]
        searches = {name for name in imported if name and name.startswith("retrieval.search")}
        assert searches <= {"retrieval.search.candidates", "retrieval.search.scores"}, path
        assert "np.float32" not in text
        assert not {"numba", "ray", "torch", "pipelines"} & set(imported), path
