"""A ranking and the labels of both sides → the figures of `metrics`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError, MismatchError, UsageError
from retrieval.evaluation.metrics import QueryScores, score_queries, summarise
from retrieval.gallery.labels import as_labels
from retrieval.index import open_index
from retrieval.index.reading import read_columns
from retrieval.index.table import newest_version
from retrieval.ranking.files import Ranking, read_parts
from retrieval.ranking.sides import ids_sum, misfit, open_ranked
from retrieval.storage import (
    check_inflation,
    first_line,
    is_no_answer,
    not_read,
    open_input,
    parquet_file,
)
from retrieval.storage.text_columns import as_text
from retrieval.vectors import VectorSource
from retrieval.vectors.ids import id_text

__all__ = ["DEFAULT_KS", "evaluate", "read_photos"]

DEFAULT_KS = (1, 3, 10)
_PHOTOS = pa.schema([(name, pa.string()) for name in ("image_id", "label", "uri")])


def read_photos(uri: str, ranking: Ranking, side: str) -> pa.Table:
    """Ids, labels and addresses of the photos of one side of a ranking.

    Args:
        uri: An index, by any spelling of its place, or other tools' Parquet. Of an index the
            version that was ranked is read; INDEX@12 must be that one.
        ranking: The ranking.
        side: "queries" or "gallery".

    Returns:
        Columns image_id, label and uri, all string; label and uri null where unknown.

    Raises:
        MismatchError: what is there is not what was ranked.
        StorageError, IndexFormatError: nothing is there, or it cannot be read.
    """
    source = open_ranked(uri, ranking, side)
    ranked = ranking.facts.get(side) or {}
    if ranked.get("num_rows") not in (None, source.num_rows):
        raise misfit(ranking, side, f"{uri} holds {source.num_rows} rows")
    photos = _read_index(source) if source.spec else _read_files(source)
    # An index of an earlier release may hold "" where a photo has no label.
    photos = photos.set_column(1, "label", as_labels(photos["label"]))
    known = (ranking.facts.get("ids_sum") or {}).get(side)
    if known is not None and known != ids_sum(_as_text(photos["image_id"], uri)):
        raise misfit(ranking, side, f"{uri} holds as many rows of other ids")
    return photos


def _as_text(ids: pa.ChunkedArray, where: str) -> Iterator[pa.Array]:
    return (id_text(chunk, where, 0) for chunk in ids.chunks)


def _read_index(source: VectorSource) -> pa.Table:
    index = open_index(source.uri, source.version)
    try:
        return read_columns(index, ["image_id", "label", "uri"])
    except IndexFormatError as error:
        if index.version == newest_version(index.uri):
            raise
        raise IndexFormatError(
            f"{index.uri}: version {index.version}, which was ranked, can no longer be read, as "
            f"after a vacuum. Rank again."
        ) from error


def _read_files(source: VectorSource) -> pa.Table:
    names = [file.ids_uri or file.uri for file in source.files]
    return pa.concat_tables([_read_foreign(name, source.id_column) for name in names])


def _read_foreign(uri: str, id_column: str) -> pa.Table:
    try:
        with open_input(uri) as stream, parquet_file(stream) as file:
            if not file.metadata.num_rows:  # whatever the types of its columns
                return _PHOTOS.empty_table()
            names = file.schema_arrow.names
            there = [name for name in ("label", "uri") if name in names]
            check_inflation(file, [id_column, *there], stream.size())
            table = file.read(columns=[id_column, *there])
        nothing = pa.nulls(table.num_rows, pa.string())
        return pa.table(
            [
                as_text(table[id_column]).cast(pa.string()),
                as_labels(table["label"]) if "label" in there else nothing,
                as_text(table["uri"]).cast(pa.string()) if "uri" in there else nothing,
            ],
            schema=_PHOTOS,
        )
    except (OSError, pa.ArrowException, KeyError) as error:
        if is_no_answer(error):
            raise not_read(uri, error) from error
        raise IndexFormatError(
            f"{uri}: its ids and labels cannot be read as text ({first_line(error)})."
        ) from error


def evaluate(
    ranking: Ranking, queries: pa.Table, gallery: pa.Table, ks: Sequence[int] | None = None
) -> dict[str, Any]:
    """Measure a ranking against labels.

    Args:
        ranking: A finished ranking.
        queries: Columns image_id and label of all ranked queries, at least.
        gallery: The same of the gallery.
        ks: Which k to report; 1, 3 and 10 by default, as far as the ranking goes.

    Returns:
        `top_1`, `top_3`, `top_10`, `map`, `map_at_K`, `precision_at_K` over all labelled
        queries (one without any match counts as missed); the same under `with_match_only`
        without those; counts; and `per_class`, one entry a label, sorted by label.

    Raises:
        UsageError: no query has a label, or a k is beyond what the ranking lists.
        MismatchError: the ranking names images that the labels do not know.
        IndexFormatError: a gallery image has two labels.

    Cost: reads the ranking once, part by part; ids and labels of both sides are in memory.
    """
    depth = int(ranking.facts["top_k"])
    complete = bool(ranking.facts["is_complete"])
    ks = _check_ks(ks, depth, complete)
    judge = _Judge(queries, gallery, exclude_self=bool(ranking.facts["exclude_self"]))
    names, scores = [], []
    for part in read_parts(ranking, ["query_id", "rank", "gallery_id"]):
        ids, hits = judge.hits(part)
        names.append(ids)
        scores.append(score_queries(hits, judge.num_relevant(ids), ks))
    return judge.report(np.concatenate(names), QueryScores.concatenate(scores), depth, complete)


def _check_ks(ks: Sequence[int] | None, depth: int, complete: bool) -> list[int]:
    if ks is None:
        return [k for k in DEFAULT_KS if complete or k <= depth]
    wrong = [k for k in ks if k < 1 or (k > depth and not complete)]
    if wrong:
        raise UsageError(
            f"`ks` {wrong[0]}: the ranking lists {depth} images a query. "
            f"Use 1 to {depth}, or rank again with a larger `top_k`."
        )
    return sorted(set(ks))


class _Judge:
    """Labels of both sides as numbers; equal numbers are equal labels, -1 is none."""

    def __init__(self, queries: pa.Table, gallery: pa.Table, *, exclude_self: bool) -> None:
        labels = [as_labels(side["label"]) for side in (queries, gallery)]
        chunks = [chunk for side in labels for chunk in side.chunks]
        self._names = pc.unique(pa.chunked_array(chunks, pa.string()).drop_null())
        self._query_ids = queries["image_id"].combine_chunks()
        self._gallery_ids = gallery["image_id"].combine_chunks()
        self._query_labels, self._gallery_labels = map(self._codes, labels)
        if not (self._query_labels >= 0).any():
            raise UsageError(
                f"None of the {len(self._query_ids)} queries has a label, so there is nothing to "
                f"measure. Embed them again with `labels`."
            )
        known = self._gallery_labels[self._gallery_labels >= 0]
        self._class_sizes = np.bincount(known, minlength=len(self._names))
        self._num_copies = self._count_copies()
        self._exclude_self = exclude_self

    def _codes(self, labels: pa.ChunkedArray) -> NDArray[np.int64]:
        codes = pc.index_in(labels, value_set=self._names, skip_nulls=True)
        return np.asarray(pc.fill_null(codes, -1).combine_chunks(), np.int64)

    def _count_copies(self) -> NDArray[np.int64]:
        """At the first row of each gallery id, how many rows have it: other tools' may repeat."""
        first = self._rows(self._gallery_ids, self._gallery_ids, "gallery")
        torn = np.flatnonzero(self._gallery_labels != self._gallery_labels[first])
        if torn.size:
            raise IndexFormatError(
                f"The gallery holds {self._gallery_ids[int(torn[0])].as_py()!r} more than once, "
                f"with different labels. Give each image one label."
            )
        return np.bincount(first, minlength=len(first))

    def _rows(self, ids: pa.Array, known: pa.Array, side: str) -> NDArray[np.int64]:
        """Row of each id among those of a side."""
        rows = pc.index_in(ids, value_set=known)
        if rows.null_count:
            strange = ids.filter(pc.is_null(rows))[0].as_py()
            raise MismatchError(
                f"The ranking names {strange!r}, which is not among the {side}. "
                "Name the index that was ranked."
            )
        return np.asarray(rows, np.int64)

    def hits(self, part: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Rows of a part's queries, and bool (Q, K) whether the image at a rank is relevant."""
        part = part.combine_chunks()
        query_rows = self._rows(part["query_id"].combine_chunks(), self._query_ids, "queries")
        found = self._rows(part["gallery_id"].combine_chunks(), self._gallery_ids, "gallery")
        wanted, got = self._query_labels[query_rows], self._gallery_labels[found]
        starts = np.flatnonzero(np.diff(query_rows, prepend=-1))
        ranks = part["rank"].to_numpy()
        numbers = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(query_rows)))
        hits = np.zeros((len(starts), int(ranks.max(initial=1))), np.bool_)
        hits[numbers, ranks - 1] = (wanted == got) & (wanted >= 0)
        return query_rows[starts], hits

    def num_relevant(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Relevant gallery images of some queries."""
        labels = self._query_labels[rows]
        sizes = np.where(labels >= 0, self._class_sizes[labels], 0)
        if self._exclude_self:
            itself = pc.index_in(self._query_ids.take(pa.array(rows)), value_set=self._gallery_ids)
            place = np.asarray(pc.fill_null(itself, -1), np.int64)
            is_listed = (place >= 0) & (labels >= 0)
            is_own = is_listed & (self._gallery_labels[place] == labels)
            sizes = sizes - is_own * self._num_copies[place]
        return sizes

    def report(
        self, rows: NDArray[np.int64], scores: QueryScores, depth: int, complete: bool
    ) -> dict[str, Any]:
        """All figures."""
        labels = self._query_labels[rows]
        labelled, scores = labels[labels >= 0], scores.take(labels >= 0)
        has_match = scores.num_relevant > 0
        names = self._names.to_pylist()
        present = sorted(np.unique(labelled), key=lambda code: names[code])
        return {
            **summarise(scores),
            "num_queries": len(labelled),
            "num_queries_without_match": int((~has_match).sum()),
            "num_queries_unlabelled": int((labels < 0).sum()),
            "num_gallery": len(self._gallery_ids),
            "num_distractors": int((~np.isin(self._gallery_labels, labelled)).sum()),
            "depth": depth,
            # A ranking that stops early counts what it does not list as never found.
            "map_is_lower_bound": not complete,
            "with_match_only": summarise(scores.take(has_match)),
            "per_class": [
                self._class(names[code], labelled == code, int(self._class_sizes[code]), scores)
                for code in present
            ],
        }

    @staticmethod
    def _class(
        name: str, mask: NDArray[np.bool_], num_gallery: int, scores: QueryScores
    ) -> Mapping[str, Any]:
        figures = summarise(scores.take(mask))
        return {
            "label": name,
            "num_queries": int(mask.sum()),
            "num_gallery": num_gallery,
            **figures,
        }
