"""`rank` guesses what the k nearest reach; where a guess is wrong, nothing but time is lost."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.ranking import rank_blocks, search_parts
from retrieval.ranking.settings import RankConfig
from retrieval.search import is_worth_a_sample
from tests.retrieval.ranks import draw, parts_of, run, write_foreign

NUM_GALLERY = 140_000  # enough for a guess: sixteen times the sample, and more


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sides")
    write_foreign(folder / "q" / "0.parquet", (f"q{n}" for n in range(40)), draw(1, 40))
    write_foreign(
        folder / "g" / "0.parquet", (f"g{n}" for n in range(NUM_GALLERY)), draw(2, NUM_GALLERY)
    )
    return str(folder / "q"), str(folder / "g")


@pytest.fixture(scope="module", autouse=True)
def worth_it():
    """As for a larger gallery."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rank_blocks, "is_worth_a_sample", lambda *_: True)
        yield


@pytest.fixture(scope="module")
def without(sides, tmp_path_factory):
    """The ranking that begins with nothing, and how many pairs it scored."""
    ranking = str(tmp_path_factory.mktemp("without") / "rk")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_parts, "guess_floors", guess_of(lambda floors: floors - np.inf))
        report = run(*sides, ranking, RankConfig(top_k=5, num_threads=2))
    return parts_of(ranking), report["certificate"][0]["scored"]


def guess_of(change, true=search_parts.guess_floors):
    return lambda *given, **options: change(true(*given, **options))


def test_a_guess_spares_scores_and_changes_no_byte(sides, without, tmp_path):
    report = run(*sides, str(tmp_path / "rk"), RankConfig(top_k=5, num_threads=2))
    assert parts_of(tmp_path / "rk") == without[0]
    (certificate,) = report["certificate"]
    assert certificate["scored"] < without[1]


def test_where_there_is_little_to_do_nothing_is_guessed(sides, without, tmp_path, monkeypatch):
    monkeypatch.setattr(rank_blocks, "is_worth_a_sample", is_worth_a_sample)
    monkeypatch.setattr(search_parts, "guess_floors", None)  # an error, if it were called
    run(*sides, str(tmp_path / "rk"), RankConfig(top_k=5, num_threads=2))
    assert parts_of(tmp_path / "rk") == without[0]


@pytest.mark.parametrize("unlucky", [[0], [3, 17, 39], range(40)], ids=["first", "some", "all"])
@pytest.mark.parametrize("excess", [np.inf, 0.02])
def test_queries_whose_guess_is_too_high_are_ranked_again(
    sides, without, tmp_path, monkeypatch, unlucky, excess
):
    def too_high(floors):
        # Some rows of a query reach the lower of the two, but not five.
        best = np.where(np.isinf(excess), np.inf, 1 - excess / 100)
        floors[list(unlucky)] = best
        return floors

    monkeypatch.setattr(search_parts, "guess_floors", guess_of(too_high))
    report = run(*sides, str(tmp_path / "rk"), RankConfig(top_k=5, num_threads=2))
    assert parts_of(tmp_path / "rk") == without[0]
    first, again = report["certificate"]
    assert first["pairs"] == 40 * NUM_GALLERY
    assert again["pairs"] == len(unlucky) * NUM_GALLERY


def test_a_query_with_its_own_image_in_the_gallery_keeps_k_others(tmp_path):
    gallery = draw(3, NUM_GALLERY)
    write_foreign(tmp_path / "g" / "0.parquet", (f"i{n}" for n in range(NUM_GALLERY)), gallery)
    names = [f"i{n}" for n in range(0, NUM_GALLERY, 10_000)]
    write_foreign(tmp_path / "q" / "0.parquet", names, gallery[::10_000])
    config = RankConfig(top_k=3, num_threads=2, exclude_self=True)
    report = run(str(tmp_path / "q"), str(tmp_path / "g"), str(tmp_path / "rk"), config)
    assert report["num_rows"] == 3 * len(names)
    assert len(report["certificate"]) == 1
