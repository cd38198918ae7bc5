"""A ranking and the labels of both sides → the figures of `metrics`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError, MismatchError, UsageError
from retrieval.evaluation.metrics import Figures, QueryScores, score_queries, summarise
from retrieval.evaluation.ranked_images import read_photos
from retrieval.gallery.labels import as_labels
from retrieval.ranking.files import Ranking, open_ranking, read_parts

__all__ = ["DEFAULT_KS", "ClassFigures", "Evaluation", "evaluate"]

DEFAULT_KS = (1, 3, 10)


@dataclass(frozen=True, kw_only=True)
class ClassFigures(Figures):
    """The figures of the queries of one label.

    Attributes:
        label: The label.
        num_queries: Queries that have it.
        num_gallery: Gallery images that have it.
    """

    label: str
    num_queries: int
    num_gallery: int

    def to_json(self) -> dict[str, Any]:
        """The label and the counts, then the figures."""
        counts = {"num_queries": self.num_queries, "num_gallery": self.num_gallery}
        return {"label": self.label, **counts, **super().to_json()}


@dataclass(frozen=True, kw_only=True)
class Evaluation(Figures):
    """How good a ranking is, over all labelled queries: one without a match counts as missed.

    Attributes:
        num_queries: Queries with a label.
        num_queries_without_match: Of these, those whose label no gallery image has.
        num_queries_unlabelled: Queries without a label, which count nowhere.
        num_gallery: Gallery images.
        num_distractors: Of these, those that are relevant to no query.
        depth: Images that the ranking lists for each query.
        map_is_lower_bound: Whether the ranking stops before the end of the gallery: what it does
            not list counts as never found.
        with_match_only: The figures of the queries that have a match.
        per_class: Those of each label that a query has, sorted by label.
    """

    num_queries: int
    num_queries_without_match: int
    num_queries_unlabelled: int
    num_gallery: int
    num_distractors: int
    depth: int
    map_is_lower_bound: bool
    with_match_only: Figures
    per_class: tuple[ClassFigures, ...]

    def to_json(self) -> dict[str, Any]:
        """The figures, then the attributes by their names."""
        means = {field.name for field in fields(Figures)}
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            **super().to_json(),
            **{name: value for name, value in own.items() if name not in means},
            "with_match_only": self.with_match_only.to_json(),
            "per_class": [each.to_json() for each in self.per_class],
        }


def evaluate(
    ranking: Ranking | str,
    queries: pa.Table | str,
    gallery: pa.Table | str,
    ks: Sequence[int] | None = None,
) -> Evaluation:
    """Measure a ranking against labels.

    Args:
        ranking: A finished ranking, or its folder.
        queries: The index of the queries, of which the version that was ranked is found, or other
            tools' Parquet (see `read_photos`); or a table with the columns image_id and label of
            all ranked queries, at least.
        gallery: The same of the gallery.
        ks: Which k to report; 1, 3 and 10 by default, as far as the ranking goes.

    Returns:
        Top-k accuracy, mAP and precision over all labelled queries, over those with a match, and
        of each class.

    Raises:
        UsageError: no query has a label, or a k is beyond what the ranking lists.
        MismatchError: a side is not what was ranked, or the ranking names images that the labels
            do not know.
        IndexFormatError: a gallery image has two labels, or a file is damaged.
        StorageError: the ranking or a side is not there.

    Cost: reads the ranking once, part by part; ids and labels of both sides are in memory.
    """
    if isinstance(ranking, str):
        ranking = open_ranking(ranking)
    if isinstance(queries, str):
        queries = read_photos(queries, ranking, "queries")
    if isinstance(gallery, str):
        gallery = read_photos(gallery, ranking, "gallery")
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
    ) -> Evaluation:
        """All figures."""
        labels = self._query_labels[rows]
        labelled, scores = labels[labels >= 0], scores.take(labels >= 0)
        has_match = scores.num_relevant > 0
        names = self._names.to_pylist()
        present = sorted(np.unique(labelled), key=lambda code: names[code])
        return Evaluation(
            **vars(summarise(scores)),
            num_queries=len(labelled),
            num_queries_without_match=int((~has_match).sum()),
            num_queries_unlabelled=int((labels < 0).sum()),
            num_gallery=len(self._gallery_ids),
            num_distractors=int((~np.isin(self._gallery_labels, labelled)).sum()),
            depth=depth,
            # A ranking that stops early counts what it does not list as never found.
            map_is_lower_bound=not complete,
            with_match_only=summarise(scores.take(has_match)),
            per_class=tuple(
                ClassFigures(
                    **vars(summarise(scores.take(labelled == code))),
                    label=names[code],
                    num_queries=int((labelled == code).sum()),
                    num_gallery=int(self._class_sizes[code]),
                )
                for code in present
            ),
        )
