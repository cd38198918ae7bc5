"""Scores that the k nearest rows of a query very likely reach, guessed from a sample.

A search that begins with nothing has to score k ln(N / k) rows of N for each query, since at
first every row is news. A guess spares it the most of them. It need not hold: where fewer than
k rows reach it, the query is ranked again without one, and where k do, none was left out.

If the sample has one row in s wherever it was taken, it has on average k / s of the k nearest,
however they lie together in the gallery. So of the sample's own scores the one is taken whose
place only one query in a hundred thousand would fill with its k nearest (Poisson).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc
from threadpoolctl import threadpool_limits

from retrieval.search.gallery_block import prepare
from retrieval.vectors import Sample

__all__ = ["guess_floors"]

_TOO_HIGH = 1e-5  # share of the queries whose guess may be so
_SAMPLE_VALUES = 2**22  # rows times dimensions: more would cost more than it tells
_LEAST_SHARE = 1 / 16  # of the gallery that a sample may be; else ranking it costs as much
_ROUNDING = 2.0**-18  # of a float32 product; near-copies would all be missed without
_SLICE_QUERIES = 128  # whose scores are in memory at a time


def guess_floors(  # noqa: PLR0913 - what is ranked, and how
    sample: Sample,
    queries: NDArray[Any],
    k: int,
    metric: str,
    *,
    num_gallery: int,
    exclude_self: bool = False,
    num_threads: int = 1,
) -> NDArray[np.float64]:
    """Guess the key of the k-th nearest gallery row of each query.

    Args:
        sample: Of the gallery.
        queries: (Q, D).
        k: Neighbours of each query.
        metric: One of METRICS, or "minkowski:P".
        num_gallery: Rows of the whole gallery.
        exclude_self: Whether one sampled row may be the query's own, which does not count.
        num_threads: Cores to use.

    Returns:
        float64 (Q,), keys as in `Neighbours.floors`; -inf where there is no guess: for
        distances that are no matrix product, and where a sample does not tell enough.

    Cost: Q N D operations in float32, and about as much time again to select.
    """
    floors = np.full(len(queries), -np.inf)
    stride = -(-sample.vectors.size // _SAMPLE_VALUES)
    rows = sample.vectors[::stride]
    place = _place(k * sample.share / stride) + exclude_self
    is_told = 2 * place <= len(rows) <= _LEAST_SHARE * num_gallery
    if metric not in ("cosine", "ip", "l2") or not is_told:
        return floors
    theirs = prepare(rows.copy(), np.empty(rows.shape, np.float32))
    ours = prepare(queries, np.empty(queries.shape, np.float32))
    if not theirs.is_tame or not ours.is_tame:
        return floors
    offsets = (theirs.squares / 2 * (metric == "l2")).astype(np.float32)
    if metric == "cosine":
        theirs.rough[:] /= np.sqrt(theirs.squares).astype(np.float32)[:, None]
    longest = 1.0 if metric == "cosine" else np.sqrt(theirs.squares.max())

    def guess(start: int) -> None:
        part = slice(start, start + _SLICE_QUERIES)
        scores = ours.rough[part] @ theirs.rough.T - offsets
        best = np.partition(scores, -place, axis=1)[:, -place].astype(np.float64)
        lengths = np.sqrt(ours.squares[part])
        best -= _ROUNDING * lengths * longest
        if metric == "cosine":
            best /= lengths
        elif metric == "l2":
            best = -np.sqrt(np.maximum(ours.squares[part] - 2 * best, 0))
        floors[part] = best

    with threadpool_limits(1, "blas"), ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(guess, range(0, len(queries), _SLICE_QUERIES)))
    return floors


def _place(mean: float) -> int:
    """The smallest number that a Poisson variable of this mean hardly ever reaches."""
    step = max(1, int(mean // 64))
    places = np.arange(1, int(mean + 10 * np.sqrt(mean) + 20), step)
    return int(places[np.argmax(gammainc(places, mean) <= _TOO_HIGH)])
