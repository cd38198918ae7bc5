import base64
import io
import math
import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import retrieval.report.page
from retrieval.errors import ImageError
from retrieval.report import (
    Neighbour,
    Page,
    QueryResult,
    make_thumbnail,
    thumbnail_size,
    write_page,
)

VOID = {"meta", "link", "br", "input", "img", "hr"}
TAGS = (
    VOID
    | {"html", "head", "title", "style", "body", "header", "main", "section", "article"}
    | {"h1", "h2", "h3", "h4", "p", "dl", "dt", "dd", "ul", "ol", "li", "div", "span", "small"}
    | {"table", "thead", "tbody", "tr", "th", "td", "fieldset", "legend", "label"}
    | {"a", "b", "i", "bdi"}
)
ATTRIBUTES = {
    *("aria-hidden", "aria-label", "aria-labelledby", "charset", "checked", "class", "content"),
    *("dir", "href", "http-equiv", "id", "lang", "name", "rel", "role", "scope", "style"),
    *("tabindex", "title", "type"),
}
HOSTILE = [
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)" x="',
    "' onfocus='alert(1)' autofocus='",
    "</title></style></head><script src=//evil.example></script>",
    "--><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }}{% raw %}{# no #}",
    "&lt;b&gt; &#34; &amp",
    "a/" * 2000 + "b.jpg",
    "one\ntwo\ttabs",
    "صور/مبنى قديم.jpg",
    "",
    "  ",
]


@dataclass
class Node:
    """An element: enough of a DOM to ask what a browser would see."""

    tag: str
    attrs: dict[str, str | None] = field(default_factory=dict)
    children: list["Node | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    @property
    def classes(self) -> list[str]:
        return (self.attrs.get("class") or "").split()

    def all(self, tag: str | None = None, css_class: str | None = None) -> list["Node"]:
        found = []
        for child in self.children:
            if isinstance(child, str):
                continue
            if tag in (None, child.tag) and css_class in (None, *child.classes):
                found.append(child)
            found += child.all(tag, css_class)
        return found

    def one(self, tag: str | None = None, css_class: str | None = None) -> "Node":
        (node,) = self.all(tag, css_class)
        return node

    def by_id(self, name: str) -> "Node":
        (node,) = (node for node in self.all() if node.attrs.get("id") == name)
        return node


class TreeBuilder(HTMLParser):
    """Parses strictly: every element is closed, in the right order, and no attribute is doubled."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("document")]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parse(html: str) -> Node:
    builder = TreeBuilder()
    builder.feed(html)
    builder.close()
    (document,) = builder.open
    return document


def data_uri(number: int) -> str:
    return f"data:image/webp;base64,{number:06d}AA=="


METRICS = {
    "top_10": 1.0,
    "top_1": 0.5,
    "top_3": 0.75,
    "map": 0.4321,
    "num_queries": 3,
    "num_queries_without_match": 1,
    "num_queries_unlabelled": 1,
    "num_gallery": 12_000,
    "with_match_only": {"top_1": 2 / 3, "top_3": 1.0, "top_10": 1.0, "map": 0.5},
    "per_class": [
        {"label": "tower", "num_queries": 2, "num_gallery": 4, "top_1": 1.0, "map": 0.9},
        {"label": "absent", "num_queries": 0, "num_gallery": 7, "top_1": None, "map": None},
        {"label": "bridge", "num_queries": 1, "num_gallery": 5, "top_1": 0.0, "map": 0.2},
        {"label": "arch", "num_queries": 1, "num_gallery": 5, "top_1": 0.0, "map": 0.1},
    ],
}


def neighbours(*labels: str | None) -> list[Neighbour]:
    return [Neighbour(f"g{rank}.jpg", label, 1 - rank / 10) for rank, label in enumerate(labels, 1)]


RESULTS = [
    QueryResult("hit.jpg", "tower", neighbours("tower", "bridge", None)),
    QueryResult("late.jpg", "tower", neighbours("bridge", None, "tower")),
    QueryResult("lost.jpg", "bridge", neighbours("tower", "tower", "arch")),
    QueryResult("open.jpg", None, neighbours("tower", None, "arch")),
    QueryResult("distractor-first.jpg", "arch", neighbours(None, "arch", "arch")),
    QueryResult("nothing.jpg", "arch", []),
]
PAGE = Page(
    title="Buildings",
    facts=[("gallery", "index, version 41"), ("model", "resnet18")],
    metrics=METRICS,
    results=RESULTS,
    metric_name="cosine",
    notes=["Untrained features."],
)


def render(page: Page, thumbnails=None) -> str:
    output = io.BytesIO()
    num_bytes = write_page(page, thumbnails or {}, output)
    assert num_bytes == len(output.getvalue())
    return output.getvalue().decode("utf-8")


def build(page: Page, thumbnails=None) -> Node:
    return parse(render(page, thumbnails))


def with_results(*results: QueryResult, **changes) -> Page:
    return replace(PAGE, results=results, metrics=None, **changes)


def query_row(document: Node, query_id: str) -> Node:
    (row,) = (r for r in document.all("article") if r.one("h4").attrs["title"] == query_id)
    return row


def tiles(row: Node) -> list[Node]:
    return row.one("ol").all("li")


# ---- rows


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


# ---- classes


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


# ---- numbers


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


# ---- thumbnails in the page


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


# ---- what users name is harmless


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
    text = (Path(retrieval.report.page.__file__).parent / file).read_text(encoding="utf-8")

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


# ---- make_thumbnail


def photo(width: int, height: int, file_format: str = "JPEG", **options) -> bytes:
    """Left half red, right half blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **options)
    return file.getvalue()


def decode(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(body, validate=True)))


def colour(image: Image.Image, x: float, y: float) -> str:
    red, _, blue = image.convert("RGB").getpixel((int(x * image.width), int(y * image.height)))
    return "red" if red > blue else "blue"


@pytest.mark.parametrize(
    ("size", "expected"), [(50, (50, 25)), (64, (64, 32)), (400, (400, 200)), (999, (400, 200))]
)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_the_longest_side_has_the_size_and_small_photos_are_not_enlarged(
    size, expected, file_format
):
    image = decode(make_thumbnail(photo(400, 200, file_format), size=size))

    assert image.format == "WEBP"
    assert image.size == expected
    assert (colour(image, 0.1, 0.5), colour(image, 0.9, 0.5)) == ("red", "blue")


@pytest.mark.parametrize(
    ("orientation", "size", "red_at"),
    [
        (1, (60, 30), (0.1, 0.5)),
        (2, (60, 30), (0.9, 0.5)),
        (3, (60, 30), (0.9, 0.5)),
        (4, (60, 30), (0.1, 0.5)),
        (5, (30, 60), (0.5, 0.1)),
        (6, (30, 60), (0.5, 0.1)),
        (7, (30, 60), (0.5, 0.9)),
        (8, (30, 60), (0.5, 0.9)),
    ],
)
def test_thumbnails_are_upright(orientation, size, red_at):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(make_thumbnail(photo(240, 120, exif=exif), size=60))

    assert image.size == size
    x, y = red_at
    assert (colour(image, x, y), colour(image, 1 - x, 1 - y)) == ("red", "blue")


def test_thumbnails_carry_no_metadata():
    exif = Image.Exif()
    exif[0x010F] = "camera maker"
    data = photo(100, 100, exif=exif, icc_profile=b"profile" * 500, comment=b"at home")
    image = decode(make_thumbnail(data, size=50))

    assert set(image.info) <= {"loop", "background", "timestamp", "duration"}
    assert len(make_thumbnail(data, size=50)) < 1000


def test_a_very_thin_photo_keeps_a_pixel():
    assert decode(make_thumbnail(photo(2000, 2), size=64)).size == (64, 1)


@pytest.mark.parametrize("data", [b"", b"no photo", photo(300, 300)[:700]], ids=len)
def test_a_broken_photo_is_an_image_error(data):
    with pytest.raises(ImageError):
        make_thumbnail(data, size=64)


def test_a_thumbnail_fits_into_the_page():
    html = render(PAGE, {"q:hit.jpg": make_thumbnail(photo(300, 200), size=64)})

    assert len(re.findall(r"\{background-image:url\(data:image/webp;base64,", html)) == 1


def test_thumbnails_get_smaller_when_there_are_many():
    sizes = [thumbnail_size(num) for num in range(0, 60_000, 500)]

    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (256, 64)
    assert thumbnail_size(12_000) == 112


# ---- a real browser

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome here")
def test_a_browser_shows_all_rows_and_has_no_complaint(tmp_path):
    uri = make_thumbnail(photo(300, 200), size=64)
    results = [QueryResult(text, text, RESULTS[0].neighbours) for text in HOSTILE] + RESULTS
    file = tmp_path / "page.html"
    with file.open("wb") as output:
        write_page(replace(PAGE, results=results), {"q:hit.jpg": uri, "g:g1.jpg": uri}, output)

    process = subprocess.run(
        [
            BROWSER,
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update"),
            f"--user-data-dir={tmp_path / 'profile'}",
            *("--enable-logging=stderr", "--v=0", "--dump-dom", file.as_uri()),
        ],
        capture_output=True,
        encoding="utf-8",
        errors="replace",  # log lines may be cut anywhere
        timeout=120,
        check=True,
    )

    assert process.stdout.count("<article ") == len(results)
    assert process.stdout.count("<li class=") == 3 + sum(len(r.neighbours) for r in results)
    assert "<script" not in process.stdout
    assert "CONSOLE" not in process.stderr  # where refusals of the policy are told
