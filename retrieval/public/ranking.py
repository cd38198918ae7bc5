"""A ranking, as a notebook wants it: made of arrays or indexes, or read from its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.format_version import FORMAT_VERSION
from retrieval.index.table import Index as StoredIndex
from retrieval.progress import QUIET, Progress
from retrieval.ranking.executor import Executor
from retrieval.ranking.files import RANKING_FORMAT, RankingWriter, read_parts
from retrieval.ranking.files import Ranking as StoredRanking
from retrieval.ranking.files import open_ranking as open_stored
from retrieval.ranking.rank import Ids, RankedLists
from retrieval.ranking.rank import rank as rank_lists
from retrieval.ranking.sides import Side
from retrieval.vectors import VectorColumns

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Ranking", "Vectors", "open_ranking", "rank", "top_k"]


class OpenIndex(Protocol):
    """An `Index`, as far as a ranking needs it."""

    stored: StoredIndex


Vectors: TypeAlias = NDArray[Any] | Side | OpenIndex

_PART_ROWS = 2**22  # of a part that `save` writes


class Ranking:
    """For each query its nearest gallery images, nearest first.

    Attributes:
        stored: The ranking as the rest of the library takes it.
        facts: What was ranked, and how: metric, top_k, exclude_self, queries, gallery, counts.
    """

    def __init__(self, stored: StoredRanking, lists: RankedLists | None = None) -> None:
        self.stored = stored
        self.facts: Mapping[str, Any] = stored.facts
        self._held = None if lists is None else (lists.query_ids, lists.ids, lists.scores)

    def __len__(self) -> int:
        return int(self.facts["num_queries"])

    def __repr__(self) -> str:
        facts = self.facts
        where = f"{self.stored.uri!r}: " if self.stored.uri else ""
        return (
            f"Ranking({where}{len(self)} queries × {facts['top_k']} of {facts['num_gallery']} "
            f"images by {facts['metric']})"
        )

    @property
    def _lists(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
        if self._held is None:
            self._held = _as_lists(self.to_arrow())
        return self._held

    @property
    def query_ids(self) -> NDArray[Any]:
        """The queries' ids, (Q,) text; int64 row numbers of an array that came without ids."""
        return self._lists[0]

    @property
    def ids(self) -> NDArray[Any]:
        """Ids (Q, K), text or int64 row numbers; "" or -1 behind the end of a shorter list."""
        return self._lists[1]

    @property
    def scores(self) -> NDArray[np.float64]:
        """Canonical scores, float64 (Q, K); NaN behind the end of a shorter list."""
        return self._lists[2]

    def to_arrow(self) -> pa.Table:
        """query_id, rank (from 1), gallery_id, score; sorted by query and rank."""
        return pa.concat_tables(read_parts(self.stored))

    def to_pandas(self) -> pd.DataFrame:
        """The same as a DataFrame."""
        return self.to_arrow().to_pandas()

    def save(self, place: str | os.PathLike[str]) -> Ranking:
        """Write the files of a ranking, as `retrieval-cli rank` does: Parquet parts and a manifest.

        Args:
            place: A folder or address; a ranking that is there is replaced, all else is refused.

        Returns:
            The ranking that was written.

        Raises:
            StorageError: something else is there, or it cannot be written.
        """
        writer = RankingWriter(os.fspath(place))
        table = self.to_arrow()
        step = max(1, _PART_ROWS // max(1, int(self.facts["top_k"])))
        for part in _by_queries(table, step):
            writer.write_part(part)
        writer.finish({**self.facts, "ranking": writer.uri, "num_rows": writer.num_rows})
        return open_ranking(writer.uri)


def open_ranking(ranking: str | os.PathLike[str]) -> Ranking:
    """Open the files of a ranking.

    Raises:
        StorageError: there is none, or its run has not finished.
        IndexFormatError: its manifest is damaged, or written by a newer release.

    Cost: reads the manifest; the lists are read when they are used.
    """
    return Ranking(open_stored(os.fspath(ranking)))


def rank(  # noqa: PLR0913 - the settings of a ranking, by name
    queries: Vectors,
    gallery: Vectors,
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
) -> Ranking:
    """Find the k nearest gallery rows of each query, exactly: the same bits on every machine.

    Args:
        queries: An array, float16, float32 or float64 (Q, D); an index; or the place of one, of
            INDEX@12, or of other tools' vectors.
        gallery: Likewise, (N, D).
        k: Neighbours of each query, 1 to N; None for the whole gallery.
        metric: "cosine", "ip", "l2", "l1", or "minkowski:P" with P ≥ 1.
        exclude_self: Leave out the gallery row with the query's own id.
        query_ids: Ids of an array's rows, Q different ones; without them row i is i.
        gallery_ids: Likewise of the gallery, N.
        columns: Which columns of other tools' files hold ids and vectors.
        allow_duplicates: Rank a gallery that has an id more than once.
        device: "cpu", "cuda", or "auto".
        num_threads: Threads of this process; by default all cores.
        memory_bytes: What the search may hold beside arrays and lists.
        executor: Who ranks; by default the threads of this process.
        progress: Told how far it is.

    Returns:
        The ranking, in memory; `Ranking.save` writes it.

    Raises:
        UsageError: a setting that is not possible, such as a k above N.
        RetrievalError: the sides do not belong together, a vector is zero or not finite, an id
            occurs twice, or a file is damaged.

    Cost: see `retrieval.ranking.rank.rank`.

    Example:
        >>> gallery = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
        >>> rank(gallery[:1], gallery, k=2, num_threads=1).ids.tolist()
        [[0, 2]]
    """
    lists = rank_lists(
        _stored(queries),
        _stored(gallery),
        k,
        metric=metric,
        exclude_self=exclude_self,
        query_ids=query_ids,
        gallery_ids=gallery_ids,
        columns=columns,
        allow_duplicates=allow_duplicates,
        device=device,
        num_threads=num_threads,
        memory_bytes=memory_bytes,
        executor=executor,
        progress=progress,
    )
    table = lists.to_arrow()
    # In the files of a ranking the queries are sorted, bytewise.
    table = table.sort_by([("query_id", "ascending"), ("rank", "ascending")])
    facts = {
        FORMAT_VERSION: RANKING_FORMAT,
        "ranking": "",
        **asdict(lists.sides),
        "ids_sum": dict(lists.ids_sum),
        "num_rows": table.num_rows,
        "created_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "certificate": list(lists.certificate),
    }
    return Ranking(StoredRanking("", (), facts, held=table), lists)


def top_k(
    queries: NDArray[Any],
    gallery: NDArray[Any],
    k: int = 10,
    *,
    metric: str = "cosine",
    num_threads: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the k nearest rows of one array for each row of another, exactly.

    Args:
        queries: float16, float32 or float64 (Q, D).
        gallery: Likewise, (N, D).
        k: Neighbours, 1 to N.
        metric: As of `rank`.
        num_threads: Threads of this process; by default all cores.

    Returns:
        Row numbers int64 (Q, k), nearest first, of equal scores the smaller; and their scores,
        float64 (Q, k): those of `rank`, to the last bit.

    Raises:
        UsageError, RetrievalError: as `rank`.

    Example:
        >>> gallery = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
        >>> rows, scores = top_k(gallery[:2], gallery, k=2, metric="ip", num_threads=1)
        >>> rows.tolist(), scores.tolist()
        ([[0, 2], [1, 2]], [[1.0, 1.0], [1.0, 1.0]])
    """
    lists = rank_lists(queries, gallery, k, metric=metric, num_threads=num_threads)
    return lists.ids, lists.scores


def _stored(side: Vectors) -> Any:  # noqa: ANN401
    """An index as the rest of the library takes it; all else as it is."""
    return getattr(side, "stored", side)


def _as_lists(table: pa.Table) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Rows sorted by query and rank → query ids (Q,), ids (Q, K), scores (Q, K)."""
    ranks = table["rank"].to_numpy()
    starts = np.flatnonzero(ranks == 1)
    queries = table["query_id"].take(pa.array(starts)).to_numpy()
    row = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(ranks)))
    shape = len(starts), int(ranks.max(initial=0))
    ids, scores = np.full(shape, "", object), np.full(shape, np.nan)
    ids[row, ranks - 1] = table["gallery_id"].to_numpy()
    scores[row, ranks - 1] = table["score"].to_numpy()
    return queries, ids, scores


def _by_queries(table: pa.Table, num_queries: int) -> list[pa.Table]:
    """Tables of so many queries each."""
    starts = np.flatnonzero(table["rank"].to_numpy() == 1)[::num_queries]
    ends = [*starts[1:], table.num_rows]
    return [table.slice(start, end - start) for start, end in zip(starts, ends, strict=True)]
