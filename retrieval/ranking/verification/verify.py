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
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retrieval.errors import IndexFormatError, UsageError
from retrieval.progress import QUIET, Progress
from retrieval.ranking.files import open_ranking
from retrieval.ranking.verification.brute_force import BruteForce, relative_tolerance
from retrieval.ranking.verification.differences import compare
from retrieval.ranking.verification.ids import IdCounter, find_ids
from retrieval.ranking.verification.judged_pairs import JudgedPairs
from retrieval.ranking.verification.listing import (
    Listing,
    check_counts,
    check_repeats,
    read_listing,
)
from retrieval.ranking.verification.task import VerifyTask, prepare
from retrieval.vectors import LongIdError, VectorBlock, VectorSource, read_blocks

__all__ = ["VerifyReport", "run", "verify"]

_BLOCK_BYTES = 2**20  # of a block of vectors in float64: all of its copies stay in a core's cache


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was proved of a ranking.

    Attributes:
        ranking: Its folder.
        metric, top_k: What the manifest says.
        num_queries, num_gallery: Rows of the two sides.
        sample: The queries compared.
        seed: By which they were drawn.
        num_rows: Rows of the ranking.
        num_rows_checked: Those of the queries compared.
        is_exact: True: an error says otherwise.
        relative_tolerance: 0 where scores are compared to the last bit.
        score_rule: By which they are judged.
        num_exact_pairs: Pairs whose scores were judged by exact arithmetic as well.
        certificate: The ranking's own, or None.
        seconds: Of each step.
    """

    ranking: str
    metric: str
    top_k: int
    num_queries: int
    num_gallery: int
    sample: int
    seed: int
    num_rows: int
    num_rows_checked: int
    is_exact: bool
    relative_tolerance: float
    score_rule: int
    num_exact_pairs: int
    certificate: Any
    seconds: Mapping[str, float]


def verify(
    ranking: str,
    *,
    sample: int = 20,
    seed: int = 0,
    queries: str | None = None,
    gallery: str | None = None,
    progress: Progress = QUIET,
) -> VerifyReport:
    """Rank some queries again by brute force and compare.

    Args:
        ranking: Folder of a finished ranking.
        sample: Queries to draw, each as likely as any other; more than there are means all.
        seed: Of the draw.
        queries: Where the queries are now; by default where they were ranked.
        gallery: Likewise of the gallery.
        progress: Told how far it is.

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
    start = time.monotonic()
    try:
        task = prepare(open_ranking(ranking), places, sample, seed, has_long_ids=False)
        return _verify(task, seed, start, progress)
    except LongIdError:  # rare, and only reading the ids tells
        task = prepare(open_ranking(ranking), places, sample, seed, has_long_ids=True)
        return _verify(task, seed, start, progress)


def run(
    ranking: str,
    *,
    sample: int = 20,
    seed: int = 0,
    queries: str | None = None,
    gallery: str | None = None,
) -> dict[str, Any]:
    """`verify` as `pipelines.verify` had it; goes with that name."""
    return asdict(verify(ranking, sample=sample, seed=seed, queries=queries, gallery=gallery))


def _verify(task: VerifyTask, seed: int, start: float, progress: Progress) -> VerifyReport:
    with progress.status("reading the ranking"):
        listing = read_listing(
            task.ranking,
            task.query_ids,
            task.sample_ids,
            task.metric,
            exclude_self=task.exclude_self,
            long_ids=task.gallery.long_ids,
        )
    listed = time.monotonic()
    num_exact_pairs = _check_against_gallery(task, listing, seed, progress)
    ended = time.monotonic()
    return VerifyReport(
        ranking=task.ranking.uri,
        metric=task.metric,
        top_k=task.top_k,
        num_queries=len(task.query_ids),
        num_gallery=task.gallery.num_rows,
        sample=len(task.sample_ids),
        seed=seed,
        num_rows=int(listing.counts.sum()),
        num_rows_checked=len(listing.sample),
        is_exact=True,
        relative_tolerance=relative_tolerance(task.metric, task.gallery.dim),
        score_rule=task.rule,
        num_exact_pairs=num_exact_pairs,
        certificate=task.ranking.facts.get("certificate"),
        seconds={
            "read_ranking": round(listed - start, 3),
            "brute_force": round(ended - listed, 3),
        },
    )


def _check_against_gallery(
    task: VerifyTask, listing: Listing, seed: int, progress: Progress
) -> int:
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
    with progress.line("compared", "gallery rows", num_rows, lambda: num_done):
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


def _check_num_rows(task: VerifyTask, listing: Listing) -> None:
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


def _read_sample(task: VerifyTask) -> VectorBlock:
    """The vectors of the sampled queries, in one pass over all of them."""
    source, ids = task.queries, task.sample_ids
    vectors = np.empty((len(ids), source.dim), source.dtype)
    for block in _blocks(source):
        places = find_ids(ids, block.ids)
        vectors[places[places >= 0]] = block.vectors[places >= 0]
    return VectorBlock(ids, vectors)
