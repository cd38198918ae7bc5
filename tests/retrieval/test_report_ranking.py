"""The page of a ranking, from the files that the jobs wrote."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest

from retrieval.errors import StorageError, UsageError
from retrieval.ranking.files import RankingWriter
from retrieval.report_page import write_report
from tests.conftest import make_index, photo_bytes


def write_ranking(folder, sides, rows, **facts):
    """A ranking made by hand; `rows` maps a query to its gallery ids in order."""
    writer = RankingWriter(str(folder))
    flat = [
        {"query_id": query, "rank": rank, "gallery_id": found, "score": 1 - rank / 100}
        for query, found_ids in rows.items()
        for rank, found in enumerate(found_ids, start=1)
    ]
    half = len(flat) // 2
    half = next(n for n in range(half, len(flat) + 1) if n == len(flat) or flat[n]["rank"] == 1)
    for part in (flat[:half], flat[half:]):
        if part:
            writer.write_part(pa.Table.from_pylist(part))
    sides = {
        name: {"uri": str(uri), "version": 0, "num_rows": 3, "dim": 4, "spec": None}
        for name, uri in zip(("queries", "gallery"), sides, strict=True)
    }
    defaults = {
        "metric": "cosine", "top_k": 3, "is_complete": True, "exclude_self": False,
        "num_queries": len(rows), "created_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    writer.finish({**sides, **defaults, **facts})
    return str(folder)


@pytest.fixture
def sides(tmp_path):
    """Three queries and three gallery photos with labels; gallery photo g-2 is gone."""
    (tmp_path / "photos").mkdir()
    vectors = np.ones((3, 4), np.float16)
    for name, labels in (("q", ["a", "b", None]), ("g", ["a", "b", "b"])):
        ids = [f"{name}-{n}" for n in range(3)]
        make_index(tmp_path / name, ids, vectors, labels=labels, folder=tmp_path / "photos")
        for number, image_id in enumerate(ids):
            (tmp_path / "photos" / image_id).write_bytes(
                photo_bytes((9 if name == "q" else 99, 80 * number, 200))
            )
    (tmp_path / "photos" / "g-2").unlink()
    return tmp_path / "q", tmp_path / "g"


ROWS = {"q-0": ["g-0", "g-1", "g-2"], "q-1": ["g-0", "g-2", "g-1"], "q-2": ["g-2", "g-1", "g-0"]}


def test_the_page_holds_each_query_its_neighbours_and_the_figures(sides, tmp_path):
    ranking = write_ranking(tmp_path / "rk", sides, ROWS)
    report = write_report(ranking, str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert report.to_json() == {
        "report": str(tmp_path / "page.html"),
        "size_bytes": report.size_bytes,
        "num_queries": 3,
        "num_photos": 6,
        "num_photos_unreadable": 1,
    }
    assert report.size_bytes == (tmp_path / "page.html").stat().st_size
    assert page.count("data:image/webp;base64,") == 5
    assert "50.0%" in page  # top-1: q-0 finds an a at once, q-1 does not find a b; q-2 has no label
    for image_id in (*ROWS, *ROWS["q-0"]):
        assert image_id in page


def test_of_many_queries_an_even_choice_is_shown_and_the_figures_are_of_all(sides, tmp_path):
    ranking = write_ranking(tmp_path / "rk", sides, ROWS)
    report = write_report(ranking, str(tmp_path / "page.html"), max_queries=2)
    page = (tmp_path / "page.html").read_text()
    assert report.num_queries == 2
    assert re.search(r"2 of 3", page)
    assert "q-0" in page
    assert "q-2" in page
    assert "q-1" not in page
    assert "50.0%" in page


def test_a_ranking_without_labels_still_has_a_page(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("q", "g"):
        make_index(tmp_path / name, [f"{name}-{n}" for n in range(3)], np.ones((3, 4), np.float16))
    ranking = write_ranking(tmp_path / "rk", (tmp_path / "q", tmp_path / "g"), ROWS)
    report = write_report(ranking, str(tmp_path / "page.html"))
    assert report.num_photos_unreadable == 6
    assert "nothing can be measured" in (tmp_path / "page.html").read_text()


def test_untrained_features_and_a_shortened_ranking_are_said_on_the_page(sides, tmp_path):
    spec = {"backbone": "resnet18", "weights": "none", "dim": 4, "fingerprint": "ab" * 32}
    rows = {query: found[:2] for query, found in ROWS.items()}
    side = {"uri": str(sides[1]), "version": 0, "num_rows": 3, "dim": 4, "spec": spec}
    ranking = write_ranking(tmp_path / "rk", sides, rows, gallery=side, top_k=2, is_complete=False)
    write_report(ranking, str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert "Untrained features" in page
    assert "mAP is a lower bound: the ranking lists 2 images a query" in page
    assert "resnet18, weights none, 4 dimensions, fingerprint abababababab" in page
    assert page.count("mAP, at least") == 2  # the figure, and the column of the classes


def test_a_network_of_ones_own_is_not_called_untrained(sides, tmp_path):
    """What its function returns is complete: --weights none says nothing of it."""
    spec = {"backbone": "mine:network", "weights": "none", "dim": 4, "fingerprint": "ab" * 32}
    side = {"uri": str(sides[1]), "version": 0, "num_rows": 3, "dim": 4, "spec": spec}
    write_report(
        write_ranking(tmp_path / "rk", sides, ROWS, gallery=side), str(tmp_path / "page.html")
    )
    page = (tmp_path / "page.html").read_text()
    assert "Untrained" not in page
    assert "mine:network, its own weights, 4 dimensions" in page
    assert "mAP, at least" not in page


def test_bad_inputs_are_said_in_one_line(sides, tmp_path):
    ranking = write_ranking(tmp_path / "rk", sides, ROWS)
    with pytest.raises(UsageError, match=r"page.txt: the page is an HTML file"):
        write_report(ranking, "page.txt")
    with pytest.raises(StorageError, match=r"^/proc/page.html: cannot be written"):
        write_report(ranking, "/proc/page.html")
    with pytest.raises(StorageError, match="no finished ranking there"):
        write_report(str(tmp_path), str(tmp_path / "page.html"))
