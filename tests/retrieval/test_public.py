"""The public face: what `import retrieval` offers gives what the commands give, to the bit."""

from __future__ import annotations

import inspect
import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import retrieval
from retrieval.errors import (
    IndexFormatError,
    MismatchError,
    RetrievalError,
    StorageError,
    UsageError,
)
from retrieval.evaluation import evaluate as evaluate_stored
from retrieval.ranking.files import RANKING_SCHEMA
from retrieval.ranking.settings import RankConfig
from retrieval.ranking.write import write_ranking
from retrieval.search.top_k import top_k as search_blocks
from retrieval.vectors import VectorBlock
from tests.conftest import make_index

RNG = np.random.default_rng(7)
VECTORS = RNG.normal(size=(23, 8)).astype(np.float16)
IDS = [f"{'ab'[n % 2]}/{n:02}.jpg" for n in range(23)]
LABELS = ["ab"[n % 2] for n in range(23)]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Indexes of five queries and of a gallery, and the ranking that the command writes of them."""
    root = tmp_path_factory.mktemp("public")
    make_index(root / "q", IDS[:5], VECTORS[:5], labels=LABELS[:5])
    make_index(root / "g", IDS, VECTORS, labels=LABELS)
    write_ranking(str(root / "q"), str(root / "g"), str(root / "r"), RankConfig(top_k=4))
    return root


def test_an_index_reads_like_its_arrays(places):
    index = retrieval.open_index(places / "g")
    rows = retrieval.read_index(str(places / "g"))
    assert (len(index), index.version, index.spec.dim) == (23, 0, 8)
    assert index.ids == rows.ids == IDS_SORTED
    assert index.labels == rows.labels
    assert index.embeddings.tobytes() == rows.embeddings.tobytes()
    assert repr(index) == f"Index({str(places / 'g')!r}, version 0: 23 images, 8 × float16 by {BY})"
    assert index  # also one without rows would be
    assert retrieval.open_index(f"{places / 'g'}@0").version == 0


IDS_SORTED = sorted(IDS)
BY = "fake"


def test_an_index_as_arrow_and_as_pandas(places):
    index = retrieval.open_index(places / "g")
    table = index.to_arrow()
    assert table["image_id"].to_pylist() == index.ids
    assert table["label"].to_pylist() == index.labels
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), 8)
    assert np.array_equal(np.stack(table["embedding"].to_pylist()), index.embeddings)
    assert "embedding" not in index.to_arrow("none").column_names
    assert index.to_arrow("bytes")["embedding"][3].as_py() == index.embeddings[3].tobytes()
    frame = index.to_pandas()
    assert list(frame["image_id"]) == index.ids
    assert np.array_equal(np.stack(frame["embedding"]), index.embeddings)
    with pytest.raises(UsageError, match="`vectors` 'lists': one of list, bytes, none"):
        index.to_arrow("lists")


@pytest.mark.parametrize("how", ["array", "ids", "index", "place", "search"])
def test_all_ways_rank_to_the_same_bits(places, how):
    stored = retrieval.open_ranking(places / "r")
    queries, gallery = (retrieval.open_index(places / name) for name in "qg")
    found = {
        "array": lambda: retrieval.rank(queries.embeddings, gallery.embeddings, 4),
        "ids": lambda: retrieval.rank(
            queries.embeddings,
            gallery.embeddings,
            4,
            query_ids=queries.ids,
            gallery_ids=gallery.ids,
        ),
        "index": lambda: retrieval.rank(queries, gallery, 4),
        "place": lambda: retrieval.rank(str(places / "q"), places / "g", 4),
        "search": lambda: gallery.search(queries, 4),
    }[how]()
    assert found.scores.tobytes() == stored.scores.tobytes()
    if how == "array":
        assert found.ids.dtype == np.int64
        assert [[gallery.ids[n] for n in row] for row in found.ids] == stored.ids.tolist()
        return
    assert found.ids.tolist() == stored.ids.tolist()
    assert found.query_ids.tolist() == stored.query_ids.tolist()
    assert found.to_arrow().equals(stored.to_arrow())
    assert repr(found) == "Ranking(5 queries × 4 of 23 images by cosine)"
    assert (len(found), len(stored)) == (5, 5)


def test_a_ranking_is_saved_as_the_command_writes_it(places, tmp_path):
    queries, gallery = (retrieval.open_index(places / name) for name in "qg")
    saved = retrieval.rank(queries, gallery, 4).save(tmp_path / "r")
    ours, theirs = (retrieval.open_ranking(root / "r") for root in (tmp_path, places))
    assert saved.stored == ours.stored
    assert ours.to_arrow().equals(theirs.to_arrow())
    assert ours.to_arrow().schema == RANKING_SCHEMA
    for key in ("queries", "gallery", "metric", "score_rule", "top_k", "num_rows", "ids_sum"):
        assert ours.facts[key] == theirs.facts[key], key
    assert retrieval.verify(str(tmp_path / "r")).is_exact
    frame = ours.to_pandas()
    assert list(frame.columns) == ["query_id", "rank", "gallery_id", "score"]
    assert len(frame) == 20


def test_what_lies_there_is_not_replaced(places, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StorageError, match="no part of a ranking"):
        retrieval.open_ranking(places / "r").save(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_lists_of_different_lengths_end_in_blanks(tmp_path):
    found = retrieval.rank(
        VECTORS[:2], VECTORS[:4], None, exclude_self=True, query_ids=["0", "x"],
        gallery_ids=["0", "1", "2", "3"],
    )  # fmt: skip
    assert found.ids[0].tolist()[-1] == ""
    assert np.isnan(found.scores[0, -1])
    again = found.save(tmp_path / "r")
    assert again.ids.tolist() == found.ids.tolist()
    np.testing.assert_array_equal(again.scores, found.scores)


def test_arrays_are_saved_in_parts_with_their_row_numbers(tmp_path, monkeypatch):
    from retrieval.public import ranking as module

    monkeypatch.setattr(module, "_PART_ROWS", 9)
    found = retrieval.rank(VECTORS[:7], VECTORS, 3)
    again = found.save(tmp_path / "r")
    assert len(again.stored.parts) == 3
    assert again.ids.astype(int).tolist() == found.ids.tolist()
    assert again.scores.tobytes() == found.scores.tobytes()


@pytest.mark.parametrize(
    "given",
    [
        LABELS, np.array(LABELS), dict(zip(map(str, range(23)), LABELS, strict=True)),
        pa.table({"image_id": [str(n) for n in range(23)], "label": LABELS}),
        pd.DataFrame({"image_id": [str(n) for n in range(23)], "label": LABELS}),
    ],
    ids=["list", "array", "dict", "arrow", "pandas"],
)  # fmt: skip
def test_labels_come_in_any_form(places, given):
    found = retrieval.rank(VECTORS[:5], VECTORS, 4, exclude_self=True)
    by_rows = retrieval.evaluate(found, LABELS[:5], given)
    queries, gallery = (retrieval.open_index(places / name) for name in "qg")
    by_index = retrieval.evaluate(retrieval.rank(queries, gallery, 4, exclude_self=True))
    assert by_rows.top == by_index.top
    assert by_rows.map == pytest.approx(by_index.map, rel=1e-12)  # a sum in another order
    assert by_rows.num_distractors == by_index.num_distractors


def test_figures_are_those_of_the_command(places):
    queries, gallery = str(places / "q"), str(places / "g")
    expected = evaluate_stored(str(places / "r"), queries, gallery)
    for sides in ((), (queries, gallery), map(retrieval.open_index, (queries, gallery))):
        assert retrieval.evaluate(places / "r", *sides) == expected
    assert retrieval.evaluate(retrieval.open_ranking(places / "r"), ks=[2]).top.keys() == {2}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("metric", ["cosine", "ip", "l2", "l1"])
def test_top_k_agrees_with_the_search_of_blocks(dtype, metric):
    vectors = np.concatenate([VECTORS, VECTORS[:6]]).astype(dtype)  # with ties
    rows, scores = retrieval.top_k(vectors[:9], vectors, k=7, metric=metric)
    ids = np.array([f"{n:02}".encode() for n in range(len(vectors))])
    found = search_blocks(VectorBlock(ids[:9], vectors[:9]), [VectorBlock(ids, vectors)], 7, metric)
    assert [f"{n:02}".encode() for n in rows.ravel()] == found.ids.tolist()
    assert scores.ravel().tobytes() == found.scores.tobytes()


def test_a_hand_worked_figure():
    gallery = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    found = retrieval.rank(gallery[:1], gallery, k=None)
    figures = retrieval.evaluate(found, ["x"], ["y", "x", "x"], ks=[1, 2])
    assert figures.top == {1: 0.0, 2: 1.0}
    assert figures.map == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda p: retrieval.rank(VECTORS, VECTORS, 24), UsageError, "`k` 24: .* 23"),
        (lambda p: retrieval.rank(VECTORS, VECTORS, 0), UsageError, "`k` 0"),
        (lambda p: retrieval.rank(VECTORS, VECTORS[:, :4]), MismatchError, "4 dimensions"),
        (lambda p: retrieval.rank(VECTORS, VECTORS, metric="dot"), UsageError, "`metric` dot"),
        (lambda p: retrieval.rank(VECTORS * 0, VECTORS), IndexFormatError, "row 0"),
        (lambda p: retrieval.rank([[1.0]], VECTORS), UsageError, "`queries`: a list"),
        (lambda p: retrieval.rank(VECTORS, VECTORS, query_ids=["a"]), UsageError, "1 ids"),
        (lambda p: retrieval.open_index(p / "none"), StorageError, "no index there"),
        (lambda p: retrieval.open_index(p / "g", 3), UsageError, "no version 3"),
        (lambda p: retrieval.open_ranking(p / "g"), StorageError, "no finished ranking"),
        (lambda p: retrieval.evaluate(retrieval.rank(VECTORS, VECTORS)), UsageError, "an array"),
        (
            lambda p: retrieval.evaluate(retrieval.rank(VECTORS, VECTORS), LABELS, LABELS[1:]),
            UsageError, "`gallery`: 22 labels, but 23 rows",
        ),
        (
            lambda p: retrieval.evaluate(p / "r", LABELS[:5], LABELS),
            UsageError, "labels in the order of the rows",
        ),
        (
            lambda p: retrieval.evaluate(p / "r", {"a": "x"}, dict(zip(IDS, LABELS, strict=True))),
            MismatchError, "not among the queries",
        ),
        (
            lambda p: retrieval.report(p / "r", p / "page.txt"),
            UsageError, "HTML file",
        ),
    ],
)  # fmt: skip
def test_a_wrong_argument_gets_one_clear_line(places, act, error, message):
    with pytest.raises(RetrievalError, match=message) as caught:
        act(places)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)


def test_a_page_shows_images_by_their_addresses(tmp_path):
    uris = []
    for number in range(4):
        data = io.BytesIO()
        Image.new("RGB", (30, 20), (60 * number, 99, 20)).save(data, "PNG")
        (tmp_path / f"{number}.png").write_bytes(data.getvalue())
        uris.append(str(tmp_path / f"{number}.png"))
    found = retrieval.rank(VECTORS[:2], VECTORS[:4], 2, query_ids=uris[:2], gallery_ids=uris)
    sides = {
        "queries": pa.table({"image_id": uris[:2], "label": ["a", "b"], "uri": uris[:2]}),
        "gallery": pd.DataFrame({"image_id": uris, "label": list("abab"), "uri": uris}),
    }
    written = retrieval.report(found, tmp_path / "out" / "page.html", **sides)
    assert (written.num_queries, written.num_photos_unreadable) == (2, 0)
    assert "data:image/" in (tmp_path / "out" / "page.html").read_text()


def test_all_public_names_are_documented_and_load_neither_ray_nor_torch_before_they_are_used():
    for name in retrieval.__all__:
        assert inspect.getdoc(getattr(retrieval, name)), name
    code = (
        "import sys, retrieval\n"
        "heavy = {'torch', 'ray', 'pyarrow', 'numba', 'numpy', 'pandas'} & {*sys.modules}\n"
        "assert not heavy, heavy\n"
        "assert set(retrieval.__all__) <= set(dir(retrieval))\n"
        "first, second = retrieval.report, retrieval.report\n"
        "assert callable(first) and first is second and callable(retrieval.rank)\n"
        "assert not {'ray', 'click', 'pipelines'} & {*sys.modules}\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
