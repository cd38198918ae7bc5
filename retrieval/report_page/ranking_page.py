"""A ranking → its page: figures on top, then each query with what was found for it.

The indexes of the two sides are read at the versions that were ranked, and of the photos those
that the page shows. A photo that cannot be read is a grey tile.
"""

from __future__ import annotations

import io
import itertools
import operator
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.errors import ImageError, StorageError, UsageError
from retrieval.evaluation import Evaluation, evaluate, read_photos
from retrieval.images.fetch import fetch_photo
from retrieval.models.own_networks import is_own
from retrieval.parameters import named
from retrieval.progress import QUIET, Progress
from retrieval.ranking.files import Ranking, open_ranking, read_parts
from retrieval.report_page.page import MAX_SHOWN, Neighbour, Page, QueryResult, write_page
from retrieval.report_page.thumbnails import make_thumbnail, thumbnail_size
from retrieval.storage import (
    absolute_uri,
    check_apart,
    entry_at,
    first_line,
    open_input,
    write_bytes,
)

__all__ = ["WrittenReport", "check_output", "write_report"]

_TITLE = "Retrieval report"
_HEAD_BYTES = 2**16  # of a page, with its title
_SIDES = ("queries", "gallery")


@dataclass(frozen=True)
class WrittenReport:
    """A page that was written.

    Attributes:
        report: Where it is.
        size_bytes: Its size.
        num_queries: Queries on it.
        num_photos: Photos that it shows, each counted once.
        num_photos_unreadable: Of these, those that could not be read.
    """

    report: str
    size_bytes: int
    num_queries: int
    num_photos: int
    num_photos_unreadable: int

    def to_json(self) -> dict[str, Any]:
        """The attributes by their names."""
        return asdict(self)


def write_report(
    ranking: Ranking | str,
    output: str,
    *,
    queries: str | pa.Table | None = None,
    gallery: str | pa.Table | None = None,
    max_queries: int = 2000,
    progress: Progress = QUIET,
) -> WrittenReport:
    """Write one self-contained HTML file about a ranking, whole or not at all.

    Args:
        ranking: A finished ranking, or its folder.
        output: The HTML file.
        queries: Index of the queries, by default where it was when it was ranked; or a table with
            image_id, label and uri of all of them.
        gallery: The same of the gallery.
        max_queries: Queries on the page; of more, evenly many are left out. The figures are
            those of all.
        progress: Says how many thumbnails are made.

    Raises:
        UsageError: `output` is not the name of an HTML file, or lies within what is read.
        StorageError: something else is at `output`; the ranking or an index is not there.
        MismatchError: an index does not hold what was ranked.
        IndexFormatError: a file is damaged.

    Cost: reads the ranking once or twice, and the photos that are shown, in as many threads as
        there are cores. Memory holds the thumbnails once: about 40 MB for 2,000 queries with
        10,000 photos.
    """
    check_output(output)
    if isinstance(ranking, str):
        ranking = open_ranking(ranking)
    given = {"queries": queries, "gallery": gallery}
    check_apart(
        {"the ranking": ranking.uri or None, **_places(ranking, given)}, {"the page": output}
    )
    tables = {
        side: each
        if isinstance(each, pa.Table)
        else read_photos(each or ranking.facts[side]["uri"], ranking, side)
        for side, each in given.items()
    }
    photos = {side: _Photos(table) for side, table in tables.items()}
    figures = _figures(ranking, tables)
    results = list(_results(ranking, photos, max_queries))
    thumbnails = _thumbnails(results, photos, progress)
    page = Page(
        title=_TITLE,
        facts=_facts(ranking, len(results)),
        metrics=None if figures is None else figures.to_json(),
        results=results,
        metric_name=ranking.facts["metric"],
        notes=_notes(ranking, figures),
    )
    buffer = io.BytesIO()
    size_bytes = write_page(page, thumbnails, buffer)
    write_bytes(absolute_uri(output), buffer.getbuffer())
    shown = {key for result in results for key in _keys(result)}
    return WrittenReport(
        report=absolute_uri(output),
        size_bytes=size_bytes,
        num_queries=len(results),
        num_photos=len(shown),
        num_photos_unreadable=len(shown) - len(thumbnails),
    )


def _places(ranking: Ranking, given: Mapping[str, str | pa.Table | None]) -> dict[str, str | None]:
    """What is read of the two sides, by what a message calls it."""
    names = {"queries": "the queries' index", "gallery": "the gallery's index"}
    there = {side: each for side, each in given.items() if not isinstance(each, pa.Table)}
    ranked = {f"the {side}": ranking.facts[side]["uri"] for side in there}
    return {**ranked, **{names[side]: each for side, each in there.items()}}


def check_output(output: str) -> None:
    """Refuse a place that is not for a page.

    Raises:
        UsageError: its name is not that of an HTML file.
        StorageError: something else than an earlier page is there, or a link.
    """
    if not output.endswith((".html", ".htm")):
        raise UsageError(f"{output}: the page is an HTML file. Give it a name that ends in .html")
    entry = entry_at(output)
    if entry and not (entry.kind == "file" and _is_page(output)):
        raise StorageError(
            f"{absolute_uri(output)}: is no page that report has written, and would be replaced. "
            f"Choose another name, or move it elsewhere."
        )


def _is_page(uri: str) -> bool:
    try:
        with open_input(uri) as stream:
            return f"<title>{_TITLE}</title>".encode() in stream.read(_HEAD_BYTES)
    except OSError as error:
        raise StorageError(f"{uri}: cannot be read ({first_line(error)}).") from error


class _Photos:
    """Label and address of each photo of one side, by id."""

    def __init__(self, table: pa.Table) -> None:
        ids = table["image_id"].to_pylist()
        self.labels: Mapping[str, str | None] = dict(
            zip(ids, table["label"].to_pylist(), strict=True)
        )
        self.uris: Mapping[str, str | None] = dict(zip(ids, table["uri"].to_pylist(), strict=True))


def _figures(ranking: Ranking, tables: Mapping[str, pa.Table]) -> Evaluation | None:
    """The figures, or None without labels."""
    if tables["queries"]["label"].null_count == tables["queries"].num_rows:
        return None
    return evaluate(ranking, tables["queries"], tables["gallery"])


def _results(
    ranking: Ranking, photos: Mapping[str, _Photos], max_queries: int
) -> Iterator[QueryResult]:
    """The queries of the page with their first neighbours, in the order of the ranking."""
    num_queries = int(ranking.facts["num_queries"])
    chosen = set(np.linspace(0, num_queries - 1, min(num_queries, max_queries)).round().astype(int))
    queries = (query for part in read_parts(ranking) for query in _by_query(part))
    for number, (query_id, rows) in enumerate(queries):
        if number in chosen:
            labels = photos["gallery"].labels
            found = [Neighbour(row[1], labels.get(row[1]), row[2]) for row in rows]
            yield QueryResult(query_id, photos["queries"].labels.get(query_id), found)


def _by_query(part: pa.Table) -> Iterator[tuple[str, list[tuple[str, str, float]]]]:
    """Each query of a part with its first rows (query id, gallery id, score), in rank order."""
    part = part.filter(pc.less_equal(part["rank"], MAX_SHOWN))
    columns = (part[name].to_pylist() for name in ("query_id", "gallery_id", "score"))
    rows = zip(*columns, strict=True)
    for query_id, group in itertools.groupby(rows, key=operator.itemgetter(0)):
        yield query_id, list(group)


def _keys(result: QueryResult) -> list[str]:
    return [f"q:{result.query_id}", *(f"g:{found.gallery_id}" for found in result.neighbours)]


def _thumbnails(
    results: list[QueryResult], photos: Mapping[str, _Photos], progress: Progress
) -> dict[str, str]:
    """A thumbnail of each photo on the page that can be read, each made once."""
    keys = sorted({key for result in results for key in _keys(result)})
    size = thumbnail_size(len(keys))

    def make(key: str) -> str | None:
        side = photos["queries" if key.startswith("q:") else "gallery"]
        uri = side.uris.get(key[2:])
        content = fetch_photo(uri) if uri else None
        if content is None or isinstance(content, ImageError):
            return None
        try:
            return make_thumbnail(content, size=size)
        except ImageError:
            return None

    made: dict[str, str] = {}
    num_done = 0
    with (
        ThreadPoolExecutor(os.cpu_count()) as threads,  # decoding releases Python's lock
        progress.line("made", "thumbnails", len(keys), lambda: num_done),
    ):
        for key, thumbnail in zip(keys, threads.map(make, keys), strict=True):
            num_done += 1
            if thumbnail:
                made[key] = thumbnail
    return made


def _facts(ranking: Ranking, num_shown: int) -> list[tuple[str, str]]:
    facts = ranking.facts
    return [
        ("Queries", _side(facts["queries"])),
        ("Gallery", _side(facts["gallery"])),
        ("Model", _model(facts["gallery"])),
        ("Metric", facts["metric"]),
        ("Listed per query", str(facts["top_k"])),
        ("Queries shown", f"{num_shown} of {facts['num_queries']}"),
        ("Ranked", facts["created_at"]),
    ]


def _side(side: Mapping[str, Any]) -> str:
    version = "" if side["version"] is None else f", version {side['version']}"
    return f"{side['num_rows']} images, {side['uri']}{version}"


def _model(side: Mapping[str, Any]) -> str:
    spec = side["spec"]
    if spec is None:
        return f"unknown, {side['dim']} dimensions"
    # A function of one's own brings its weights itself: "none" is no word on them.
    is_complete = is_own(spec["backbone"]) and spec["weights"] == "none"
    weights = "its own weights" if is_complete else f"weights {spec['weights']}"
    return (
        f"{spec['backbone']}, {weights}, {spec['dim']} dimensions, "
        f"fingerprint {spec['fingerprint'][:12]}"
    )


def _notes(ranking: Ranking, figures: Evaluation | None) -> list[str]:
    notes = []
    spec = ranking.facts["gallery"]["spec"]
    if spec and spec["weights"] == "none" and not is_own(spec["backbone"]):
        untrained = (
            "Untrained features: the network has random weights (`weights` none), which tell "
            "photos apart by colour and texture at best. Expect weak figures."
        )
        notes.append(named(untrained))
    if figures is None:
        notes.append("The queries have no labels: nothing can be measured.")
    elif figures.map_is_lower_bound:
        notes.append(
            f"mAP is a lower bound: the ranking lists {ranking.facts['top_k']} images a query, "
            f"and relevant ones further down count as never found."
        )
    return notes
