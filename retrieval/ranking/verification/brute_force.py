"""The k nearest of a few queries among all gallery rows, in float64 with NumPy alone.

No engine of `retrieval.search` is used, no float32, no compiled loop: only the canonical scores
as `canonical` computes them, and the definition of an order (`merge.best`). A pair is left
out only where its score provably cannot reach the k-th best so far. For cosine, ip and l2 a
float64 matrix product tells; for other metrics every pair is scored.

The proof. u = 2⁻⁵³; rows are scaled to squared norms below 2, with D dimensions.

    product    A float64 sum of D products, in any order, with or without fused multiply-add,
               is off by at most D u Σ|terms| ≤ D · 2⁻⁵², by Cauchy–Schwarz, up to second order
               (Higham, Accuracy and Stability, §3.1).
    canonical  Each of D products is rounded by u of its size, then by 2⁻⁵¹: D · 2⁻⁵¹ + 2⁻⁵².
    dot        So the canonical dot product is at most the product's plus (D + 2) · 2⁻⁵⁰.
    l2         ‖q‖² + ‖g‖² − 2 q·g, in one scale: the two norms, canonical, are off by
               D · 2⁻⁵¹ + 2⁻⁵² each, the product twice D · 2⁻⁵², and three sums of size at most 8
               by 2⁻⁵⁰ each: together by (D + 2) · 2⁻⁴⁹ at most. The square of a canonical
               distance is off by (D + 4) · 2⁻⁴⁹ by rule 1 (`rule_one`), and by rule 2
               (`search.scores`) by (D + 2) · 2⁻⁵¹ of a size of at most 8: all of it, and a root,
               below (D + 4) · 2⁻⁴⁷.

The score's bound is the canonical formula of that sum. Its quotient, root and powers of two are
correctly rounded, and so never decreasing: what is below before them is not above after them.
Among near neighbours the sum cancels, and is far below its margin: all of them are scored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.ranking.verification.canonical import Rows, pair_scores
from retrieval.ranking.verification.ids import find_ids
from retrieval.search.merge import Candidates, best
from retrieval.search.scores import is_distance, minkowski_power, score_rule
from retrieval.vectors import VectorBlock

__all__ = ["BruteForce", "relative_tolerance"]

_CHUNK_VALUES = 2**17  # components of the pairs that are scored at once: 1 MiB an array
_BY_PRODUCT = ("cosine", "ip", "l2")

Floats = NDArray[np.float64]


def relative_tolerance(metric: str, dim: int) -> float:
    """By how much of its size a right score may differ from that of brute force.

    Nothing where scores are canonical. Powers are not (see `scores`): each side is right to
    D · 2⁻⁵⁰.
    """
    return 2 * dim * 2.0**-50 if minkowski_power(metric) else 0.0


def _upper_bounds(metric: str, queries: Rows, gallery: Rows) -> Floats:
    """Keys that those of the pairs cannot exceed, float64 (Q, N); see the module's proof.

    The key is the score of a similarity, and minus the score of a distance.
    """
    dots = queries.values @ gallery.values.T
    num_dims = queries.values.shape[1]
    ours, theirs = queries.scales[:, None], gallery.scales
    if metric == "l2":
        common = np.maximum(ours, theirs)
        squares = np.ldexp(queries.norms[:, None], 2 * (ours - common))
        squares = squares + np.ldexp(gallery.norms, 2 * (theirs - common))
        squares -= np.ldexp(dots, 1 + ours + theirs - 2 * common)
        squares -= (num_dims + 4) * 2.0**-47
        return -np.ldexp(np.sqrt(np.maximum(squares, 0.0)), common)
    dots += (num_dims + 2) * 2.0**-50
    if metric == "ip":
        return np.ldexp(dots, ours + theirs)
    return dots / np.sqrt(queries.norms[:, None] * gallery.norms)


class BruteForce:
    """The k nearest gallery rows of each query, from a stream of gallery blocks."""

    def __init__(
        self,
        queries: VectorBlock,
        k: int,
        metric: str,
        *,
        exclude_self: bool = False,
        listed: Candidates | None = None,
        rule: int | None = None,
    ) -> None:
        """Prepare the queries.

        Args:
            queries: Q vectors; their ids sorted, each once.
            k: Neighbours to keep, at least 1.
            metric: One of `scores.METRICS`, or "minkowski:P".
            exclude_self: Leave out gallery rows whose id is the query's own.
            listed: Pairs whose scores are wanted whether or not they are near.
            rule: By which scores are computed, one of `scores.RULES`; the present one by default.
        """
        self._ids = queries.ids
        self._queries = Rows.prepare(queries.vectors)
        self._k = k
        self._metric = metric
        self._rule = score_rule(metric) if rule is None else rule
        self._exclude_self = exclude_self
        self._sign = -1.0 if is_distance(metric) else 1.0
        self._floors = np.full(len(self._ids), -np.inf)  # keys of the k-th best so far
        self._kept = Candidates.none()
        self._pending: list[Candidates] = []
        self._listed = _Listed(Candidates.none() if listed is None else listed)
        self._of_listed: list[Candidates] = []

    def add(self, block: VectorBlock) -> None:
        """Take a block of N gallery rows, with N · D a few hundred thousand for speed.

        Cost: 2 Q N D operations for cosine, ip and l2, some 10 passes over the N · D values in
            float64, and the rescoring of pairs near the k-th best; about 10 Q N D for others
            and where the k are not found yet. Memory of a few times the block in float64.
        """
        gallery = Rows.prepare(block.vectors)
        with np.errstate(over="ignore"):  # a score beyond float64 is infinite, as it should be
            query, row = self._open_pairs(gallery, block.ids)
            scores = self._scores(query, row, gallery)
        found = Candidates(query.astype(np.int32), block.ids[row], scores)
        self._of_listed.append(_take(found, self._listed.holds(query, row, block.ids)))
        self._pending.append(_take(found, self._sign * scores >= self._floors[query]))
        # Not after each block, since sorting ids costs more than scoring a few pairs too many.
        if sum(map(len, self._pending)) >= self._k * len(self._ids):
            self._merge()

    def nearest(self) -> Candidates:
        """The k nearest of all rows so far, sorted by query, then nearest first, then by id."""
        self._merge()
        return self._kept

    def scores_of_listed(self) -> Candidates:
        """The listed pairs that there are in the gallery, in any order."""
        parts = [part for part in self._of_listed if len(part)] or [Candidates.none()]
        return Candidates(
            np.concatenate([part.query for part in parts]),
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )

    def _open_pairs(
        self, gallery: Rows, ids: NDArray[np.bytes_]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Numbers of the queries and the rows of all pairs that must be scored."""
        if self._metric in _BY_PRODUCT:
            bounds = _upper_bounds(self._metric, self._queries, gallery)
            is_open = bounds >= self._floors[:, None]
        else:
            is_open = np.ones((len(self._ids), len(ids)), np.bool_)
        if self._exclude_self:
            own = find_ids(self._ids, ids)
            rows = np.flatnonzero(own >= 0)
            is_open[own[rows], rows] = False
        query, row = np.nonzero(is_open)
        return query, row

    def _scores(
        self, query: NDArray[np.intp], row: NDArray[np.intp], gallery: Rows
    ) -> NDArray[np.float64]:
        step = max(1, _CHUNK_VALUES // gallery.values.shape[1])
        scores = np.empty(len(query))
        for start in range(0, len(query), step):
            pairs = slice(start, start + step)
            ours, theirs = self._queries.take(query[pairs]), gallery.take(row[pairs])
            scores[pairs] = pair_scores(self._metric, self._rule, ours, theirs)
        return scores

    def _merge(self) -> None:
        """Keep the best, and raise the floors to the k-th of each query that has so many."""
        parts = [self._kept, *self._pending]
        self._kept = best(parts, self._k, smaller_is_nearer=is_distance(self._metric))
        self._pending = []
        counts = np.bincount(self._kept.query, minlength=len(self._ids))
        last = np.cumsum(counts)[counts == self._k] - 1
        self._floors[counts == self._k] = self._sign * self._kept.scores[last]


class _Listed:
    """Is a pair among some listed ones?"""

    def __init__(self, listed: Candidates) -> None:
        self._names = np.unique(listed.ids)
        self._codes = np.unique(self._code(listed.query, find_ids(self._names, listed.ids)))

    def _code(self, query: NDArray[Any], name: NDArray[np.intp]) -> NDArray[np.int64]:
        return query.astype(np.int64) * len(self._names) + name

    def holds(
        self, query: NDArray[np.intp], row: NDArray[np.intp], ids: NDArray[np.bytes_]
    ) -> NDArray[np.bool_]:
        """Of each pair of a query and a row of a block with these ids; bool (M,)."""
        if not len(self._names):
            return np.zeros(len(query), np.bool_)
        name = find_ids(self._names, ids)[row]
        return (name >= 0) & np.isin(self._code(query, name), self._codes)


def _take(found: Candidates, is_kept: NDArray[np.bool_]) -> Candidates:
    return Candidates(found.query[is_kept], found.ids[is_kept], found.scores[is_kept])
