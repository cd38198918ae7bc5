"""Pages for the tests of the report, and a strict parser to look at them with."""

import io
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import numpy as np
from PIL import Image

from retrieval.report_page import (
    Neighbour,
    Page,
    QueryResult,
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


def photo(width: int, height: int, file_format: str = "JPEG", **options) -> bytes:
    """Left half red, right half blue."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **options)
    return file.getvalue()
