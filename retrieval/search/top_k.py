"""One block of queries against a stream of gallery blocks.

For each gallery block a matrix product gives every pair a key (see `scores`). A pair can be
among the k nearest only if its key reaches a floor: the k-th best canonical score so far, or
the k-th best key of this block. What reaches the floor, less the slack of the product, gets
its canonical score and joins the candidates; what does not is proven to be no neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from retrieval.search.candidates import Candidates, best
from retrieval.search.scores import (
    Rows,
    guess_keys,
    is_distance,
    key_floor,
    pair_scores,
    scores_of,
)
from retrieval.vectors import VectorBlock

__all__ = ["top_k"]

# Pairs rescored at a time: their vectors, two copies and temporaries, stay below 64 MiB at
# 512 dimensions.
_PAIRS_AT_ONCE = 4096


def top_k(
    queries: VectorBlock,
    gallery: Iterable[VectorBlock],
    k: int,
    metric: str,
    *,
    exclude_self: bool = False,
) -> Candidates:
    """Find the k nearest gallery rows of each query, exactly.

    Args:
        queries: Q vectors with their ids.
        gallery: Blocks of N vectors with their ids; read once, in any order and grouping.
        k: Neighbours to keep, at least 1. More than the gallery has means all.
        metric: One of `METRICS`.
        exclude_self: Leave out gallery rows whose id is the query's own.

    Returns:
        For each query (its number in the block) its nearest rows with canonical scores,
        nearest first, equal scores by id. The same bits for any grouping of the gallery.

    Cost: 2 Q N D operations a block, and three float64 matrices of Q × N; candidates take
        about 3 k rows a query.
    """
    search = _Search(queries, k, metric, exclude_self)
    for block in gallery:
        search.add(block)
    return search.result()


class _Search:
    """Candidates of a block of queries, and the score that a new one has to reach."""

    def __init__(self, queries: VectorBlock, k: int, metric: str, exclude_self: bool) -> None:
        self.ids = queries.ids
        self.rows = Rows.prepare(queries.vectors)
        self.k = k
        self.metric = metric
        self.exclude_self = exclude_self
        self.parts: list[Candidates] = []
        self.num_loose = 0  # candidates since the last trim
        self.floor = np.full(len(queries.ids), -np.inf)  # keys below are out

    def add(self, block: VectorBlock) -> None:
        """Take in the pairs of one gallery block that can be among the k nearest."""
        gallery = Rows.prepare(block.vectors)
        keys, slack = guess_keys(self.metric, self.rows, gallery)
        if self.exclude_self:
            keys[_equal_ids(self.ids, block.ids)] = -np.inf
        floor = np.maximum(self.floor, self._floor_of(keys, slack))
        # -inf never passes, so that an excluded pair cannot come in below an empty floor.
        floor = np.maximum(floor - slack, -np.finfo(np.float64).max)
        query, row = np.nonzero(keys >= floor[:, None])
        if slack.any():
            scores = self._rescore(gallery, query, row)
        else:
            scores = scores_of(self.metric, keys[query, row])
        self.parts.append(Candidates(query.astype(np.int32), block.ids[row], scores))
        self.num_loose += len(query)
        # Trimming sorts; waiting for as many again makes its cost a constant per candidate.
        if self.num_loose >= len(self.ids) * self.k:
            self._trim()

    def _floor_of(
        self, keys: NDArray[np.float64], slack: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Key that the k-th nearest row of this block alone reaches for certain."""
        num_rows = keys.shape[1]
        if self.k >= num_rows or np.isfinite(self.floor).all():
            return self.floor  # the running floor is at least as sharp after one block
        kth = np.partition(keys, num_rows - self.k, axis=1)[:, num_rows - self.k]
        return key_floor(self.metric, scores_of(self.metric, kth - slack))

    def _rescore(
        self, gallery: Rows, query: NDArray[np.intp], row: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        scores = np.empty(len(query))
        for start in range(0, len(query), _PAIRS_AT_ONCE):
            some = slice(start, start + _PAIRS_AT_ONCE)
            ours, theirs = self.rows.take(query[some]), gallery.take(row[some])
            scores[some] = pair_scores(self.metric, ours, theirs)
        return scores

    def _trim(self) -> None:
        """Keep the k nearest of each query, and raise the floor to its k-th score."""
        kept = best(self.parts, self.k, smaller_is_nearer=is_distance(self.metric))
        self.parts, self.num_loose = [kept], 0
        ends = np.cumsum(np.bincount(kept.query, minlength=len(self.ids)))
        full = np.diff(ends, prepend=0) == self.k
        self.floor[full] = key_floor(self.metric, kept.scores[ends[full] - 1])

    def result(self) -> Candidates:
        """The k nearest so far."""
        self._trim()
        return self.parts[0]


def _equal_ids(
    queries: NDArray[np.bytes_], gallery: NDArray[np.bytes_]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs (query, row) of equal ids; an id may occur several times in the gallery."""
    order = np.argsort(gallery, kind="stable")
    first = np.searchsorted(gallery[order], queries, side="left")
    last = np.searchsorted(gallery[order], queries, side="right")
    counts = last - first
    query = np.repeat(np.arange(len(queries)), counts)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return query, order[np.repeat(first, counts) + within]
