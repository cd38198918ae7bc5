"""One HTML page of a ranking: figures on top, then each query with what was found for it.

Reads       a ranking, the indexes of its two sides, and the photos that the page shows.
Writes      one self-contained HTML file, whole or not at all.
Resources   one process, without Ray; threads decode. Memory holds the thumbnails once (about
            40 MB for 2,000 queries with 10,000 photos).
Fails when  the ranking or an index cannot be read. A photo that cannot be read is a grey tile.
"""

from __future__ import annotations

import io
import itertools
import operator
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.progress import progress_line
from retrieval.errors import ImageError, StorageError, UsageError
from retrieval.evaluation.figures import evaluate, read_photos
from retrieval.images.fetch import fetch_photo
from retrieval.models.own_networks import is_own
from retrieval.parameters import named
from retrieval.ranking.files import Ranking, open_ranking, read_parts
from retrieval.report import (
    Neighbour,
    Page,
    QueryResult,
    make_thumbnail,
    thumbnail_size,
    write_page,
)
from retrieval.storage import (
    absolute_uri,
    check_apart,
    entry_at,
    first_line,
    open_input,
    write_bytes,
)

__all__ = ["check_output", "run"]

_TITLE = "Retrieval report"
_HEAD_BYTES = 2**16  # of a page, with its title
_SIDES = ("queries", "gallery")
MAX_SHOWN = 20  # neighbours of a query on the page


def run(
    ranking: str,
    output: str,
    *,
    queries: str | None = None,
    gallery: str | None = None,
    max_queries: int = 2000,
) -> dict[str, Any]:
    """Write the page.

    Args:
        ranking: Folder of a finished ranking.
        output: The HTML file.
        queries: Index of the queries; by default where it was when it was ranked.
        gallery: Index of the gallery; likewise.
        max_queries: Queries on the page; of more, evenly many are left out. The figures are
            those of all.

    Returns:
        The report: the page, its size, counts.
    """
    check_output(output)
    opened = open_ranking(ranking)
    ranked = {f"the {side}": opened.facts[side]["uri"] for side in _SIDES}
    named = {"the queries' index": queries, "the gallery's index": gallery}
    check_apart({"the ranking": ranking, **ranked, **named}, {"the page": output})
    tables = {
        side: read_photos(named or opened.facts[side]["uri"], opened, side)
        for side, named in zip(_SIDES, (queries, gallery), strict=True)
    }
    photos = {side: _Photos(table) for side, table in tables.items()}
    metrics = _metrics(opened, tables)
    results = list(_results(opened, photos, max_queries))
    thumbnails = _thumbnails(results, photos)
    page = Page(
        title=_TITLE,
        facts=_facts(opened, len(results)),
        metrics=metrics,
        results=results,
        metric_name=opened.facts["metric"],
        notes=_notes(opened, metrics),
    )
    buffer = io.BytesIO()
    size_bytes = write_page(page, thumbnails, buffer)
    write_bytes(absolute_uri(output), buffer.getbuffer())
    shown = {key for result in results for key in _keys(result)}
    return {
        "report": absolute_uri(output),
        "size_bytes": size_bytes,
        "num_queries": len(results),
        "num_photos": len(shown),
        "num_photos_unreadable": len(shown) - len(thumbnails),
    }


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


def _metrics(ranking: Ranking, tables: Mapping[str, pa.Table]) -> dict[str, Any] | None:
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


def _thumbnails(results: list[QueryResult], photos: Mapping[str, _Photos]) -> dict[str, str]:
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
        progress_line("made", "thumbnails", len(keys), lambda: num_done),
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


def _notes(ranking: Ranking, metrics: Mapping[str, Any] | None) -> list[str]:
    notes = []
    spec = ranking.facts["gallery"]["spec"]
    if spec and spec["weights"] == "none" and not is_own(spec["backbone"]):
        untrained = (
            "Untrained features: the network has random weights (`weights` none), which tell "
            "photos apart by colour and texture at best. Expect weak figures."
        )
        notes.append(named(untrained))
    if metrics is None:
        notes.append("The queries have no labels: nothing can be measured.")
    elif metrics["map_is_lower_bound"]:
        notes.append(
            f"mAP is a lower bound: the ranking lists {ranking.facts['top_k']} images a query, "
            f"and relevant ones further down count as never found."
        )
    return notes
