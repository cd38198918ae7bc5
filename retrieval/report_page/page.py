"""The page's content as values, and how it is written.

Everything that users name (ids, labels, facts) goes through Jinja2's autoescape; the page's policy
forbids scripts and every address but `data:`. Each photo stands once in the page, as a CSS class,
however often it is shown.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, BinaryIO

import jinja2

__all__ = ["MAX_SHOWN", "Neighbour", "Page", "QueryResult", "write_page"]

MAX_SHOWN = 20  # two lines of ten; nobody compares more by eye

# What may stand inside url(...) without quotes; any other text could leave the style sheet.
DATA_URI = re.compile(r"data:image/(?:webp|jpeg|png);base64,[A-Za-z0-9+/]+={0,2}")

# HTML has no control characters: show the pictures of them (␀, ␛), keep tab and line ends.
CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n\r"}
CONTROLS |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
# Right-to-left text needs none of these; a name like "gpj.exe" turned round does.
CONTROLS |= dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD)

SAME, OTHER, UNKNOWN = "same", "other", "unknown"  # also the CSS classes of the frames


@dataclass(frozen=True)
class Neighbour:
    """One gallery photo found for a query; `label` is None where it is not known."""

    gallery_id: str
    label: str | None
    score: float


@dataclass(frozen=True)
class QueryResult:
    """A query and what was found for it, in rank order."""

    query_id: str
    label: str | None
    neighbours: Sequence[Neighbour]


@dataclass(frozen=True)
class Page:
    """All that the page says.

    Attributes:
        title: Heading and window title.
        facts: Name and value pairs at the top: versions, model, date.
        metrics: None without labels. Fractions in [0, 1] under `top_1`, `top_3` (any `top_N`) and
            `map`; counts under `num_queries`, `num_gallery`, `num_queries_without_match`,
            `num_queries_unlabelled` and, where the caller knows it, `num_rejected`;
            `with_match_only`, the same over queries that have a match at all; `per_class`, one
            mapping a class, with its `label`. None means not defined and is shown as "–";
            a key that is missing is left out.
        results: One entry a query. Ids, labels and scores are taken into memory.
        metric_name: What the scores are: "cosine", "l2".
        notes: Honest remarks, shown under the numbers.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    metrics: Mapping[str, object] | None
    results: Iterable[QueryResult]
    metric_name: str
    notes: Sequence[str]


@dataclass(frozen=True)
class _Row:
    """A query as it is shown: its neighbours, each with its frame."""

    number: int
    query: QueryResult
    tiles: Sequence[tuple[Neighbour, str]]
    num_same: int
    first_match: int | None

    @property
    def kind(self) -> str:
        """CSS classes that the filter works on; a query without label is neither hit nor miss."""
        if self.query.label is None:
            return "open"
        if self.first_match is None:
            return "miss lost"
        return "hit" if self.first_match == 1 else "miss"


@dataclass(frozen=True)
class _Class:
    """The queries of one label, and what the metrics say about it (None: nothing)."""

    anchor: str
    label: str | None
    measured: Mapping[str, Any] | None
    rows: Sequence[_Row]

    @property
    def kinds(self) -> str:
        """CSS classes of its rows, so that the filter can hide a heading that has none left."""
        return " ".join(sorted({f"has-{kind}" for row in self.rows for kind in row.kind.split()}))


def write_page(page: Page, thumbnails: Mapping[str, str], output: BinaryIO) -> int:
    """Write the page as one HTML file that needs no other.

    Rows are rendered and written one by one; the thumbnails are held once, by the caller.

    Args:
        page: What to show. Of more than 20 neighbours the first 20 are shown, and the facts say so.
        thumbnails: "q:" + query id or "g:" + gallery id → data URI, as `make_thumbnail` gives it.
            A photo that is missing becomes a tile "photo not readable".
        output: Takes UTF-8. It is written in pieces and not closed.

    Returns:
        Bytes written.

    Raises:
        ValueError: A thumbnail is not a data URI of a WebP, JPEG or PNG.
        TypeError: A metric is neither a number nor None.

    Cost: time and bytes linear in the neighbours shown and in the distinct thumbnails.
    """
    metrics: Mapping[str, Any] = page.metrics or {}
    results = list(page.results)
    rows = [_row(number, query) for number, query in enumerate(results, start=1)]
    max_shown = max((len(row.tiles) for row in rows), default=0)
    css_classes, rules = _photos(rows, thumbnails)
    template = _environment().get_template("page.html")
    stream = template.stream(
        page=page,
        facts=[*page.facts, *_cut(results)],
        metrics=metrics,
        tops=_tops(metrics),
        classes=_classes(rows, metrics),
        kinds=Counter(kind for row in rows for kind in row.kind.split()),
        num_rows=len(rows),
        max_shown=max_shown,
        columns=min(max(max_shown, 6), 10),  # few neighbours: larger photos
        first_matches=Counter(row.first_match for row in rows if row.query.label is not None),
        css_classes=css_classes,
        rules=rules,
    )
    stream.enable_buffering(1_000)  # pieces of a few bytes otherwise
    num_bytes = 0
    for piece in stream:
        # File names that are not UTF-8 bring lone surrogates: shown as \udc80, never fatal.
        data = piece.encode("utf-8", errors="backslashreplace")
        output.write(data)
        num_bytes += len(data)
    return num_bytes


def _row(number: int, query: QueryResult) -> _Row:
    shown = list(query.neighbours[:MAX_SHOWN])
    frames = [_frame(query.label, neighbour.label) for neighbour in shown]
    return _Row(
        number=number,
        query=query,
        tiles=list(zip(shown, frames, strict=True)),
        num_same=frames.count(SAME),
        first_match=frames.index(SAME) + 1 if SAME in frames else None,
    )


def _frame(query_label: str | None, label: str | None) -> str:
    if query_label is None or label is None:
        return UNKNOWN
    return SAME if label == query_label else OTHER


def _cut(results: Sequence[QueryResult]) -> list[tuple[str, str]]:
    """The fact that not all neighbours are shown, where it is one."""
    longest = max((len(query.neighbours) for query in results), default=0)
    if longest <= MAX_SHOWN:
        return []
    return [("neighbours shown", f"the first {MAX_SHOWN} of {longest:,}")]


def _photos(
    rows: Sequence[_Row], thumbnails: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Give each distinct thumbnail one CSS class.

    A photo that is both query and gallery has two keys and one text: it shares one class.

    Returns:
        key → CSS class, without the keys that have no thumbnail; CSS class → data URI.
    """
    css_classes: dict[str, str] = {}
    by_uri: dict[str, str] = {}
    for row in rows:
        gallery_keys = ("g:" + neighbour.gallery_id for neighbour, _ in row.tiles)
        for key in ("q:" + row.query.query_id, *gallery_keys):
            if key in css_classes or (uri := thumbnails.get(key)) is None:
                continue
            if uri not in by_uri and not DATA_URI.fullmatch(uri):
                raise ValueError(f"thumbnail of {key!r}: {uri[:40]!r}..., a data URI is needed")
            css_classes[key] = by_uri.setdefault(uri, f"t{len(by_uri)}")
    return css_classes, {name: uri for uri, name in by_uri.items()}


def _classes(rows: Sequence[_Row], metrics: Mapping[str, Any]) -> list[_Class]:
    """Put the queries of each label together: worst class first, queries without label last."""
    measured: dict[str | None, Mapping[str, Any]]
    measured = {entry["label"]: entry for entry in metrics.get("per_class") or ()}
    by_label: dict[str | None, list[_Row]] = {label: [] for label in measured}
    for row in rows:
        by_label.setdefault(row.query.label, []).append(row)
    first_top = next(iter(_tops(metrics)), "")

    def badness(label: str | None) -> tuple[bool, bool, float, float, int]:
        entry = measured.get(label, {})
        values = (_number(entry.get(key)) for key in (first_top, "map"))
        accuracy, precision = (math.inf if value is None else value for value in values)
        return (label is None, not entry, accuracy, precision, -len(by_label[label]))

    return [
        _Class(f"c{place}", label, measured.get(label), by_label[label])
        for place, label in enumerate(sorted(by_label, key=badness))
    ]


def _tops(metrics: Mapping[str, Any]) -> list[str]:
    """The keys "top_1", "top_3", ..., by their number."""
    keys = (key for key in metrics if re.fullmatch(r"top_\d+", key))
    return sorted(keys, key=lambda key: int(key[len("top_") :]))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retrieval", "report_page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (_count, _fraction, _score, _width)
    environment.filters |= {format.__name__[1:]: format for format in formats}
    return environment


def _printable(value: object) -> object:
    return value.translate(CONTROLS) if type(value) is str else value


def _number(value: object) -> float | None:
    """A metric's value; None where it is not defined."""
    if value is None:
        return None
    if not isinstance(value, Real):
        raise TypeError(f"metric {value!r}: a number or None is needed")
    return None if math.isnan(value) else float(value)


def _fraction(value: object) -> str:
    """0.7834 → "78.3%". Only what is complete reads 100.0, only what is nothing reads 0.0."""
    number = _number(value)
    if number is None:
        return "–"
    if 0.9995 <= number < 1:
        return ">99.9%"
    if 0 < number < 0.0005:
        return "<0.1%"
    return f"{100 * number:.1f}%"


def _width(value: object) -> str:
    """0.7834 → "78.34%", the length of a bar."""
    return f"{100 * min(max(_number(value) or 0.0, 0.0), 1.0):.2f}%"


def _count(value: object) -> str:
    """12000 → "12,000"."""
    number = _number(value)
    return "–" if number is None else f"{number:,.0f}"


def _score(value: float) -> str:
    """Four decimals for a cosine; shorter for large distances; never a 0 that is none."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, "–")
    size = abs(value)
    if size >= 1e6 or 0 < size < 0.00005:
        text = f"{value:.2e}"
    else:
        text = f"{value:.4f}" if size < 100 else f"{value:.1f}"
    return text.replace("-", "−")
