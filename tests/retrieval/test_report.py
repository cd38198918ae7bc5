"""The page: rows, classes, numbers."""

import math
from dataclasses import replace

import numpy as np
import pytest

from retrieval.report_page import (
    Neighbour,
    QueryResult,
)
from tests.retrieval.pages import (
    METRICS,
    PAGE,
    RESULTS,
    Node,
    build,
    data_uri,
    neighbours,
    query_row,
    render,
    tiles,
    with_results,
)


def test_every_query_has_a_row_with_its_neighbours_in_rank_order():
    document = build(PAGE)

    assert len(document.all("article")) == len(RESULTS)
    for number, result in enumerate(RESULTS, start=1):
        row = document.by_id(f"q{number}")
        assert row.one("h4").text == result.query_id
        found = tiles(row)
        assert [t.one(css_class="rank").text for t in found] == list("123")[: len(found)]
        assert [t.one(css_class="id").text for t in found] == [
            neighbour.gallery_id for neighbour in result.neighbours
        ]
        assert [t.one(css_class="label").text for t in found] == [
            neighbour.label or "no label" for neighbour in result.neighbours
        ]


def test_results_may_come_from_a_generator():
    assert render(replace(PAGE, results=iter(RESULTS))) == render(PAGE)


@pytest.mark.parametrize(
    ("query_label", "label", "frame", "mark"),
    [
        ("tower", "tower", "same", "✓"),
        ("tower", "bridge", "other", "✗"),
        ("tower", "Tower", "other", "✗"),
        ("", "", "same", "✓"),
        ("tower", None, "unknown", "?"),
        (None, "tower", "unknown", "?"),
        (None, None, "unknown", "?"),
    ],
)
def test_the_frame_and_its_mark_tell_whether_labels_agree(query_label, label, frame, mark):
    document = build(with_results(QueryResult("q", query_label, neighbours(label))))

    (tile,) = tiles(document.one("article"))
    assert tile.classes == [frame]
    assert tile.one(css_class="mark").text == mark
    assert tile.one(css_class="mark").attrs["aria-label"]


@pytest.mark.parametrize(
    ("query_id", "kinds", "found"),
    [
        ("hit.jpg", {"hit"}, "hit, 1 of 3 same label"),
        ("late.jpg", {"miss"}, "missed, first match at rank 3"),
        ("lost.jpg", {"miss", "lost"}, "missed, no match in 3"),
        ("distractor-first.jpg", {"miss"}, "missed, first match at rank 2"),
        ("nothing.jpg", {"miss", "lost"}, "missed, nothing found"),
        ("open.jpg", {"open"}, None),
    ],
)
def test_a_row_says_what_the_filter_needs_to_know(query_id, kinds, found):
    row = query_row(build(PAGE), query_id)

    assert set(row.classes) == {"query"} | kinds
    assert [node.text for node in row.all(css_class="found")] == ([found] if found else [])


def test_the_filter_counts_its_rows_and_hides_headings_without_any():
    document = build(PAGE)

    labels = [label.text for label in document.one("fieldset").all("label")]
    assert labels == ["all 6", "missed at rank 1 4", "missed at all ranks shown 2"]
    for section in document.all("section", "class"):
        kinds = {kind for row in section.all("article") for kind in row.classes} - {"query"}
        assert set(section.classes) == {"class"} | {f"has-{kind}" for kind in kinds}
    css = document.all("style")[0].text
    assert ":root:has(#show-miss:checked) .query:not(.miss)" in css
    assert ":root:has(#show-lost:checked) .class:not(.has-lost)" in css


def test_no_filter_without_labels():
    document = build(with_results(QueryResult("q", None, neighbours(None))))

    assert not document.all("fieldset")
    assert not document.all("table")


def test_of_more_than_20_neighbours_20_are_shown_and_the_facts_say_so():
    many = [Neighbour(f"g{i}", "x", 0.5) for i in range(50)]
    page = with_results(QueryResult("q", "y", many), QueryResult("r", "y", many[:20]))
    document = build(page, {"g:g19": data_uri(19), "g:g20": data_uri(20)})

    assert [len(tiles(row)) for row in document.all("article")] == [20, 20]
    assert "neighbours shownthe first 20 of 50" in document.one(css_class="facts").text
    assert "neighbours shown" not in render(PAGE)
    assert data_uri(19) in document.all("style")[1].text
    assert data_uri(20) not in document.all("style")[1].text


def test_no_queries_is_a_page_too():
    document = build(with_results())

    assert document.all("article") == []
    assert document.one("p", "empty").text == "No queries."


def test_classes_come_worst_first_and_link_to_their_queries():
    document = build(PAGE)

    labels = [row.one("th") for row in document.one(css_class="scroll").one("tbody").all("tr")]
    assert [label.text for label in labels] == ["arch", "bridge", "tower", "absent"]
    for label in labels[:3]:
        section = document.by_id(label.one("a").attrs["href"].removeprefix("#"))
        assert section.one("h3").one("span").text == label.text
        assert {row.one(css_class="label").text for row in map(head, section.all("article"))} == {
            label.text
        }
    assert labels[3].all("a") == []  # it has no queries


def head(row: Node) -> Node:
    return row.one("div", "head")


def test_queries_without_label_come_last():
    rows = build(PAGE).all("article")

    assert [row.attrs["id"] for row in rows] == ["q5", "q6", "q3", "q1", "q2", "q4"]


def test_ids_in_the_document_are_unique_and_every_link_has_its_goal():
    document = build(PAGE)

    ids = [node.attrs["id"] for node in document.all() if "id" in node.attrs]
    assert len(ids) == len(set(ids))
    assert {link.attrs["href"] for link in document.all("a")} <= {f"#{name}" for name in ids}


def test_ranks_of_the_first_match_are_counted():
    rows = build(PAGE).one("table", "histogram").one("tbody").all("tr")

    assert [row.one("th").text for row in rows] == ["rank 1", "2", "3", "not shown"]
    assert [row.one("td").text for row in rows] == ["1", "1", "1", "2"]


def test_metrics_are_shown_in_order_of_k():
    document = build(PAGE)

    numbers = document.one(css_class="numbers").all("div", "number")
    assert [n.one(css_class="what").text for n in numbers] == ["top-1", "top-3", "top-10", "mAP"]
    assert [n.one(css_class="big").text for n in numbers] == ["50.0%", "75.0%", "100.0%", "43.2%"]
    assert numbers[0].one(css_class="also").text == "66.7% of those with a match"
    counts = [" ".join(c.text.split()) for c in document.one(css_class="counts").all("div")]
    assert counts == [
        "3queries",
        "12,000gallery photos",
        "1queries without any match",
        "1queries without label",
    ]


def test_what_is_not_defined_is_a_dash():
    nothing = dict.fromkeys(METRICS) | {"per_class": [{"label": "x", "top_1": None}]}
    document = build(replace(PAGE, metrics=nothing, results=[]))

    assert {n.text for n in document.all(css_class="big")} == {"–"}
    assert {n.text for n in document.one(css_class="counts").all("dd")} == {"–"}
    assert {n.text for n in document.one(css_class="scroll").all("td")} == {"–"}


def test_without_metrics_there_are_none():
    document = build(replace(PAGE, metrics=None, notes=[]))

    assert not document.all(css_class="numbers")
    assert not document.all(css_class="scroll")


def test_the_same_figure_over_queries_with_a_match_is_not_repeated():
    metrics = METRICS | {"num_queries_without_match": 0}

    assert not build(replace(PAGE, metrics=metrics)).all(css_class="also")


@pytest.mark.parametrize(
    ("value", "text", "width"),
    [
        (0, "0.0%", "0.00%"),
        (0.0004, "<0.1%", "0.04%"),
        (np.float32(0.125), "12.5%", "12.50%"),
        (0.9994, "99.9%", "99.94%"),
        (1 - 1e-9, ">99.9%", "100.00%"),
        (1, "100.0%", "100.00%"),
        (math.nan, "–", "0.00%"),
        (None, "–", "0.00%"),
    ],
)
def test_fractions_never_round_to_all_or_nothing(value, text, width):
    number = build(replace(PAGE, metrics={"top_1": value})).one(css_class="number")

    assert number.one(css_class="big").text == text
    assert number.one("i").attrs["style"] == f"width:{width}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98765, "0.9877"),
        (-0.25, "−0.2500"),
        (0.0, "0.0000"),
        (0.00004, "4.00e−05"),
        (250.123, "250.1"),
        (-1234567.8, "−1.23e+06"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "–"),
        (np.float64(0.5), "0.5000"),
    ],
)
def test_scores_are_short_and_exact_in_the_title(value, text):
    page = with_results(QueryResult("q", "x", [Neighbour("g", "y", value)]))

    (tile,) = tiles(build(page).one("article"))
    assert tile.one(css_class="score").text == text
    assert tile.attrs["title"] == f"g\nlabel: y\nscore: {float(value)}"


def test_a_metric_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match=r"^metric '0.5': a number or None is needed$"):
        render(replace(PAGE, metrics={"top_1": "0.5"}))
