"""`diff`: what changed between two versions, and what that does to rankings."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pytest

from pipelines import rank
from retrieval.errors import MismatchError
from retrieval.evaluation.overlap import QueryChange, compare_rankings
from retrieval.index import open_index
from retrieval.maintenance.diff import add_churn, diff_versions
from retrieval.ranking.files import RankingWriter, open_ranking
from tests.pipelines.care_case import error_of, make_gallery, make_queries, report_of
from tests.retrieval.ranks import rows_of


@pytest.fixture
def gallery(tmp_path):
    return make_gallery(tmp_path / "gallery")


@pytest.fixture
def queries(tmp_path):
    return make_queries(tmp_path / "queries")


def test_diff_tells_what_changed_and_names_ids_on_request(gallery):
    report = report_of("diff", gallery, 0, 2)
    assert report == {
        "index": str(gallery),
        "before": {"version": 0, "rows": 8},
        "after": {"version": 2, "rows": 11},
        "is_same_model": True,
        "num_shared_shards": 1,
        "num_rows_read": 4 + 3 + 4,
        "counts": {"added": 4, "removed": 1, "moved": 0, "changed": 0, "relabelled": 0},
    }
    listed = report_of("diff", gallery, 0, 2, "--list")
    assert listed.pop("ids") == {
        "added": ["p10", "p11", "p8", "p9"], "removed": ["p0"], "moved": [], "changed": [],
        "relabelled": [],
    }  # fmt: skip
    assert listed == report
    assert report_of("diff", gallery, 0, 2, "--list", 1)["ids"]["added"] == ["p10"]


def test_diff_refuses_what_makes_no_sense(gallery):
    assert error_of("diff", f"{gallery}@1", 0, 2) == (
        f"Error: {gallery}@1: name the versions apart: diff {gallery} 0 2"
    )
    assert error_of("diff", gallery, 0, 7).endswith("has no version 7; the newest is 2.")
    assert "--top-k is for --probe" in error_of("diff", gallery, 0, 1, "--top-k", 3, code=2)


def test_diff_ranks_both_versions_for_a_probe(gallery, queries, tmp_path):
    report = report_of("diff", gallery, 1, 2, "--probe", queries, "--top-k", 4)
    before, after = ({}, {})
    for lists, version in ((before, 1), (after, 2)):
        folder = tmp_path / f"ranking {version}"
        rank.run(str(queries), f"{gallery}@{version}", str(folder), rank.RankConfig(top_k=4))
        for query, _, name, _ in rows_of(folder):
            lists.setdefault(query, []).append(name)
    overlaps = {name: len(set(before[name]) & set(after[name])) / 4 for name in before}
    assert before["qp0"][0] == "p0"
    churn = report["churn"]
    assert churn["top_k"] == 4
    assert churn["num_queries"] == 3
    assert churn["mean_overlap"] == pytest.approx(np.mean(list(overlaps.values())))
    moved = [name for name in before if before[name][0] != after[name][0]]
    assert "qp0" in moved
    assert churn["top_1_changed_fraction"] == len(moved) / 3
    assert churn["worst"][0]["overlap"] == min(overlaps.values()) < 1
    assert {each["query_id"] for each in churn["worst"]} == {
        name for name in before if overlaps[name] < 1 or name in moved
    }


def test_diff_is_not_misled_by_a_folder_called_like_a_version(gallery, queries, tmp_path):
    found = diff_versions(str(gallery), 1, 2, probe=str(queries), top_k=2)
    shutil.copytree(gallery, tmp_path / "gallery@1")
    assert diff_versions(str(gallery), 1, 2, probe=str(queries), top_k=2) == found
    in_library = diff_versions(str(gallery), 1, 2)
    assert add_churn(in_library, open_index(str(queries)), 2) == found


def written(path, lists):
    writer = RankingWriter(str(path))
    rows = [
        (query, number + 1, name, 0.0)
        for query, names in lists.items()
        for number, name in enumerate(names)
    ]
    columns = zip(*rows, strict=True)
    names = ("query_id", "rank", "gallery_id", "score")
    table = pa.table(dict(zip(names, map(list, columns), strict=True)))
    writer.write_part(table.set_column(1, "rank", table["rank"].cast(pa.int32())))
    writer.finish({})
    return open_ranking(str(path))


def test_churn_by_hand(tmp_path):
    before = written(tmp_path / "a", {"p": "abcd", "q": "abcd", "r": "abcd", "s": "abcd"})
    after = written(tmp_path / "b", {"p": "abcd", "q": "bacd", "r": "axyz", "s": "abdc"})
    churn = compare_rankings(before, after)
    assert churn.num_queries == 4
    assert churn.mean_overlap == (1 + 1 + 0.25 + 1) / 4
    assert churn.top_1_changed_fraction == 0.25
    assert churn.worst == (QueryChange("r", 0.25, "a", "a"), QueryChange("q", 1.0, "a", "b"))
    assert compare_rankings(before, after, num_worst=1).worst == churn.worst[:1]
    assert compare_rankings(before, before).worst == ()
    other = written(tmp_path / "c", {"p": "abcd"})
    with pytest.raises(MismatchError, match="not of the same queries, such as 'q'"):
        compare_rankings(before, other)
