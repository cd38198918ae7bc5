"""Ranking only what has changed since a previous ranking of the same indexes.

Shards that two versions of an index share, and those that were written again from such
shards (see `shard_lineage`), hold the same rows in both. Of the gallery, only the rows of all other
shards are new to a query that was ranked before. Its old list, without the rows that went,
and the neighbours among the added rows hold its k nearest, unless the list they make ends
further away than the old one did: what lies between was never listed. Such a query is ranked
again, as are new and changed ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError, UsageError
from retrieval.index.table import index_of
from retrieval.ranking.files import Ranking, open_ranking, read_parts
from retrieval.ranking.settings import RankConfig
from retrieval.ranking.shard_lineage import trace
from retrieval.ranking.sides import find_version
from retrieval.search import Candidates, is_distance, score_rule
from retrieval.storage import DAMAGED_PARQUET, join, open_input
from retrieval.storage.text_columns import as_text
from retrieval.vectors import VectorFile, VectorSource, open_source, read_id_text, read_ids
from retrieval.vectors.ids import short_ids

__all__ = ["OldLists", "Previous", "old_ids"]

_READ_ROWS = 64 * 1024


@dataclass(frozen=True)
class OldLists:
    """What a previous ranking says of some queries.

    Attributes:
        kept: Their neighbours that are still there; `query` numbers the queries asked for.
        last_scores: float64 (Q,), score of the last neighbour that was listed.
        last_ids: bytes (Q,), its id.
        is_listed: bool (Q,), whether the query was ranked at all.
    """

    kept: Candidates
    last_scores: NDArray[np.float64]
    last_ids: NDArray[np.bytes_]
    is_listed: NDArray[np.bool_]

    def is_settled(self, found: Candidates, k: int, metric: str) -> NDArray[np.bool_]:
        """Whether what was found among kept and added rows is certain to be the k nearest.

        Args:
            found: The k nearest of each query among them, sorted by query and rank.
            k: Neighbours that were and are listed.
            metric: How near is told.

        Returns:
            bool (Q,).
        """
        counts = np.bincount(found.query, minlength=len(self.is_listed))
        is_settled = self.is_listed & (counts == k)
        ends = (np.cumsum(counts) - 1)[is_settled]
        sign = 1.0 if is_distance(metric) else -1.0
        ours, theirs = sign * found.scores[ends], sign * self.last_scores[is_settled]
        same = (ours == theirs) & (found.ids[ends] <= self.last_ids[is_settled])
        is_settled[is_settled] = (ours < theirs) | same
        return is_settled


class Previous:
    """A previous ranking, and what has changed in the two indexes since.

    Attributes:
        added: The gallery's files that it has not seen.
    """

    def __init__(
        self, uri: str, queries: VectorSource, gallery: VectorSource, k: int, config: RankConfig
    ) -> None:
        """Compare the versions.

        Raises:
            UsageError: it was made with other settings, or not of earlier versions of these
                two indexes, or they can no longer be read.

        Cost: reads the ids of the queries' shards that stayed or were written again, and of the
            gallery's shards that went or were written again.
        """
        self._ranking = open_ranking(uri)
        _check_settings(self._ranking, k, config)
        self._long_ids = gallery.long_ids
        before = replace(_earlier(self._ranking, "gallery", gallery), long_ids=gallery.long_ids)
        lineage = trace(before, gallery)
        self.added = frozenset(lineage.added)
        removed: set[bytes] = set()
        for family in lineage.families:
            with _old_version_read(self._ranking, "gallery"):
                gone = _ids(before, family.gone)
            # Sets of one family at a time: two to three times faster here than sorted arrays.
            removed |= set(gone.tolist()) - set(_ids(gallery, family.rewritten).tolist())
        self._removed = np.array(list(removed), "S")
        old_queries = _earlier(self._ranking, "queries", queries)
        self._same_queries = np.sort(_ids(queries, trace(old_queries, queries).covered))
        self._ranges = {name: _query_range(self._ranking, name) for name in self._ranking.parts}

    def lists(self, query_ids: NDArray[np.bytes_]) -> OldLists:
        """The old lists of some queries, which must be sorted by id.

        Cost: reads the parts of the ranking that may hold them.
        """
        num_queries = len(query_ids)
        is_listed = np.zeros(num_queries, bool)
        last_scores, width = np.zeros(num_queries), 1
        pieces, lasts = [], []
        for number, ids, scores in self._rows(query_ids):
            ends = np.flatnonzero(np.diff(number, append=-1))
            is_listed[number[ends]] = True
            last_scores[number[ends]] = scores[ends]
            lasts.append((number[ends], ids[ends]))
            width = max(width, ids.dtype.itemsize)
            stays = ~np.isin(ids, self._removed)
            pieces.append(Candidates(number, ids, scores).at(stays))
        last_ids = np.zeros(num_queries, f"S{width}")
        for number, ids in lasts:
            last_ids[number] = ids
        return OldLists(Candidates.joined(pieces), last_scores, last_ids, is_listed)

    def _rows(
        self, query_ids: NDArray[np.bytes_]
    ) -> Iterator[tuple[NDArray[np.int32], NDArray[np.bytes_], NDArray[np.float64]]]:
        """Numbers of the queries, gallery ids and scores, where a query has not changed."""
        asked = np.intersect1d(query_ids, self._same_queries)
        if not len(asked):
            return
        texts = (pa.array(asked) if self._long_ids is None else self._long_ids.expand(asked)).cast(
            pa.string()
        )
        lowest, highest = texts[0].as_py().encode(), texts[-1].as_py().encode()
        names = [
            name
            for name, (first, last) in self._ranges.items()
            if first <= highest and lowest <= last
        ]
        for table in read_parts(self._ranking, ["query_id", "gallery_id", "score"], names):
            rows = table.filter(pc.is_in(table["query_id"], texts))
            if not rows.num_rows:
                continue
            of_queries, ids = (
                short_ids(as_text(rows[side].combine_chunks()), self._long_ids)
                for side in ("query_id", "gallery_id")
            )
            number = np.searchsorted(query_ids, of_queries).astype(np.int32)
            yield number, ids, rows["score"].to_numpy()


def old_ids(uri: str, queries: VectorSource, gallery: VectorSource) -> Iterator[pa.Array]:
    """The ids of what a previous ranking was made of, as text, where its files have gone since.

    Raises:
        UsageError: as `Previous` does.
    """
    ranking = open_ranking(uri)
    for side, now in (("queries", queries), ("gallery", gallery)):
        before = _earlier(ranking, side, now)
        with _old_version_read(ranking, side):
            for file in set(before.files) - set(now.files):
                yield from read_id_text(before, file, _READ_ROWS)


def _check_settings(ranking: Ranking, k: int, config: RankConfig) -> None:
    facts = ranking.facts
    before = (facts.get("metric"), facts.get("top_k"), facts.get("exclude_self"))
    if before != (config.metric, k, config.exclude_self):
        raise UsageError(
            f"`previous` {ranking.uri}: made with `metric` {before[0]}, `top_k` {before[1]}"
            f"{' and `exclude_self`' if before[2] else ''}, but this run has `metric` "
            f"{config.metric}, `top_k` {k}{' and `exclude_self`' if config.exclude_self else ''}. "
            f"Use the same, or leave `previous` out."
        )
    if ranking.score_rule != score_rule(config.metric):
        raise UsageError(
            f"`previous` {ranking.uri}: its scores are by rule {ranking.score_rule} of "
            f"{config.metric}, those of this run by rule {score_rule(config.metric)}, and the two "
            f"must not meet in one list. Leave `previous` out."
        )


def _earlier(ranking: Ranking, side: str, now: VectorSource) -> VectorSource:
    """The version of an index that was ranked."""
    facts: Mapping[str, Any] = ranking.facts.get(side) or {}
    spec = facts.get("spec") or {}
    if now.spec is None or facts.get("version") is None:
        raise UsageError(
            f"`previous` {ranking.uri}: its {side} or those of this run are no index, so that "
            f"nobody can tell what has changed. Leave `previous` out."
        )
    place, is_same_model = index_of(now.uri), spec.get("fingerprint") == now.spec.fingerprint
    found = find_version(facts, place) if is_same_model else None
    if found is None and (not is_same_model or facts["uri"] != now.uri):
        raise UsageError(
            f"`previous` {ranking.uri}: its {side} are {facts['uri']} with fingerprint "
            f"{str(spec.get('fingerprint'))[:12]}, those of this run {now.uri} with "
            f"{now.spec.fingerprint[:12]}. Leave `previous` out."
        )
    with _old_version_read(ranking, side):
        before = open_source(place, version=found.version if found else int(facts["version"]))
    if found is None:
        raise UsageError(
            f"`previous` {ranking.uri}: its {side}, version {before.version} of {now.uri}, held "
            f"other shards than that version has now: the index was made anew. Leave `previous` "
            f"out."
        )
    return before


@contextmanager
def _old_version_read(ranking: Ranking, side: str) -> Iterator[None]:
    """An old version that is gone is no fault of the new one, which can be ranked without it."""
    try:
        yield
    except IndexFormatError as error:
        facts = ranking.facts[side]
        raise UsageError(
            f"`previous` {ranking.uri}: its {side}, version {facts['version']} of {facts['uri']}, "
            f"can no longer be read, as after a vacuum. Leave `previous` out."
        ) from error


def _ids(source: VectorSource, files: Iterable[VectorFile]) -> NDArray[np.bytes_]:
    ids = [ids for file in files for ids in read_ids(source, file, _READ_ROWS)]
    return np.concatenate(ids) if ids else np.empty(0, "S1")


def _query_range(ranking: Ranking, name: str) -> tuple[bytes, bytes]:
    """The first and the last query of a part: its footer tells."""
    anything = b"", b"\xff"  # no statistics, or damaged: reading it will tell
    try:
        with open_input(join(ranking.uri, name)) as stream:
            footer = pq.read_metadata(stream)
            # Arrow ends the process over statistics whose type is not that of the schema.
            if not _is_text(footer.schema.column(0)):
                return anything
            groups = map(footer.row_group, range(footer.num_row_groups))
            columns = [group.column(0) for group in groups]
            if not all(map(_holds_bytes, columns)):
                return anything
            found = [column.statistics for column in columns]
            return min(each.min.encode() for each in found), max(
                each.max.encode() for each in found
            )
    except (*DAMAGED_PARQUET, AttributeError, ValueError):
        return anything


def _is_text(column: pq.ColumnSchema) -> bool:
    return _holds_bytes(column) and column.logical_type.type == "STRING"


def _holds_bytes(column: pq.ColumnSchema | pq.ColumnChunkMetaData) -> bool:
    return bool(column.physical_type == "BYTE_ARRAY")
