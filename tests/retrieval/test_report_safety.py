"""The page holds each photo once, asks for nothing from outside, and no name can harm it."""

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

import retrieval.report_page.page
from retrieval.report_page import (
    Neighbour,
    Page,
    QueryResult,
    write_page,
)
from tests.retrieval.pages import (
    ATTRIBUTES,
    HOSTILE,
    METRICS,
    PAGE,
    RESULTS,
    TAGS,
    build,
    data_uri,
    parse,
    query_row,
    render,
    tiles,
    with_results,
)


def test_a_photo_is_embedded_once_however_often_it_is_shown():
    thumbnails = {f"q:{result.query_id}": data_uri(i) for i, result in enumerate(RESULTS)}
    thumbnails |= {"g:g1.jpg": data_uri(0), "g:g2.jpg": data_uri(7), "g:unused": data_uri(8)}
    html = render(PAGE, thumbnails)
    document = parse(html)

    for number in (0, 1, 2, 3, 4, 5, 7):
        assert html.count(data_uri(number)) == 1
    assert data_uri(8) not in html
    rules = dict(re.findall(r"\.(t\d+)\{background-image:url\((.*?)\)\}", html))
    for result in RESULTS:
        row = query_row(document, result.query_id)
        photo, *found = row.all("div", "photo")
        assert rules[photo.classes[1]] == thumbnails[f"q:{result.query_id}"]
        assert photo.attrs["aria-label"] == result.query_id
        assert [rules.get(tile.classes[1]) for tile in found[:2]] == (
            [data_uri(0), data_uri(7)] if found else []
        )


def test_a_missing_photo_is_a_tile_that_says_so():
    document = build(PAGE, {"g:g1.jpg": data_uri(1)})

    row = query_row(document, "hit.jpg")
    assert [photo.text for photo in row.all("div", "photo")] == [
        "photo not readable",
        "",
        "photo not readable",
        "photo not readable",
    ]
    assert row.all("div", "gone")[1].attrs["aria-label"] == "photo not readable: g2.jpg"


@pytest.mark.parametrize(
    "uri",
    [
        "https://example.org/a.webp",
        "data:image/svg+xml;base64,AAAA",
        "data:image/webp;base64,AA)}</style><script>",
        "data:image/webp;base64,AAAA\n",
        "",
    ],
)
def test_only_pictures_may_enter_the_style_sheet(uri):
    with pytest.raises(ValueError, match=r"^thumbnail of 'q:hit.jpg': .*, a data URI is needed$"):
        render(PAGE, {"q:hit.jpg": uri})


def test_the_page_is_written_in_pieces():
    class Pieces(io.BytesIO):
        largest = 0

        def write(self, data):
            self.largest = max(self.largest, len(data))
            return super().write(data)

    num = 3000
    found = [Neighbour(f"g{i}", "x", 0.5) for i in range(num)]
    results = [QueryResult(f"q{i}", "x", found[i : i + 10]) for i in range(0, num, 10)]
    thumbnails = {f"g:g{i}": data_uri(i) for i in range(num)}
    output = Pieces()

    num_bytes = write_page(replace(PAGE, results=results), thumbnails, output)

    assert output.largest < num_bytes / 20


def hostile_page(text: str) -> Page:
    entry = {"label": text, "num_queries": 1, "num_gallery": 1, "top_1": 1.0, "map": 1.0}
    return Page(
        title=text,
        facts=[(text, text)],
        metrics=METRICS | {"per_class": [entry]},
        results=[
            QueryResult(text, text, [Neighbour(text, text, 0.5), Neighbour(text, None, 0.4)]),
            QueryResult(text, None, [Neighbour("g", text, 0.5)]),
        ],
        metric_name=text,
        notes=[text],
    )


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:20]))
@pytest.mark.parametrize("has_photos", [True, False], ids=["photos", "no photos"])
def test_hostile_names_stay_text(text, has_photos):
    thumbnails = {f"q:{text}": data_uri(1), f"g:{text}": data_uri(2)} if has_photos else {}
    document = build(hostile_page(text), thumbnails)

    for node in document.all():
        assert node.tag in TAGS
        assert set(node.attrs) <= ATTRIBUTES
    assert len(document.all("style")) == 2
    assert document.one("title").text == document.one("h1").text == text
    for row in document.all("article"):
        assert row.one("h4").attrs["title"] == text
        assert row.one("h4").text == (text if text.strip() else "(empty)")
    label = tiles(document.all("article")[0])[0].one(css_class="label")
    assert label.text == (text if text.strip() else "(empty)")


def test_names_are_cut_by_the_style_sheet_and_whole_in_the_title():
    long = "x" * 500
    document = build(hostile_page(long))

    row = document.all("article")[0]
    assert "text" in row.one("h4").classes
    assert tiles(row)[0].attrs["title"].startswith(long)
    css = document.all("style")[0].text
    for selector in (".text", ".head .label", ".strip .score, .strip .label, .strip .id"):
        assert re.search(re.escape(selector) + r" \{[^}]*text-overflow: ellipsis", css)


def test_characters_that_html_or_utf8_cannot_hold_are_shown_otherwise():
    html = render(with_results(QueryResult("\x00\x1b[31m\x7f\x9b\udcff\u202egpj.exe", None, [])))

    assert "␀␛[31m␡\ufffd\\udcff\ufffdgpj.exe" in html
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]", html)


def test_the_page_asks_for_nothing_from_outside():
    html = render(PAGE, {"q:hit.jpg": data_uri(1), "g:g1.jpg": data_uri(2)})
    document = parse(html)

    (policy,) = (m for m in document.all("meta") if "http-equiv" in m.attrs)
    assert policy.attrs == {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'",
    }
    assert document.one("head").children.index(policy) < min(
        document.one("head").children.index(node) for node in document.all("style")
    )
    for node in document.all():
        assert node.tag not in {"script", "img", "iframe", "object", "embed", "form", "base"}
        assert node.attrs.get("href", "#").startswith(("#", "data:,"))
        assert "src" not in node.attrs
        assert "url(" not in node.attrs.get("style", "")
    assert set(re.findall(r"url\((.{10})", html)) == {"data:image"}
    without_photos = re.sub(r"data:image/webp;base64,[\w+/=]+", "", html)
    for word in ("http:", "https:", "//", "@import", "src="):
        assert word not in without_photos


@pytest.mark.parametrize("file", ["page.css", "page.html"])
def test_page_files_cannot_be_misread(file):
    text = (Path(retrieval.report_page.page.__file__).parent / file).read_text(encoding="utf-8")

    if file == "page.css":
        assert not re.search(r"\{[{%#]", text)  # it is included as a Jinja2 template
    assert "|safe" not in text
    assert "autoescape" not in text


def test_sentences_of_facts_and_notes_are_shown():
    document = build(PAGE)

    facts = [
        (f.one("dt").text, f.one("dd").text) for f in document.one(css_class="facts").all("div")
    ]
    assert facts == PAGE.facts
    assert [note.text for note in document.one("ul", "notes").all("li")] == PAGE.notes
    assert "score (cosine)" in document.one("ul", "legend").text
