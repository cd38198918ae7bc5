"""The figures against hand-worked cases and against their definitions in plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.errors import UsageError
from retrieval.evaluation.metrics import QueryScores, score_queries, summarise


@pytest.fixture(params=range(6), ids="seed{}".format)
def rng(request):
    return np.random.default_rng(request.param)


def means(scores):
    return summarise(scores).to_json()


def random_block(rng, num_queries=12, depth=15):
    """Hits from none to all, and R from what is listed to twice as much; one R is 0."""
    hits = rng.random((num_queries, depth)) < rng.random((num_queries, 1))
    hits[0] = False
    num_relevant = hits.sum(axis=1) + rng.integers(0, depth, num_queries)
    num_relevant[0] = 0
    return hits, num_relevant


def score(rows, num_relevant, ks):
    hits = np.array([[mark == "x" for mark in row] for row in rows])
    return score_queries(hits, np.array(num_relevant), ks)


def as_lists(scores, decimals=16):
    """Plain values, equal only where the figures are."""

    def plain(values):
        return np.round(values, decimals).tolist()

    return {
        name: {k: plain(v) for k, v in values.items()}
        if isinstance(values, dict)
        else plain(values)
        for name, values in vars(scores).items()
    }


def slow_scores(hits, num_relevant, ks):
    """One query's figures by the definitions in the module's docstring."""
    precisions = {}
    for rank in range(1, len(hits) + 1):
        found = 0
        for earlier in range(rank):
            found += hits[earlier]
        precisions[rank] = found / rank
    first = 0
    for rank in range(len(hits), 0, -1):
        if hits[rank - 1]:
            first = rank

    def gain(last):
        total = 0.0
        for rank in range(1, min(last, len(hits)) + 1):
            if hits[rank - 1]:
                total += precisions[rank]
        return total

    return {
        "first_hit": first,
        "ap": gain(len(hits)) / num_relevant if num_relevant else 0.0,
        "ap_at": {k: gain(k) / min(num_relevant, k) if num_relevant else 0.0 for k in ks},
        "precision_at": {k: sum(map(int, hits[:k])) / k for k in ks},
        "num_relevant": num_relevant,
    }


def test_the_figures_of_single_queries_worked_by_hand():
    scores = score(
        ["-x-x", "x---", "----", "--x-"],
        num_relevant=[3, 1, 5, 1],
        ks=[1, 2, 3, 10],
    )
    assert scores.first_hit.tolist() == [2, 1, 0, 3]
    assert scores.ap.tolist() == pytest.approx([(1 / 2 + 2 / 4) / 3, 1, 0, 1 / 3])
    assert scores.ap_at[1].tolist() == [0, 1, 0, 0]
    # R = 3 is above k = 2, so that k divides; R = 1 is below, so that R does.
    assert scores.ap_at[2].tolist() == pytest.approx([(1 / 2) / 2, 1, 0, 0])
    assert scores.ap_at[3].tolist() == pytest.approx([(1 / 2) / 3, 1, 0, 1 / 3])
    assert scores.ap_at[10].tolist() == pytest.approx([(1 / 2 + 2 / 4) / 3, 1, 0, 1 / 3])
    assert scores.precision_at[1].tolist() == [0, 1, 0, 0]
    assert scores.precision_at[2].tolist() == [1 / 2, 1 / 2, 0, 0]
    assert scores.precision_at[3].tolist() == [1 / 3, 1 / 3, 0, 1 / 3]
    assert scores.precision_at[10].tolist() == [2 / 10, 1 / 10, 0, 1 / 10]
    assert scores.num_relevant.tolist() == [3, 1, 5, 1]


def test_the_mean_figures_worked_by_hand():
    scores = score(["-x-x", "x---", "----", "--x-"], num_relevant=[3, 1, 5, 1], ks=[1, 3])
    assert means(scores) == pytest.approx(
        {
            "top_1": 1 / 4,
            "top_3": 3 / 4,
            "map": (1 / 3 + 1 + 0 + 1 / 3) / 4,
            "map_at_1": 1 / 4,
            "map_at_3": (1 / 6 + 1 + 0 + 1 / 3) / 4,
            "precision_at_1": 1 / 4,
            "precision_at_3": (1 / 3 + 1 / 3 + 0 + 1 / 3) / 4,
        }
    )


def test_the_figures_equal_their_definitions_in_plain_loops(rng):
    hits, num_relevant = random_block(rng)
    ks = [1, 2, 3, 10, 15, 40]
    scores = score_queries(hits, num_relevant, ks)
    for row in range(len(hits)):
        slow = slow_scores(hits[row].tolist(), int(num_relevant[row]), ks)
        assert scores.first_hit[row] == slow["first_hit"]
        assert scores.num_relevant[row] == slow["num_relevant"]
        assert scores.ap[row] == pytest.approx(slow["ap"], abs=1e-12)
        for k in ks:
            assert scores.ap_at[k][row] == pytest.approx(slow["ap_at"][k], abs=1e-12)
            assert scores.precision_at[k][row] == pytest.approx(slow["precision_at"][k], abs=1e-12)


def test_the_mean_figures_equal_their_definitions_in_plain_loops(rng):
    hits, num_relevant = random_block(rng)
    ks = [1, 3, 10]
    found = means(score_queries(hits, num_relevant, ks))
    slow = [
        slow_scores(row.tolist(), int(r), ks) for row, r in zip(hits, num_relevant, strict=True)
    ]
    expected = {"map": sum(one["ap"] for one in slow) / len(slow)}
    for k in ks:
        num_found = sum(1 for row in hits if any(row[:k]))
        expected[f"top_{k}"] = num_found / len(slow)
        expected[f"map_at_{k}"] = sum(one["ap_at"][k] for one in slow) / len(slow)
        expected[f"precision_at_{k}"] = sum(one["precision_at"][k] for one in slow) / len(slow)
    assert found == pytest.approx(expected, abs=1e-12)


def test_each_query_is_scored_as_if_it_were_alone(rng):
    hits, num_relevant = random_block(rng)
    order = rng.permutation(len(hits))
    whole = score_queries(hits, num_relevant, [1, 5])
    mixed = score_queries(hits[order], num_relevant[order], [1, 5])
    assert as_lists(mixed) == as_lists(whole.take(order))
    assert means(mixed) == pytest.approx(means(whole), abs=1e-12)
    alone = [score_queries(hits[n : n + 1], num_relevant[n : n + 1], [1, 5]) for n in order]
    assert as_lists(QueryScores.concatenate(alone)) == as_lists(mixed)


def test_the_figures_of_blocks_concatenated_are_those_of_the_whole(rng):
    hits, num_relevant = random_block(rng)
    parts = [
        score_queries(hits[a:b], num_relevant[a:b], [1, 3]) for a, b in [(0, 5), (5, 5), (5, 12)]
    ]
    whole = score_queries(hits, num_relevant, [1, 3])
    assert as_lists(QueryScores.concatenate(parts)) == as_lists(whole)


def test_distractors_at_the_end_change_nothing(rng):
    hits, num_relevant = random_block(rng)
    longer = np.hstack([hits, np.zeros((len(hits), 30), bool)])
    plain = score_queries(hits, num_relevant, [1, 15, 20])
    found = score_queries(longer, num_relevant, [1, 15, 20])
    assert as_lists(found, decimals=12) == as_lists(plain, decimals=12)


def test_what_lies_beyond_k_changes_no_figure_at_k(rng):
    hits, num_relevant = random_block(rng)
    num_relevant += 15
    other = hits.copy()
    other[:, 4:] = rng.random(other[:, 4:].shape) < 0.5
    one, two = (means(score_queries(block, num_relevant, [4])) for block in (hits, other))
    for name in ("top_4", "map_at_4", "precision_at_4"):
        assert one[name] == two[name]


def test_the_average_precision_is_1_only_if_all_relevant_images_come_first():
    # All 64 rankings of six images, by R: those listed, and one more that is not listed.
    block = np.array([[bool(n >> bit & 1) for bit in range(6)] for n in range(1, 64)])
    num_listed = block.sum(axis=1)
    comes_first = [not (~row[:n]).any() for row, n in zip(block, num_listed, strict=True)]
    complete = score_queries(block, num_listed, [6])
    assert (complete.ap == 1).tolist() == comes_first
    assert (complete.ap_at[6] == 1).tolist() == comes_first
    assert (score_queries(block, num_listed + 1, [6]).ap < 1).all()


def test_a_hit_further_up_never_scores_less(rng):
    hits, num_relevant = random_block(rng)
    better = hits.copy()
    for row in better:
        for rank in range(len(row) - 1, 0, -1):
            if row[rank] and not row[rank - 1]:
                row[rank], row[rank - 1] = False, True
                break
    before, after = (score_queries(block, num_relevant, [1, 5]) for block in (hits, better))
    moved = (hits != better).any(axis=1)
    assert moved.any()
    assert (after.ap[moved] > before.ap[moved]).all()
    for k in (1, 5):
        assert (after.ap_at[k] >= before.ap_at[k] - 1e-15).all()
        assert (after.precision_at[k] >= before.precision_at[k]).all()


def test_average_precision_at_k_reaches_1_even_where_more_are_relevant_than_k():
    scores = score(["xxx-x"], num_relevant=[9], ks=[3, 5])
    assert scores.ap_at[3].tolist() == [1]
    assert scores.ap_at[5].tolist() == pytest.approx([(1 + 1 + 1 + 4 / 5) / 5])
    assert scores.ap.tolist() == pytest.approx([(1 + 1 + 1 + 4 / 5) / 9])


def test_a_query_without_a_relevant_image_scores_0_in_each():
    scores = score(["---"], num_relevant=[0], ks=[1, 3, 10])
    assert means(scores) == dict.fromkeys(means(scores), 0.0)
    assert scores.first_hit.tolist() == [0]


def test_a_k_above_what_is_listed_counts_what_is_listed():
    scores = score(["x-", "--"], num_relevant=[2, 2], ks=[50])
    assert means(scores) == {
        "top_50": 0.5, "map": 0.25, "map_at_50": 0.25, "precision_at_50": 0.01
    }  # fmt: skip


def test_means_of_no_query_are_none_and_not_nan():
    scores = score_queries(np.zeros((0, 4), bool), np.zeros(0, np.int64), [1, 3])
    assert means(scores) == {
        "top_1": None, "top_3": None, "map": None, "map_at_1": None, "map_at_3": None,
        "precision_at_1": None, "precision_at_3": None,
    }  # fmt: skip


def test_without_any_k_there_is_the_mean_average_precision_alone():
    assert means(score(["-x"], num_relevant=[1], ks=[])) == {"map": 0.5}


@pytest.mark.parametrize("ks", [[0], [3, -2, 1]])
def test_a_k_below_1_is_refused(ks):
    with pytest.raises(UsageError) as caught:
        score(["x"], num_relevant=[1], ks=ks)
    assert str(caught.value) == f"k = {min(ks)}: ranks begin at 1. Use a k of 1 or more."


def test_queries_can_be_taken_by_number_and_by_mask():
    scores = score(["x-", "-x", "--"], num_relevant=[1, 1, 1], ks=[1])
    assert scores.take(np.array([2, 0])).first_hit.tolist() == [0, 1]
    some = scores.take(np.array([False, True, True]))
    assert as_lists(some) == {
        "first_hit": [2, 0],
        "ap": [0.5, 0],
        "ap_at": {1: [0, 0]},
        "precision_at": {1: [0, 0]},
        "num_relevant": [1, 1],
    }


def test_the_figures_are_whole_numbers_and_doubles():
    scores = score(["x-"], num_relevant=[1], ks=[1])
    assert {scores.first_hit.dtype, scores.num_relevant.dtype} == {np.dtype(np.int64)}
    doubles = [scores.ap, scores.ap_at[1], scores.precision_at[1]]
    assert {values.dtype for values in doubles} == {np.dtype(np.float64)}
    assert {type(value) for value in means(scores).values()} == {float}
