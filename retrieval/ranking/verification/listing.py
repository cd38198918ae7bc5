"""The rows of a ranking, all of them checked for what needs no vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError
from retrieval.ranking.files import Ranking, read_tables
from retrieval.ranking.parts import BROKEN
from retrieval.ranking.verification.differences import counted, wrong_ranking
from retrieval.ranking.verification.ids import IdCounter, find_ids, shown
from retrieval.search.merge import Candidates
from retrieval.search.scores import is_distance
from retrieval.storage import join
from retrieval.storage.text_columns import as_text
from retrieval.vectors import LongIdError, LongIds
from retrieval.vectors.duplicates import hash_ids
from retrieval.vectors.ids import id_text, short_ids

__all__ = ["Listing", "check_counts", "check_repeats", "read_listing"]


@dataclass(frozen=True)
class _Repeats:
    """Gallery ids that one query lists more than once: right if the gallery holds them so often.

    Attributes:
        query: int64 (M,), number of the query in the ranking.
        ranks: int64 (M,), rank of the second row with the id.
        times: int64 (M,), how often it is listed.
        ids: bytes (M,).
    """

    query: NDArray[np.int64]
    ranks: NDArray[np.int64]
    times: NDArray[np.int64]
    ids: NDArray[np.bytes_]


@dataclass(frozen=True)
class Listing:
    """What is remembered of a ranking.

    Attributes:
        uri: The ranking.
        query_ids: bytes (Q,), in its order.
        counts: int64 (Q,), rows of each query.
        sample: The rows of the sampled queries, by their number in the sample.
        repeats: Ids listed more than once for a query, a part each.
    """

    uri: str
    query_ids: NDArray[np.bytes_]
    counts: NDArray[np.int64]
    sample: Candidates
    repeats: Sequence[_Repeats]

    @property
    def repeated_ids(self) -> NDArray[np.bytes_]:
        """Ids whose number in the gallery `check_repeats` needs."""
        return np.concatenate([np.empty(0, "S1"), *(part.ids for part in self.repeats)])


@dataclass(frozen=True)
class _Rows:
    """One part: M rows, and its R queries, each a run of rows."""

    names: NDArray[np.bytes_]  # (R,)
    run: NDArray[np.int64]  # (M,), number of the run
    places: NDArray[np.int64]  # (M,), from 0 within the run
    ranks: NDArray[np.int32]
    ids: NDArray[np.bytes_]
    scores: NDArray[np.float64]

    @classmethod
    def of(cls, table: pa.Table, where: str, long_ids: LongIds | None) -> _Rows:
        try:
            query_ids, ids = (
                short_ids(id_text(as_text(table[name]).combine_chunks(), where, 0), long_ids)
                for name in ("query_id", "gallery_id")
            )
        except LongIdError as error:
            if long_ids is None:
                raise
            raise IndexFormatError(
                f"{where}: names an id of more than {long_ids.limit} bytes that is neither among "
                f"the queries nor in the gallery. {BROKEN}"
            ) from error
        is_start = np.ones(len(ids), np.bool_)
        is_start[1:] = query_ids[1:] != query_ids[:-1]
        run, starts = np.cumsum(is_start) - 1, np.flatnonzero(is_start)
        ranks, scores = (np.asarray(table[name]) for name in ("rank", "score"))
        return cls(query_ids[starts], run, np.arange(len(ids)) - starts[run], ranks, ids, scores)

    def of_queries(self, wanted: NDArray[np.bytes_]) -> Candidates:
        """The rows of some queries (sorted), numbered as these are."""
        number = find_ids(wanted, self.names)[self.run]
        is_wanted = number >= 0
        query = number[is_wanted].astype(np.int32)
        return Candidates(query, self.ids[is_wanted], self.scores[is_wanted])

    def repeats(self, first_query: int) -> _Repeats:
        """Ids that a query lists more than once. By hashes, and then by the ids themselves."""
        hashes = hash_ids(self.ids)
        order = np.lexsort((hashes, self.run))
        is_same = (np.diff(self.run[order]) == 0) & (np.diff(hashes[order]) == 0)
        rows = np.unique(np.concatenate([order[1:][is_same], order[:-1][is_same]]))
        rows = rows[np.lexsort((self.places[rows], self.ids[rows], self.run[rows]))]
        run, ids = self.run[rows], self.ids[rows]
        is_first = np.ones(len(rows), np.bool_)
        is_first[1:] = (run[1:] != run[:-1]) | (ids[1:] != ids[:-1])
        first = np.flatnonzero(is_first)
        times = np.diff(first, append=len(rows))
        first, times = first[times > 1], times[times > 1]
        ranks = self.places[rows[first + 1]] + 1
        return _Repeats(first_query + run[first], ranks, times, ids[first])


class _Faults:
    """The first wrong row of a ranking, and the number of queries with any."""

    def __init__(self, metric: str, *, exclude_self: bool) -> None:
        self._sign = 1.0 if is_distance(metric) else -1.0
        self._exclude_self = exclude_self
        self.num_queries = 0
        self.first: tuple[str, str] | None = None  # where, what

    def look_at(self, rows: _Rows) -> None:
        """Ranks, the order of the scores and ids, and the query's own id."""
        wrong_rank = rows.ranks != rows.places + 1
        wrong_order = self._out_of_order(rows)
        is_own = np.zeros(len(rows.ids), np.bool_)
        if self._exclude_self:
            is_own = rows.ids == rows.names[rows.run]
        is_wrong = wrong_rank | wrong_order | is_own
        if not is_wrong.any():
            return
        self.num_queries += len(np.unique(rows.run[is_wrong]))
        if self.first is None:
            row = int(np.argmax(is_wrong))
            if wrong_rank[row]:
                what = f"the ranking holds rank {rows.ranks[row]}; from 1 without gaps is needed"
            elif is_own[row]:
                what = "the ranking holds the query itself, which `exclude_self` leaves out"
            else:
                what = (
                    f"the ranking holds {_named(rows, row)} after {_named(rows, row - 1)}; "
                    f"nearest first, equal scores by id, is needed"
                )
            name = shown(rows.names[rows.run[row]])
            self.first = f"query {name!r}, rank {rows.places[row] + 1}", what

    def _out_of_order(self, rows: _Rows) -> NDArray[np.bool_]:
        """Rows that are nearer than the one before, or as near with a smaller id, or NaN."""
        far, ids = self._sign * rows.scores, rows.ids
        in_order = (far[1:] > far[:-1]) | ((far[1:] == far[:-1]) & (ids[1:] >= ids[:-1]))
        wrong = np.isnan(far)
        wrong[1:] |= ~in_order & (rows.places[1:] > 0)
        return wrong


def _named(rows: _Rows, row: int) -> str:
    return f"{shown(rows.ids[row])!r} with score {float(rows.scores[row])!r}"


def read_listing(
    ranking: Ranking,
    query_ids: NDArray[np.bytes_],
    sample_ids: NDArray[np.bytes_],
    metric: str,
    *,
    exclude_self: bool,
    long_ids: LongIds | None = None,
) -> Listing:
    """Read all parts of a ranking and check them.

    Each query must be there once, sorted by id; its ranks run from 1 without gaps, its rows are
    sorted by score and then by id, and none is the query itself if that is left out.

    Args:
        ranking: The ranking.
        query_ids: bytes (Q,), the ids that were ranked, sorted, each once.
        sample_ids: bytes (S,), some of them, sorted: their rows are kept.
        metric: Of the ranking.
        exclude_self: Whether it leaves out the query's own id.
        long_ids: What stands for long ids in `query_ids` and `sample_ids`.

    Raises:
        LongIdError: an id is long, and `long_ids` is None.
        IndexFormatError: a part cannot be read, or something is wrong; the first is named.

    Cost: reads each part once. Memory of one part, of the queries' ids, and of the sample's rows.
    """
    faults = _Faults(metric, exclude_self=exclude_self)
    names, counts = [np.empty(0, "S1")], [np.empty(0, np.int64)]
    sample, repeats = [Candidates.none()], []
    first_query = 0
    for name, table in zip(ranking.parts, read_tables(ranking), strict=True):
        rows = _Rows.of(table, join(ranking.uri, name), long_ids)
        if not len(rows.ids):
            continue
        faults.look_at(rows)
        names.append(rows.names)
        counts.append(np.bincount(rows.run))
        sample.append(rows.of_queries(sample_ids))
        repeats.append(rows.repeats(first_query))
        first_query += len(rows.names)
    found = np.concatenate(names)
    _check_queries(ranking.uri, found, query_ids)
    if faults.first:
        how_many = counted(faults.num_queries, len(query_ids))
        raise wrong_ranking(ranking.uri, *faults.first, how_many, BROKEN)
    rows_kept = Candidates(
        np.concatenate([part.query for part in sample]),
        np.concatenate([part.ids for part in sample]),
        np.concatenate([part.scores for part in sample]),
    )
    return Listing(ranking.uri, found, np.concatenate(counts), rows_kept, repeats)


def _check_queries(uri: str, found: NDArray[np.bytes_], wanted: NDArray[np.bytes_]) -> None:
    """Each query that was ranked once, and no other, sorted by id."""
    if np.array_equal(found, wanted):
        return
    names, times = np.unique(found, return_counts=True)
    cases = [
        (names[find_ids(wanted, names) < 0], "in the ranking, but not among the queries"),
        (names[times > 1], "in the ranking more than once"),
        (wanted[find_ids(names, wanted) < 0], "not in the ranking"),
        (found[1:][found[1:] < found[:-1]], "out of order; sorted by query id is needed"),
    ]
    ids, what = next((ids, what) for ids, what in cases if len(ids))
    wrong = np.unique(np.concatenate([ids for ids, _ in cases]))
    how_many = counted(len(wrong), len(wanted))
    raise wrong_ranking(uri, f"query {shown(ids[0])!r}", what, how_many, BROKEN)


def check_counts(listing: Listing, top_k: int, available: NDArray[np.int64]) -> None:
    """Each query must list `top_k` rows, or all that there are.

    Args:
        listing: The ranking's rows.
        top_k: Rows asked for.
        available: int64 (Q,), gallery rows that each query could list.

    Raises:
        IndexFormatError: a query lists more or fewer.
    """
    needed = np.minimum(top_k, available)
    wrong = np.flatnonzero(listing.counts != needed)
    if wrong.size:
        first = wrong[0]
        raise wrong_ranking(
            listing.uri,
            f"query {shown(listing.query_ids[first])!r}",
            f"the ranking holds {listing.counts[first]} rows; {needed[first]} are needed",
            counted(len(wrong), len(needed)),
            BROKEN,
        )


def check_repeats(listing: Listing, gallery_ids: IdCounter) -> None:
    """No query may list a gallery id more often than the gallery holds it.

    Args:
        listing: The ranking's rows.
        gallery_ids: Has counted `listing.repeated_ids` in the whole gallery.

    Raises:
        IndexFormatError: a query does.
    """
    wrong_queries: set[int] = set()
    first: tuple[str, str] | None = None
    for part in listing.repeats:
        held = gallery_ids.counts(part.ids)
        wrong = np.flatnonzero(part.times > held)
        wrong_queries.update(part.query[wrong].tolist())
        if wrong.size and first is None:
            row = wrong[0]
            name = shown(listing.query_ids[part.query[row]])
            first = (
                f"query {name!r}, rank {part.ranks[row]}",
                f"the ranking holds {shown(part.ids[row])!r} in {part.times[row]} rows; the "
                f"gallery in {held[row]}",
            )
    if first:
        how_many = counted(len(wrong_queries), len(listing.query_ids))
        raise wrong_ranking(listing.uri, *first, how_many, BROKEN)
