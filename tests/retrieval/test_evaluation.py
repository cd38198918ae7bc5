"""Figures of a ranking by labels: worked by hand, and against plain dictionaries."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from retrieval.errors import IndexFormatError, MismatchError, UsageError
from retrieval.evaluation import evaluate, read_photos
from retrieval.ranking.files import RANKING_SCHEMA, RankingWriter, open_ranking
from tests.conftest import make_index

# Two queries are scored, one has no match, one has no label; two of five are distractors.
QUERIES = {"a": "x", "b": "y", "c": None, "d": "lonely"}
GALLERY = {"1": "x", "2": "y", "3": "x", "4": None, "5": "other"}
ANSWERS = {"a": "213", "b": "241", "c": "123", "d": "541"}


def write_ranking(path, answers, *, parts=1, is_complete=False, exclude_self=False, **sides):
    """A ranking of given answers, a dictionary from query id to gallery ids in order."""
    writer = RankingWriter(str(path))
    names = list(answers)
    for block in np.array_split(np.arange(len(names)), parts):
        rows = [
            (names[n], rank, found, -float(rank))
            for n in block
            for rank, found in enumerate(answers[names[n]], start=1)
        ]
        columns = zip(*rows, strict=True) if rows else [[]] * 4
        writer.write_part(pa.table(list(map(list, columns)), schema=RANKING_SCHEMA))
    depth = max(map(len, answers.values()))
    facts = {"top_k": depth, "is_complete": is_complete, "exclude_self": exclude_self, **sides}
    writer.finish(facts)
    return open_ranking(str(path))


def labels_of(photos, num_chunks=2):
    """One side as a table, in several chunks, as an index of several shards gives it."""
    ids, labels = (pa.array(list(column), pa.string()) for column in (photos, photos.values()))
    whole = pa.table({"image_id": ids, "label": labels})
    size = -(-len(ids) // num_chunks)
    return pa.concat_tables(whole.slice(n * size, size) for n in range(num_chunks))


def measure(path, answers, queries, gallery, ks=None, **settings):
    ranking = write_ranking(path / "ranking", answers, **settings)
    return evaluate(ranking, labels_of(queries), labels_of(gallery), ks).to_json()


def mean(values):
    return sum(values) / len(values) if values else None


def slow_figures(scored, ks):
    """Figures of some queries, each given as (hits as a list of 0 and 1, R)."""

    def ap(hits, num_relevant, last, most):
        gains = [sum(hits[: n + 1]) / (n + 1) for n in range(min(last, len(hits))) if hits[n]]
        return sum(gains) / min(num_relevant, most) if num_relevant else 0.0

    return {
        **{f"top_{k}": mean([float(1 in hits[:k]) for hits, _ in scored]) for k in ks},
        "map": mean([ap(hits, r, len(hits), r) for hits, r in scored]),
        **{f"map_at_{k}": mean([ap(hits, r, k, k) for hits, r in scored]) for k in ks},
        **{f"precision_at_{k}": mean([sum(hits[:k]) / k for hits, _ in scored]) for k in ks},
    }


def slow_report(answers, queries, gallery, ks, *, is_complete, exclude_self):
    """All that `evaluate` reports, query by query."""
    scored = {}
    for name, found in answers.items():
        if queries[name] is not None:
            rivals = [g for g in gallery if not (exclude_self and g == name)]
            num_relevant = sum(gallery[g] == queries[name] for g in rivals)
            scored[name] = ([int(gallery[g] == queries[name]) for g in found], num_relevant)
    asked = {queries[name] for name in scored}
    return {
        **slow_figures(list(scored.values()), ks),
        "num_queries": len(scored),
        "num_queries_without_match": sum(r == 0 for _, r in scored.values()),
        "num_queries_unlabelled": len(answers) - len(scored),
        "num_gallery": len(gallery),
        "num_distractors": sum(label not in asked for label in gallery.values()),
        "depth": max(map(len, answers.values())),
        "map_is_lower_bound": not is_complete,
        "with_match_only": slow_figures([one for one in scored.values() if one[1]], ks),
        "per_class": [
            {
                "label": label,
                "num_queries": sum(queries[name] == label for name in scored),
                "num_gallery": sum(other == label for other in gallery.values()),
                **slow_figures([scored[name] for name in scored if queries[name] == label], ks),
            }
            for label in sorted(asked)
        ],
    }


def assert_same(found, expected, where=""):
    """Equal in every key and value, figures to 1e-12."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, pair in enumerate(zip(found, expected, strict=True)):
            assert_same(*pair, f"{where}/{number}")
    else:
        assert type(found) is type(expected), where
        assert found == (pytest.approx(expected, abs=1e-12) if expected else expected), where


def test_a_report_worked_by_hand(tmp_path):
    found = measure(tmp_path, ANSWERS, QUERIES, GALLERY)
    ap = (1 / 2 + 2 / 3) / 2  # of the query a, whose answer is: wrong, right, right
    a = {"top_1": 0.0, "top_3": 1.0, "map": ap, "map_at_1": 0.0, "map_at_3": ap,
         "precision_at_1": 0.0, "precision_at_3": 2 / 3}  # fmt: skip
    b = {"top_1": 1.0, "top_3": 1.0, "map": 1.0, "map_at_1": 1.0, "map_at_3": 1.0,
         "precision_at_1": 1.0, "precision_at_3": 1 / 3}  # fmt: skip
    expected = {
        **{name: (a[name] + b[name]) / 3 for name in a},  # d, without a match, counts as missed
        "num_queries": 3,
        "num_queries_without_match": 1,
        "num_queries_unlabelled": 1,
        "num_gallery": 5,
        "num_distractors": 2,
        "depth": 3,
        "map_is_lower_bound": True,
        "with_match_only": {name: (a[name] + b[name]) / 2 for name in a},
        "per_class": [
            {"label": "lonely", "num_queries": 1, "num_gallery": 0, **dict.fromkeys(a, 0.0)},
            {"label": "x", "num_queries": 1, "num_gallery": 2, **a},
            {"label": "y", "num_queries": 1, "num_gallery": 1, **b},
        ],
    }
    assert_same(found, expected)


@pytest.mark.parametrize("seed", range(12), ids="seed{}".format)
@pytest.mark.parametrize("exclude_self", [False, True], ids=["with-self", "without-self"])
def test_a_report_equals_plain_dictionaries(tmp_path, seed, exclude_self):
    rng = np.random.default_rng(seed)
    is_complete = bool(rng.integers(2))

    def draw(prefix, count):
        shared = [f"s{n}" for n in range(4)]  # on both sides, perhaps with another label
        names = rng.permutation([*shared, *(f"{prefix}{n}" for n in range(count))]).tolist()
        return {name: [None, "ä", "b", "c", prefix][rng.integers(5)] for name in names}

    queries, gallery = draw("q", 9), draw("g", 16)
    queries["q0"] = "b"
    depth = len(gallery) - exclude_self if is_complete else 7
    answers = {
        name: [g for g in rng.permutation(list(gallery)).tolist() if not exclude_self or g != name][
            :depth
        ]
        for name in sorted(queries)
    }
    settings = {"is_complete": is_complete, "exclude_self": exclude_self}
    ks = [1, 2, 5, 7]
    found = measure(
        tmp_path, answers, queries, gallery, ks, parts=int(rng.integers(1, 5)), **settings
    )
    assert_same(found, slow_report(answers, queries, gallery, ks, **settings))


def test_several_parts_say_the_same_as_one_and_the_order_of_queries_does_not_matter(tmp_path):
    one = measure(tmp_path / "one", ANSWERS, QUERIES, GALLERY)
    assert measure(tmp_path / "many", ANSWERS, QUERIES, GALLERY, parts=4) == one
    assert measure(tmp_path / "empty", ANSWERS, QUERIES, GALLERY, parts=6) == one
    backwards = dict(reversed(ANSWERS.items()))
    assert_same(measure(tmp_path / "back", backwards, QUERIES, GALLERY, parts=2), one)


def test_a_query_s_own_copy_is_not_relevant_only_where_the_ranking_left_it_out(tmp_path):
    gallery = {"a": "x", "1": "x", "b": "other", "2": "y"}
    queries = {"a": "x", "b": "y", "c": "y"}  # a is there; b with another label; c is not
    answers = {"a": ["2", "1", "b"], "b": ["2", "a", "1"], "c": ["b", "2", "1"]}
    without = measure(tmp_path / "1", answers, queries, gallery, exclude_self=True)
    assert [row["map"] for row in without["per_class"]] == [1 / 2, (1 + 1 / 2) / 2]
    with_self = measure(tmp_path / "2", answers, queries, gallery, exclude_self=False)
    assert [row["map"] for row in with_self["per_class"]] == [1 / 4, (1 + 1 / 2) / 2]


def test_a_query_whose_only_relative_is_itself_has_no_match(tmp_path):
    photos = {"a": "x", "b": "y", "c": "y"}
    answers = {"a": "bc", "b": "ac", "c": "ab"}
    found = measure(tmp_path, answers, photos, photos, exclude_self=True, is_complete=True)
    assert (found["num_queries"], found["num_queries_without_match"]) == (3, 1)
    assert (found["map"], found["with_match_only"]["map"]) == (1 / 3, 1 / 2)


def test_every_row_of_an_id_that_the_gallery_repeats_counts(tmp_path):
    gallery = pa.table({"image_id": ["a", "1", "a", "1"], "label": ["x"] * 4})
    queries = labels_of({"a": "x"})
    ranking = write_ranking(tmp_path / "without", {"a": ["1", "1"]}, exclude_self=True)
    assert evaluate(ranking, queries, gallery).map == 1
    ranking = write_ranking(tmp_path / "with", {"a": ["1", "a", "1", "a"]})
    assert evaluate(ranking, queries, gallery).map == 1
    torn = gallery.set_column(1, "label", pa.array(["x", "x", "x", None]))
    with pytest.raises(IndexFormatError) as caught:
        evaluate(ranking, queries, torn)
    assert str(caught.value) == (
        "The gallery holds '1' more than once, with different labels. Give each image one label."
    )


@pytest.mark.parametrize(
    ("answers", "strange", "side"),
    [({"a": ["1", "nobody"]}, "nobody", "gallery"), ({"z": ["1", "2"]}, "z", "queries")],
)
def test_an_unknown_id_is_refused(tmp_path, answers, strange, side):
    with pytest.raises(MismatchError) as caught:
        measure(tmp_path, answers, QUERIES, GALLERY)
    assert str(caught.value) == (
        f"The ranking names {strange!r}, which is not among the {side}. "
        f"Name the index that was ranked."
    )


def test_without_any_label_there_is_nothing_to_measure(tmp_path):
    with pytest.raises(UsageError) as caught:
        measure(tmp_path, {"a": "1"}, {"a": None, "b": None}, GALLERY)
    assert str(caught.value) == (
        "None of the 2 queries has a label, so there is nothing to measure. "
        "Embed them again with `labels`."
    )


def test_a_gallery_without_labels_gives_zeros(tmp_path):
    found = measure(tmp_path, {"a": "12"}, {"a": "x"}, {"1": None, "2": None}, [2])
    assert (found["top_2"], found["num_distractors"]) == (0.0, 2)
    assert found["with_match_only"] == dict.fromkeys(found["with_match_only"])


@pytest.mark.parametrize("k", [4, 0, -1])
def test_a_k_beyond_the_ranking_is_refused(tmp_path, k):
    with pytest.raises(UsageError) as caught:
        measure(tmp_path, ANSWERS, QUERIES, GALLERY, [1, k])
    assert str(caught.value) == (
        f"`ks` {k}: the ranking lists 3 images a query. "
        f"Use 1 to 3, or rank again with a larger `top_k`."
    )


def tops(report):
    return [name for name in report if name.startswith("top_")]


@pytest.mark.parametrize(("depth", "expected"), [(1, [1]), (2, [1]), (3, [1, 3]), (11, [1, 3, 10])])
def test_the_usual_ks_go_as_far_as_the_ranking(tmp_path, depth, expected):
    gallery = {f"{n}": "x" for n in range(20)}
    answers = {"a": list(gallery)[:depth]}
    found = measure(tmp_path / "cut", answers, {"a": "x"}, gallery)
    assert tops(found) == [f"top_{k}" for k in expected]
    assert found["map_is_lower_bound"] is True
    whole = measure(tmp_path / "all", answers, {"a": "x"}, gallery, is_complete=True)
    assert tops(whole) == ["top_1", "top_3", "top_10"]
    assert whole["map_is_lower_bound"] is False


def test_ks_are_reported_once_and_in_order(tmp_path):
    assert tops(measure(tmp_path, ANSWERS, QUERIES, GALLERY, [3, 1, 3])) == ["top_1", "top_3"]


def test_the_figures_are_attributes_and_their_json_keeps_its_order(tmp_path):
    ranking = write_ranking(tmp_path / "ranking", ANSWERS)
    found = evaluate(ranking, labels_of(QUERIES), labels_of(GALLERY), [1])
    assert (found.top, found.precision_at) == ({1: 1 / 3}, {1: 1 / 3})
    assert (found.with_match_only.top, found.map) == ({1: 1 / 2}, found.to_json()["map"])
    assert [(each.label, each.top[1]) for each in found.per_class] == [
        ("lonely", 0.0), ("x", 0.0), ("y", 1.0),
    ]  # fmt: skip
    means = ["top_1", "map", "map_at_1", "precision_at_1"]
    assert list(found.to_json()) == [
        *means, "num_queries", "num_queries_without_match", "num_queries_unlabelled",
        "num_gallery", "num_distractors", "depth", "map_is_lower_bound", "with_match_only",
        "per_class",
    ]  # fmt: skip
    assert list(found.to_json()["with_match_only"]) == means
    classes = found.to_json()["per_class"]
    assert list(classes[0]) == ["label", "num_queries", "num_gallery", *means]


def test_two_indexes_are_measured_from_end_to_end(tmp_path):
    for name, photos in (("queries", QUERIES), ("gallery", GALLERY)):
        vectors = np.ones((len(photos), 2), np.float16)
        labels = list(photos.values())
        make_index(tmp_path / name, list(photos), vectors, labels=labels, num_shards=2)
    ranking = write_ranking(tmp_path / "ranking", ANSWERS)
    sides = [read_photos(str(tmp_path / name), ranking, name) for name in ("queries", "gallery")]
    assert sorted(sides[0]["uri"].to_pylist()) == [f"/nowhere/{name}" for name in "abcd"]
    found = evaluate(ranking, *sides)
    assert found.to_json() == measure(tmp_path / "tables", ANSWERS, QUERIES, GALLERY)
    assert found == evaluate(*(str(tmp_path / name) for name in ("ranking", "queries", "gallery")))


@pytest.mark.parametrize("none", [None, ""])
@pytest.mark.parametrize("encode", [False, True])
def test_a_photo_with_an_empty_label_is_as_one_without(tmp_path, none, encode):
    ranking = write_ranking(tmp_path / "ranking", {"a": "12", "b": "12"})
    queries = pa.table({"image_id": ["a", "b"], "label": ["x", none]})
    gallery = pa.table({"image_id": ["1", "2"], "label": [none, "x"]})
    if encode:
        label = gallery["label"].dictionary_encode()
        gallery = gallery.set_column(1, "label", label)
    found = evaluate(ranking, queries, gallery)
    assert (found.num_queries, found.num_queries_unlabelled) == (1, 1)
    assert [entry.label for entry in found.per_class] == ["x"]
    assert found.num_distractors == 1
