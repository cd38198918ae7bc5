"""`verify` judges scores by the rule that a ranking names, and the rule by exact arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retrieval.ranking.verification import brute_force, canonical, judged_pairs, verify
from tests.retrieval.verify_case import Case, normal_vectors

NEWER = "written by a newer release"


def near_sides():
    """float32 neighbours of one query whose distances rule 1 could not tell apart."""
    parts = [3e-8, 1e-8, 2e-8, 0, 4e-8, 1.0]
    rows = [(f"g{n}", np.array([1, part], np.float32)) for n, part in enumerate(parts)]
    return [("q", np.array([1, 0], np.float32))], rows


def by_rule_one(case):
    """Give the case the scores and the order that rule 1 gave."""
    vectors = dict(case.gallery)
    scored = []
    for query_id, query in case.queries:
        for name, row in vectors.items():
            sides = (canonical.Rows.prepare(side[None]) for side in (query, row))
            score = canonical.pair_scores(case.metric, 1, *sides)[0]
            scored.append([query_id, float(score), name])
    case.rows = [
        [query_id, place % case.k + 1, name, score]
        for query_id, _ in sorted(case.queries)
        for place, (_, score, name) in enumerate(
            sorted(row for row in scored if row[0] == query_id)[: case.k]
        )
    ]
    return case


def without_a_rule(uri):
    path = Path(uri) / "_ranking.json"
    facts = json.loads(path.read_text())
    del facts["score_rule"]
    path.write_text(json.dumps(facts))
    return uri


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_a_ranking_that_names_no_rule_is_judged_by_the_first(tmp_path, metric):
    case = by_rule_one(Case(tmp_path, metric, 6, sides=near_sides()))
    if metric == "l2":  # all but one at a distance of 0, and so by their ids
        assert [row[2] for row in case.rows] == ["g0", "g1", "g2", "g3", "g4", "g5"]
    report = verify.run(without_a_rule(case.write()))
    assert (report["score_rule"], report["num_exact_pairs"]) == (1, 6)
    assert verify.run(case.write(score_rule=1))["score_rule"] == 1
    assert "; brute force gives " in case.message(score_rule=2)


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_scores_by_the_present_rule_are_not_those_of_the_first(tmp_path, metric):
    case = Case(tmp_path, metric, 6, sides=near_sides())
    assert [row[2] for row in case.rows] == ["g3", "g1", "g2", "g0", "g4", "g5"]
    assert verify.run(case.write())["score_rule"] == 2
    assert "; brute force gives " in case.message(score_rule=1)


@pytest.mark.parametrize("metric", ["l2", "l1", "minkowski:2.5"])
def test_whole_rankings_by_rule_one_are_right_still(tmp_path, metric):
    sides = [
        [(f"{letter}{n}", row) for n, row in enumerate(normal_vectors(seed, num, 9))]
        for letter, seed, num in (("q", 1, 3), ("g", 2, 30))
    ]
    case = by_rule_one(Case(tmp_path, metric, 30, sides=sides))
    report = verify.run(without_a_rule(case.write()))
    assert (report["score_rule"], report["num_exact_pairs"]) == (1, 90)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_rule_that_is_not_known_is_one_line(tmp_path, metric):
    case = Case(tmp_path, metric)
    newest = {"cosine": 1, "l2": 2}[metric]
    assert NEWER in case.message(score_rule=newest + 1)
    for wrong in (0, -1, "2", 1.0, None, True):
        text = case.message(score_rule=wrong)
        assert f"score_rule is {wrong!r}; a number from 1 on is needed." in text


METRICS = ("cosine", "ip", "l2", "l1", "minkowski:3")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("fault", [1 + 1e-9, 1 - 1e-9])
def test_scores_that_are_wrong_by_a_fault_of_the_rule_are_found(
    tmp_path, monkeypatch, metric, fault
):
    """The order is right, and brute force has the same fault: only real values tell."""
    case = Case(tmp_path, metric)
    right = canonical.pair_scores
    monkeypatch.setattr(brute_force, "pair_scores", lambda *given: right(*given) * fault)
    assert case.message().startswith("query 'q0', rank 1: the ranking holds")
    for row in case.rows:
        row[3] *= fault
    text = case.message()
    assert "exact arithmetic gives" in text
    assert "35 of 35 pairs judged by exact arithmetic differ." in text
    monkeypatch.setattr(judged_pairs, "real_value", lambda *_: AllRight())
    assert verify.run(case.write())["num_exact_pairs"] == 35  # so nothing else has found it


class AllRight:
    """A judge who allows everything."""

    def allows(self, _):
        return True


def test_near_neighbours_that_rule_and_engine_both_lose_are_found(tmp_path, monkeypatch):
    """As they were lost: distances of 0, in the order of the ids, on both sides."""
    case = by_rule_one(Case(tmp_path, "l2", 6, sides=near_sides()))
    right = canonical.pair_scores
    monkeypatch.setattr(
        brute_force, "pair_scores", lambda metric, _, *rows: right(metric, 1, *rows)
    )
    text = case.message(score_rule=2)
    assert text.startswith("query 'q', rank 1: the ranking holds 'g0' with score 0.0; exact")
    assert "; exact arithmetic gives 2.9999998929497451e-8, from which a score may differ" in text
