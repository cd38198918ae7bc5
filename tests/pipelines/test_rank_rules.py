"""Scores by two rules never meet: not in a list, not in a folder, not in a comparison."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.rank import RankConfig, run
from pipelines.reindex.ranking import _is_current
from retrieval.errors import IndexFormatError, MismatchError, UsageError
from retrieval.evaluation.overlap import compare_rankings
from retrieval.ranking import plan
from retrieval.ranking.files import open_ranking
from retrieval.ranking.verification import verify
from retrieval.search import score_rule
from tests.conftest import make_index
from tests.first_release import as_first_release
from tests.retrieval.ranks import FOREIGN, foreign_sides, killed_after, marks_of

METRICS = ["cosine", "ip", "l2", "l1", "minkowski:3"]


@pytest.fixture
def sides(tmp_path):
    vectors = np.random.default_rng(1).normal(size=(12, 4)).astype(np.float16)
    make_index(tmp_path / "q", ["q0", "q1"], vectors[:2])
    make_index(tmp_path / "g", [f"g{n}" for n in range(10)], vectors[2:])
    return str(tmp_path / "q"), str(tmp_path / "g")


def change(ranking, **facts):
    file = Path(ranking, "_ranking.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))


@pytest.mark.parametrize("metric", METRICS)
def test_a_ranking_names_its_rule_and_one_that_does_not_is_by_the_first(sides, tmp_path, metric):
    folder = str(tmp_path / "rk")
    report = run(*sides, folder, RankConfig(top_k=3, metric=metric, num_threads=1))
    assert (report["format_version"], report["score_rule"]) == (2, score_rule(metric))
    assert open_ranking(folder).score_rule == score_rule(metric)
    as_first_release(folder)
    assert open_ranking(folder).score_rule == 1


@pytest.mark.parametrize("metric", METRICS)
def test_a_ranking_by_another_rule_is_no_previous_and_not_current(sides, tmp_path, metric):
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    config = RankConfig(top_k=3, metric=metric, num_threads=1)
    run(*sides, old, config)
    again = RankConfig(top_k=3, metric=metric, num_threads=1, previous=old)
    assert run(*sides, new, again)["num_spared_queries"] == 2
    assert _is_current(open_ranking(old), *sides, 0, config)
    as_first_release(old)
    if score_rule(metric) == 1:
        assert run(*sides, new, again)["num_rows"] == 6
        assert _is_current(open_ranking(old), *sides, 0, config)
        return
    assert not _is_current(open_ranking(old), *sides, 0, config)
    with pytest.raises(UsageError) as caught:
        run(*sides, str(tmp_path / "other"), again)
    assert str(caught.value) == (
        f"`previous` {old}: its scores are by rule 1 of {metric}, those of this run by rule 2, and "
        f"the two must not meet in one list. Leave `previous` out."
    )


def test_parts_by_another_rule_are_not_gone_on_from(tmp_path, monkeypatch):
    q, g, folder = foreign_sides(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(plan, "score_rule", lambda metric: 7)
        killed_after(2, q, g, folder, FOREIGN)
    before = marks_of(folder)
    assert len(before) == 2
    report = run(q, g, str(folder), FOREIGN)
    assert report["num_resumed_parts"] == 0
    assert not before.keys() & marks_of(folder).keys()


def test_two_rules_of_one_metric_are_not_compared(sides, tmp_path):
    folders = [str(tmp_path / name) for name in ("old", "new")]
    for folder in folders:
        run(*sides, folder, RankConfig(top_k=3, metric="l2", num_threads=1))
    old, new = map(open_ranking, folders)
    assert compare_rankings(old, new).mean_overlap == 1
    as_first_release(folders[0])
    said = (
        f"{folders[0]} and {folders[1]}: their scores are by rules 1 and 2 of l2, which order near "
        f"neighbours in different ways. Rank the older one again."
    )
    with pytest.raises(MismatchError, match=f"^{re.escape(said)}$"):
        compare_rankings(open_ranking(folders[0]), new)
    run(*sides, folders[0], RankConfig(top_k=3, num_threads=1))
    as_first_release(folders[0])  # two metrics are two orders, and compared as such
    assert compare_rankings(open_ranking(folders[0]), new).num_queries == 2


@pytest.mark.parametrize(
    "facts", [{"format_version": 3}, {"format_version": "2"}, {"queries": "q"}, {"gallery": [1]}]
)
def test_a_ranking_that_this_release_cannot_read_is_told_in_one_line(sides, tmp_path, facts):
    folder = str(tmp_path / "rk")
    run(*sides, folder, RankConfig(top_k=3, num_threads=1))
    change(folder, **facts)
    with pytest.raises(IndexFormatError, match=r"^.*/_ranking.json: ") as caught:
        open_ranking(folder)
    if facts == {"format_version": 3}:
        assert str(caught.value) == (
            f"{folder}/_ranking.json: written by a newer release: format_version 3; this program "
            f"reads 1 to 2. Upgrade retrieval-cli."
        )
    q, g = sides
    named = ["--queries", q, "--gallery", g]
    for words in (["evaluate", folder, *named], ["report", folder, str(tmp_path / "p.html")],
                  ["verify", folder], ["rank", q, g, str(tmp_path / "n"), "--previous", folder,
                                       "--top-k", "3"]):  # fmt: skip
        done = CliRunner().invoke(main, words)
        assert (done.exit_code, done.stderr) == (1, f"Error: {caught.value}\n")


@pytest.mark.parametrize("metric", ["l2", "l1"])
def test_near_neighbours_in_float32_are_ranked_by_their_distances_and_verified(tmp_path, metric):
    near = {"a": 3e-8, "b": 1e-8, "c": 2e-8}
    for name, rows in {"q": {"q": 0.0}, "g": near}.items():
        vectors = [np.array([1, offset], np.float32) for offset in rows.values()]
        pq.write_table(
            pa.table({"id": list(rows), "embedding": vectors}), tmp_path / f"{name}.parquet"
        )
    folder = str(tmp_path / "rk")
    sides = (str(tmp_path / f"{name}.parquet") for name in "qg")
    run(*sides, folder, RankConfig(top_k=3, metric=metric, num_threads=1))
    (part,) = open_ranking(folder).parts
    found = pq.read_table(Path(folder, part)).to_pydict()
    assert found["gallery_id"] == ["b", "c", "a"]
    assert found["score"] == [float(np.float32(near[name])) for name in "bca"]
    checked = verify.run(folder)
    assert (checked["score_rule"], checked["is_exact"], checked["num_exact_pairs"]) == (2, True, 3)
