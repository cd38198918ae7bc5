"""What a ranking was made of, opened as it was ranked, and the queries to rank again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError, MismatchError, RetrievalError
from retrieval.ranking.files import Ranking
from retrieval.ranking.sides import open_ranked
from retrieval.ranking.verification.ids import shown
from retrieval.search.scores import METRICS, minkowski_power, score_rule
from retrieval.vectors import LongIds, VectorSource, read_id_text
from retrieval.vectors import read_ids as read_id_blocks

__all__ = ["VerifyTask", "prepare"]

_ID_ROWS = 2**16
_LONG_ID_BYTES = 2**28
_SIDES = ("queries", "gallery")
_CHANGED = "Rank again, or put back what was ranked."


@dataclass(frozen=True)
class _Side:
    """What the manifest says of the queries or the gallery."""

    uri: str
    version: int | None
    num_rows: int
    dim: int
    dtype: str
    id_column: str
    vector_column: str


_KEYS = tuple(field.name for field in fields(_Side))


@dataclass(frozen=True)
class VerifyTask:
    """A ranking, what was ranked, and the queries to rank again.

    Attributes:
        ranking: The ranking.
        queries, gallery: The two sides, as they were ranked.
        metric, rule, top_k, exclude_self: What the manifest says.
        query_ids: bytes (Q,), sorted.
        sample_ids: bytes (S,), sorted.
    """

    ranking: Ranking
    queries: VectorSource
    gallery: VectorSource
    metric: str
    rule: int
    top_k: int
    exclude_self: bool
    query_ids: NDArray[np.bytes_]
    sample_ids: NDArray[np.bytes_]


def prepare(
    ranking: Ranking,
    places: Mapping[str, str | None],
    sample: int,
    seed: int,
    *,
    has_long_ids: bool,
) -> VerifyTask:
    """Open what was ranked and draw the queries.

    Args:
        ranking: The ranking.
        places: Where "queries" and "gallery" are now; None where they were ranked.
        sample: Queries to draw.
        seed: Of the draw.
        has_long_ids: Whether an id is too long for an array of one width; reading would raise
            LongIdError.

    Raises:
        IndexFormatError: the manifest says what cannot be.
        MismatchError: a side is not what was ranked.
    """
    where, facts = ranking.manifest, ranking.facts
    metric, top_k, exclude_self = facts["metric"], facts["top_k"], facts["exclude_self"]
    num_queries, _ = facts["num_queries"], facts["num_rows"]
    sides = {side: _Side(**{key: facts[side][key] for key in _KEYS}) for side in _SIDES}
    if metric not in METRICS and not minkowski_power(metric):
        raise IndexFormatError(
            f"{where}: metric {metric!r}; {', '.join(METRICS)} or minkowski:P is needed. Rank "
            f"again."
        )
    rule = _rule(where, metric, ranking.score_rule)
    queries, gallery = (
        _open(ranking, side, ranked, places[side] or ranked.uri) for side, ranked in sides.items()
    )
    if has_long_ids:
        long_ids = LongIds.collect(_id_texts(queries, gallery), _LONG_ID_BYTES)
        queries, gallery = (replace(source, long_ids=long_ids) for source in (queries, gallery))
    query_ids = _sorted_ids(queries)
    if num_queries != len(query_ids):
        raise IndexFormatError(
            f"{where}: num_queries is {num_queries}, but {len(query_ids)} were ranked. Rank again."
        )
    # Of all queries that were ranked: that the ranking holds each of them is checked.
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(query_ids), min(sample, len(query_ids)), replace=False)
    sample_ids = query_ids[np.sort(drawn)]
    return VerifyTask(
        ranking, queries, gallery, metric, rule, top_k, exclude_self, query_ids, sample_ids
    )


def _id_texts(*sources: VectorSource) -> Iterator[pa.Array]:
    for source in sources:
        for file in source.files:
            yield from read_id_text(source, file, _ID_ROWS)


def _rule(where: str, metric: str, named: int) -> int:
    """The number of the rule of a ranking's scores; a newer one is not known here."""
    if named > (newest := score_rule(metric)):
        raise IndexFormatError(
            f"{where}: its {metric} scores are by rule {named}, written by a newer release; this "
            f"one knows rules up to {newest}. Install that release, or rank again."
        )
    return named


def _open(ranking: Ranking, side: str, ranked: _Side, uri: str) -> VectorSource:
    """What a ranking was made of, as it was ranked.

    Raises:
        MismatchError: it is not there any more, or it is not what it was.
    """
    before = _shape(ranked)
    try:
        source = open_ranked(uri, ranking, side)
    except MismatchError:
        raise
    except RetrievalError as error:
        raise MismatchError(
            f"{uri}: {before} was ranked, but cannot be opened now: {error} {_CHANGED}"
        ) from error
    # The same shards may be of another number now; see `open_ranked`.
    now = _shape(replace(source, version=ranked.version))
    if now != before:
        raise MismatchError(f"{uri}: {before} was ranked, but {now} is there now. {_CHANGED}")
    return source


def _shape(side: _Side | VectorSource) -> str:
    shape = f"{side.num_rows} × {side.dim} × {side.dtype}"
    return shape if side.version is None else f"version {side.version} of {shape}"


def _sorted_ids(source: VectorSource) -> NDArray[np.bytes_]:
    blocks = (ids for file in source.files for ids in read_id_blocks(source, file, _ID_ROWS))
    ids = np.sort(np.concatenate(list(blocks)))
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if twice.size:
        raise MismatchError(
            f"{source.uri}: the query id {shown(ids[twice[0]])!r} occurs more than once now, "
            f"which no ranking can have been made of. {_CHANGED}"
        )
    return ids
