"""Prove a ranking by brute force, independently of the engine that made it.

Its scores have to be those of the rule that it names, to the bit, by another implementation than
the engines'; and those of some pairs as near to the real value, in exact arithmetic, as the rule
promises. So neither a fault of an engine nor one of the rule is taken for the truth.

Reads       a ranking, whole; the gallery that it names, once and block by block; the vectors of
            some of its queries.
Writes      nothing; the report is the result.
Resources   one process, without Ray: it must not share a fault with what it checks. Memory
            holds the ids of the queries, one part of the ranking, one block of the gallery, and
            top_k rows for each sampled query, twice.
Fails when  the ranking differs from brute force, its files are not those of one finished job,
            or the vectors are not those that were ranked.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.progress import progress_line, status_line
from retrieval.errors import IndexFormatError, MismatchError, RetrievalError, UsageError
from retrieval.ranking.files import Ranking, open_ranking
from retrieval.ranking.sides import open_ranked
from retrieval.ranking.verification import (
    BruteForce,
    IdCounter,
    JudgedPairs,
    Listing,
    check_counts,
    check_repeats,
    compare,
    find_ids,
    read_listing,
    relative_tolerance,
    shown,
)
from retrieval.search.scores import METRICS, minkowski_power, score_rule
from retrieval.vectors import (
    LongIdError,
    LongIds,
    VectorBlock,
    VectorSource,
    read_blocks,
    read_id_text,
)
from retrieval.vectors import read_ids as read_id_blocks

__all__ = ["run"]

_BLOCK_BYTES = 2**20  # of a block of vectors in float64: all of its copies stay in a core's cache
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
class _Task:
    """A ranking, what was ranked, and the queries to rank again."""

    ranking: Ranking
    queries: VectorSource
    gallery: VectorSource
    metric: str
    rule: int
    top_k: int
    exclude_self: bool
    query_ids: NDArray[np.bytes_]  # sorted
    sample_ids: NDArray[np.bytes_]  # sorted


def run(
    ranking: str,
    *,
    sample: int = 20,
    seed: int = 0,
    queries: str | None = None,
    gallery: str | None = None,
) -> dict[str, Any]:
    """Rank some queries again by brute force and compare.

    Args:
        ranking: Folder of a finished ranking.
        sample: Queries to draw, each as likely as any other; more than there are means all.
        seed: Of the draw.
        queries: Where the queries are now; by default where they were ranked.
        gallery: Likewise of the gallery.

    Returns:
        The report: what was ranked; `sample`, the queries compared, and `num_rows_checked`,
        their rows; `relative_tolerance`, 0 where scores are compared to the last bit;
        `score_rule`, by which they are judged; `num_exact_pairs`, pairs whose scores were
        judged by exact arithmetic as well; the ranking's own `certificate`, or None.

    Raises:
        UsageError: `sample` is less than 1, or `seed` is negative.
        IndexFormatError: the ranking is wrong; the first difference is named.
        MismatchError: the queries or the gallery are not those that were ranked.
        StorageError: there is no finished ranking.

    Cost: reads the gallery once; see `BruteForce.add`.
    """
    if sample < 1 or seed < 0:
        raise UsageError(
            f"sample = {sample}, seed = {seed}: at least 1 query, and a seed of 0 or more, are "
            f"needed."
        )
    places = {"queries": queries, "gallery": gallery}
    try:
        return _verify(ranking, places, sample, seed, has_long_ids=False)
    except LongIdError:  # rare, and only reading the ids tells
        return _verify(ranking, places, sample, seed, has_long_ids=True)


def _verify(
    ranking: str, places: Mapping[str, str | None], sample: int, seed: int, *, has_long_ids: bool
) -> dict[str, Any]:
    start = time.monotonic()
    task = _prepare(open_ranking(ranking), places, sample, seed, has_long_ids=has_long_ids)
    with status_line("reading the ranking"):
        listing = read_listing(
            task.ranking,
            task.query_ids,
            task.sample_ids,
            task.metric,
            exclude_self=task.exclude_self,
            long_ids=task.gallery.long_ids,
        )
    listed = time.monotonic()
    num_exact_pairs = _check_against_gallery(task, listing, seed)
    ended = time.monotonic()
    facts = task.ranking.facts
    return {
        "ranking": task.ranking.uri,
        "metric": task.metric,
        "top_k": task.top_k,
        "num_queries": len(task.query_ids),
        "num_gallery": task.gallery.num_rows,
        "sample": len(task.sample_ids),
        "seed": seed,
        "num_rows": int(listing.counts.sum()),
        "num_rows_checked": len(listing.sample),
        "is_exact": True,
        "relative_tolerance": relative_tolerance(task.metric, task.gallery.dim),
        "score_rule": task.rule,
        "num_exact_pairs": num_exact_pairs,
        "certificate": facts.get("certificate"),
        "seconds": {
            "read_ranking": round(listed - start, 3),
            "brute_force": round(ended - listed, 3),
        },
    }


def _prepare(
    ranking: Ranking,
    places: Mapping[str, str | None],
    sample: int,
    seed: int,
    *,
    has_long_ids: bool,
) -> _Task:
    """Open what was ranked and draw the queries."""
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
    return _Task(
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


def _check_against_gallery(task: _Task, listing: Listing, seed: int) -> int:
    """Compare with brute force, with real values, and with what is known of the gallery's ids.

    Returns:
        Pairs whose scores were compared with real values.
    """
    num_rows, num_queries = task.gallery.num_rows, len(task.query_ids)
    if not task.exclude_self:  # known without reading the gallery
        check_counts(listing, task.top_k, np.full(num_queries, num_rows))
    tolerance = relative_tolerance(task.metric, task.gallery.dim)
    queries = _read_sample(task)
    judged = JudgedPairs(queries, listing.sample, task.metric, task.rule, seed=seed)
    search = BruteForce(
        queries,
        task.top_k,
        task.metric,
        exclude_self=task.exclude_self,
        listed=listing.sample if tolerance else None,
        rule=task.rule,
    )
    own_ids = IdCounter(task.query_ids if task.exclude_self else task.query_ids[:0])
    repeated_ids = IdCounter(listing.repeated_ids)
    num_done = 0
    with progress_line("compared", "gallery rows", num_rows, lambda: num_done):
        for block in _blocks(task.gallery):
            search.add(block)
            judged.add(block)
            own_ids.add(block.ids)
            repeated_ids.add(block.ids)
            num_done += len(block.ids)
    if task.exclude_self:
        check_counts(listing, task.top_k, num_rows - own_ids.counts(task.query_ids))
    _check_num_rows(task, listing)
    check_repeats(listing, repeated_ids)
    compare(
        task.ranking.uri,
        task.sample_ids,
        listing.sample,
        search.nearest(),
        tolerance=tolerance,
        scored=search.scores_of_listed(),
    )
    judged.check(task.ranking.uri)
    return len(judged)


def _check_num_rows(task: _Task, listing: Listing) -> None:
    said, found = task.ranking.facts["num_rows"], int(listing.counts.sum())
    if said != found:
        raise IndexFormatError(
            f"{task.ranking.manifest}: says {said} rows, but the parts hold {found}, as many as "
            f"are needed. Rank again."
        )


def _blocks(source: VectorSource) -> Iterator[VectorBlock]:
    max_rows = max(1, _BLOCK_BYTES // (8 * source.dim))
    for file in source.files:
        yield from read_blocks(source, file, max_rows)


def _read_sample(task: _Task) -> VectorBlock:
    """The vectors of the sampled queries, in one pass over all of them."""
    source, ids = task.queries, task.sample_ids
    vectors = np.empty((len(ids), source.dim), source.dtype)
    for block in _blocks(source):
        places = find_ids(ids, block.ids)
        vectors[places[places >= 0]] = block.vectors[places >= 0]
    return VectorBlock(ids, vectors)
