"""`rank`: the k nearest of each query, exactly, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.errors import UsageError
from retrieval.progress import QUIET, Progress
from retrieval.ranking.executor import Executor, ThreadExecutor
from retrieval.ranking.parts import RANKING_SCHEMA
from retrieval.ranking.plan import Plan, choose_k, make_plan
from retrieval.ranking.queries import Queries
from retrieval.ranking.rank_blocks import BlockRanker
from retrieval.ranking.rank_report import RankedSides, sides_of
from retrieval.ranking.settings import RankConfig
from retrieval.ranking.sides import Side, open_side, sum_ids
from retrieval.search import Candidates
from retrieval.vectors import (
    ArrayFile,
    LongIdError,
    LongIds,
    VectorBlock,
    VectorColumns,
    VectorSource,
    array_source,
    read_ids,
    row_number_ids,
)

__all__ = ["Ids", "RankedLists", "rank"]

Ids: TypeAlias = Sequence[str] | NDArray[Any] | pa.Array

_READ_ROWS = 2**16


@dataclass(frozen=True, eq=False)
class RankedLists:
    """For each query its nearest gallery rows.

    Attributes:
        query_ids: (Q,) text; int64 row numbers where the queries are an array without ids. In
            the order of an array's rows, else sorted.
        ids: (Q, K) the gallery's ids, nearest first, equal scores by id; text, or int64 row
            numbers where the gallery is an array without ids. Where a query has fewer than K, as
            with `exclude_self` and k = None, its row ends in "" or -1.
        scores: float64 (Q, K), canonical; NaN where there is no id.
        sides: What was ranked, and by which settings.
        ids_sum: What tells the ids of each side that is no index; None for row numbers.
        certificate: How each block of queries was found, for reports.
    """

    query_ids: NDArray[Any]
    ids: NDArray[Any]
    scores: NDArray[np.float64]
    sides: RankedSides
    ids_sum: Mapping[str, str | None]
    certificate: Sequence[Mapping[str, Any]] = field(repr=False)

    def to_arrow(self) -> pa.Table:
        """The lists in long form, as the files of a ranking have them: RANKING_SCHEMA."""
        is_there = ~np.isnan(self.scores)
        query, place = np.nonzero(is_there)
        columns = [
            pa.array(self.query_ids[query]).cast(pa.string()),
            pa.array((place + 1).astype(np.int32)),
            pa.array(self.ids[is_there]).cast(pa.string()),
            pa.array(self.scores[is_there]),
        ]
        return pa.table(columns, schema=RANKING_SCHEMA)


def rank(  # noqa: PLR0913 - the settings of a ranking, by name
    queries: Side | NDArray[Any],
    gallery: Side | NDArray[Any],
    k: int | None = 10,
    *,
    metric: str = "cosine",
    exclude_self: bool = False,
    query_ids: Ids | None = None,
    gallery_ids: Ids | None = None,
    columns: VectorColumns | None = None,
    allow_duplicates: bool = False,
    device: str = "cpu",
    num_threads: int | None = None,
    memory_bytes: int | None = None,
    executor: Executor | None = None,
    progress: Progress = QUIET,
) -> RankedLists:
    """Find the k nearest gallery rows of each query, exactly.

    The way is that of `write_ranking`; ids and scores are the same to the last bit, for any
    number of shards, threads and processes, and those of `retrieval.search.top_k`.

    Args:
        queries: An array, float16, float32 or float64 (Q, D); or an index, INDEX@12, other
            tools' files (see `retrieval.vectors.open_source`), open or by their place.
        gallery: Likewise, (N, D).
        k: Neighbours of each query, 1 to N; None for the whole gallery.
        metric: "cosine", "ip", "l2", "l1", or "minkowski:P" with P ≥ 1.
        exclude_self: Leave out the gallery row with the query's own id.
        query_ids: Ids of an array's rows, Q different ones: text, integers, or bytes that are
            UTF-8. Without them row i is i, on both sides, and of equal scores the smaller comes
            first.
        gallery_ids: Likewise of the gallery, N.
        columns: Which columns of other tools' files hold ids and vectors.
        allow_duplicates: Rank a gallery that has an id more than once.
        device: "cpu", "cuda", or "auto": a GPU if there is one and the metric is a product.
        num_threads: Threads of this process; by default all cores.
        memory_bytes: What the search may hold beside arrays and lists; see `RankConfig`.
        executor: Who ranks; by default the threads of this process.
        progress: Told how far it is.

    Raises:
        UsageError: a setting that is not possible, such as a k above N.
        RetrievalError: see `write_ranking`.

    Cost: 2 Q N D operations at most, mostly several times fewer; memory for the lists, and of an
        array that does not lie row by row a copy. An executor of other processes is sent an
        array's rows anew for each block of queries: files are cheaper for it.

    Example:
        >>> gallery = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
        >>> found = rank(gallery[:1], gallery, k=2, num_threads=1)
        >>> found.ids.tolist(), found.scores.round(3).tolist()
        ([[0, 2]], [[1.0, 0.707]])
    """
    if k is not None and (isinstance(k, bool) or not isinstance(k, Integral)):
        raise UsageError(f"`k` {k!r}: a whole number, or None for the whole gallery, is needed.")
    config = RankConfig(
        top_k=None if k is None else int(k),
        metric=metric,
        exclude_self=exclude_self,
        num_threads=num_threads,
        memory_bytes=memory_bytes,
        columns=columns,
        device=device,
        allow_duplicates=allow_duplicates,
    )
    num_digits = max(len(str(_num_rows(side))) for side in (queries, gallery))
    sides = (
        _open(queries, query_ids, "queries", columns, num_digits),
        _open(gallery, gallery_ids, "gallery", columns, num_digits),
    )
    choose_k(sides[0].source, sides[1].source, config, name="`k`")
    executor = executor or ThreadExecutor(num_threads)
    try:
        return _rank(*sides, config, executor, progress)
    except LongIdError:  # rare, and only reading the ids tells
        return _rank(*sides, config, executor, progress, has_long_ids=True)


@dataclass(frozen=True)
class _Side:
    """A side, and whether its ids are the row numbers of an array."""

    source: VectorSource
    has_numbers: bool = False


def _num_rows(side: Side | NDArray[Any]) -> int:
    return len(side) if isinstance(side, np.ndarray) and side.ndim else 0


_IDS = {"queries": "query_ids", "gallery": "gallery_ids"}


def _open(
    side: Side | NDArray[Any],
    ids: Ids | None,
    name: str,
    columns: VectorColumns | None,
    num_digits: int,
) -> _Side:
    if isinstance(side, np.ndarray):
        own = row_number_ids(_num_rows(side), num_digits) if ids is None else ids
        return _Side(array_source(side, own, name, _IDS[name]), has_numbers=ids is None)
    if ids is not None:
        raise UsageError(f"`{_IDS[name]}`: `{name}` is no array, and has ids of its own.")
    return _Side(open_side(side, columns, name))


def _rank(
    queries: _Side,
    gallery: _Side,
    config: RankConfig,
    executor: Executor,
    progress: Progress,
    *,
    has_long_ids: bool = False,
) -> RankedLists:
    if gallery.has_numbers:  # which are different ones
        config = replace(config, allow_duplicates=True)
    plan = make_plan(
        queries.source, gallery.source, config, executor.num_threads, has_long_ids=has_long_ids
    )
    loaded = Queries(plan.queries, config.memory_for(plan.num_threads) // 4)
    lists = _Lists(plan, loaded, has_numbers=gallery.has_numbers)
    with executor.session():
        ranker = BlockRanker(plan, loaded, executor, progress)
        ranker.run(lists)
        plan.check_unchanged()
    order = _rows_in_order(plan.queries, loaded.ids)
    return RankedLists(
        np.arange(len(order))
        if queries.has_numbers
        else _texts(loaded.ids, plan.queries.long_ids)[order],
        lists.ids[order],
        lists.scores[order],
        RankedSides(**sides_of(plan)),
        {
            "queries": None if queries.has_numbers else sum_ids(plan.queries),
            "gallery": None if gallery.has_numbers else sum_ids(plan.gallery),
        },
        ranker.certificates,
    )


def _rows_in_order(queries: VectorSource, sorted_ids: NDArray[np.bytes_]) -> NDArray[np.intp]:
    """Where each row of an array stands among the sorted ids; all as they are without one."""
    (first, *_) = queries.files
    if not isinstance(first, ArrayFile):
        return np.arange(len(sorted_ids))
    ids = np.concatenate(list(read_ids(queries, first, _READ_ROWS)))
    return np.searchsorted(sorted_ids, ids)


def _texts(ids: NDArray[np.bytes_], long_ids: LongIds | None) -> NDArray[np.object_]:
    """Ids as str, (M,)."""
    texts = pa.array(ids).cast(pa.string()) if long_ids is None else long_ids.expand(ids)
    found: NDArray[np.object_] = texts.to_numpy(zero_copy_only=False)
    return found


class _Lists:
    """The lists in memory, as an `Output`; in the order of `Queries.ids`.

    Attributes:
        ids: (Q, K) text, or int64.
        scores: float64 (Q, K).
    """

    def __init__(self, plan: Plan, queries: Queries, *, has_numbers: bool) -> None:
        shape = len(queries.ids), plan.k
        self.scores = np.full(shape, np.nan)
        self.ids: NDArray[Any] = np.full(shape, -1) if has_numbers else np.full(shape, "", object)
        self._long_ids, self._has_numbers = plan.gallery.long_ids, has_numbers
        self._start = 0

    def resume(self) -> bool:
        """Nothing is there yet."""
        return False

    def write(self, block: VectorBlock, found: Candidates) -> None:
        """See `Output`."""
        counts = np.bincount(found.query, minlength=len(block.ids))
        place = np.arange(len(found)) - np.repeat(np.cumsum(counts) - counts, counts)
        query = self._start + found.query
        self.scores[query, place] = found.scores
        ids = _numbers(found.ids) if self._has_numbers else _texts(found.ids, self._long_ids)
        self.ids[query, place] = ids
        self._start += len(block.ids)


def _numbers(ids: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """The numbers that ids of `row_number_ids` stand for, int64 (M,)."""
    digits = np.ascontiguousarray(ids).view(np.uint8).reshape(len(ids), -1)
    numbers = np.zeros(len(ids), np.int64)
    for column in digits.T:
        # Shorter than the array's width: filled up with NUL bytes.
        numbers = np.where(column == 0, numbers, numbers * 10 + column - ord("0"))
    return numbers
