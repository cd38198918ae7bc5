"""The canonical score of a query and a gallery vector: a pure function of the two.

Floating-point sums depend on their order, so a matrix product gives other bits for another
block size, thread count or machine. Here every sum that decides a score is one in which
**no addition rounds**; then all orders agree.

float16 vectors (norm below 2√2, as all normalised ones are). A float16 value is a multiple
of 2⁻²⁴, a product of two a multiple of 2⁻⁴⁸, and by Cauchy–Schwarz every partial sum of
products stays below 8 in size: 51 bits. A float64 holds 53, so a float64 matrix product has
no rounding at all, whichever library computes it.

All others (float32, float64, large norms). Rows are scaled by a power of two (exact) to a
squared norm in [0.5, 2); each product p, |p| ≤ 2, is rounded to a multiple of 2⁻⁵⁰ by
(p + 6) − 6, since numbers in [4, 8) have that spacing; sums stay below 4, so no addition
rounds. The error of a score is at most D · 2⁻⁵¹ for vectors of length one. This is
pre-rounded summation (Demmel, Ahrens, Nguyen, EECS-2016-121) with one fold, which is enough
because the terms are bounded. Where both rules apply they agree: multiples of 2⁻⁴⁸ are
multiples of 2⁻⁵⁰ and (p + 6) − 6 leaves them alone.

Metrics, from the dot product `dot` and the squared norms, all canonical:
    cosine   dot / sqrt(‖q‖² · ‖g‖²): one rounding each of product, root and quotient
    ip       dot
    l2       sqrt(Σ (qᵢ − gᵢ)²), the Euclidean distance
    l1       Σ |qᵢ − gᵢ|
    minkowski:P  (Σ |qᵢ − gᵢ|ᴾ)^(1/P), P ≥ 1: no exact sum, since powers are rounded by the
                 machine's own library; right to a relative error of D · 2⁻⁵⁰
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["METRICS", "Rows", "is_distance", "minkowski_power", "pair_scores"]

METRICS = ("cosine", "ip", "l2", "l1")
_DISTANCES = ("l2", "l1")

Floats = NDArray[np.float64]


def is_distance(metric: str) -> bool:
    """Whether smaller scores are nearer."""
    return metric in _DISTANCES or minkowski_power(metric) is not None


def minkowski_power(metric: str) -> float | None:
    """P of "minkowski:P"; None for anything else, and for a P below 1 or without end.

    Example:
        >>> minkowski_power("minkowski:3")
        3.0
    """
    name, _, power = metric.partition(":")
    try:
        value = float(power) if name == "minkowski" else 0.0
    except ValueError:
        return None
    return value if 1 <= value < float("inf") else None


@dataclass(frozen=True)
class Rows:
    """Vectors made ready for scoring.

    Attributes:
        values: float64 (N, D), the stored values times 2^-scales: squared norms in [0.5, 2).
        scales: int32 (N,), exponents of two.
        norms: float64 (N,), canonical squared norms of `values`.
        is_half: Whether the stored values were float16.
    """

    values: Floats
    scales: NDArray[np.int32]
    norms: Floats
    is_half: bool

    @classmethod
    def prepare(cls, vectors: NDArray[Any]) -> Rows:
        """Scale vectors and compute their squared norms.

        Args:
            vectors: float16, float32 or float64 (N, D), finite, no zero vector.
        """
        stored = vectors.astype(np.float64)
        # First by the largest component, so that no square over- or underflows ...
        scales = np.frexp(np.abs(stored).max(axis=1))[1].astype(np.int32)
        values = _times_power(stored, -scales)
        # ... then by the norm. Squares are at most 1 and their sum at most D: a grid that is
        # coarse enough for D makes this sum, and so the scale, independent of order.
        grid = 1.5 * 2.0 ** np.ceil(np.log2(values.shape[1] + 1))
        square = ((values * values + grid) - grid).sum(axis=1)
        more = np.ceil((np.frexp(square)[1] - 1) / 2).astype(np.int32)
        scales += more
        values = _times_power(stored, -scales)
        norms = _round_products(values * values).sum(axis=1)
        return cls(values, scales, norms, vectors.dtype == np.float16)

    def take(self, rows: NDArray[np.intp]) -> Rows:
        """Some of the rows, in the order asked for."""
        return Rows(self.values[rows], self.scales[rows], self.norms[rows], self.is_half)


def _times_power(values: Floats, exponents: NDArray[np.int32]) -> Floats:
    """Each row times a power of two: exact, and several times faster than ldexp."""
    if not exponents.any():
        return values
    half = exponents // 2  # in two steps, since 2¹⁰⁷⁴, which tiny float64 need, overflows
    return values * np.ldexp(1.0, half)[:, None] * np.ldexp(1.0, exponents - half)[:, None]


def _round_products(products: Floats) -> Floats:
    """Round numbers of size at most 2 to multiples of 2⁻⁵⁰."""
    return (products + 6.0) - 6.0


def pair_scores(metric: str, queries: Rows, gallery: Rows) -> Floats:
    """Canonical scores of pairs: row i of the queries with row i of the gallery.

    Returns:
        float64 (M,).

    Cost: O(M D) time and extra memory; call it with some thousand pairs at a time.
    """
    if metric in ("cosine", "ip"):
        dots = _round_products(queries.values * gallery.values).sum(axis=1)
        if metric == "ip":
            return np.ldexp(dots, queries.scales + gallery.scales) + 0.0
        return dots / np.sqrt(queries.norms * gallery.norms) + 0.0
    # Differences need one scale for both rows: the larger, so that their norms stay below √2.
    common = np.maximum(queries.scales, gallery.scales)
    ours = _times_power(queries.values, queries.scales - common)
    theirs = _times_power(gallery.values, gallery.scales - common)
    apart = ours - theirs
    if metric == "l2":
        # Squares are at most 8 and so is their sum: [16, 32) has the spacing 2⁻⁴⁸.
        total = ((apart * apart + 24.0) - 24.0).sum(axis=1)
        return np.ldexp(np.sqrt(total), common) + 0.0
    if power := minkowski_power(metric):
        sizes = np.abs(apart)
        # Of the largest, since a high power of a small component alone would vanish.
        largest = np.maximum(sizes.max(axis=1), np.finfo(np.float64).tiny)
        sums: Floats = ((sizes / largest[:, None]) ** power).sum(axis=1)
        return np.ldexp(sums ** (1 / power) * largest, common) + 0.0
    # |differences| are below 3, their sum below 2√2·√D: a grid that is coarse enough for D.
    grid = 1.5 * 2.0 ** np.ceil(np.log2(8 * np.sqrt(apart.shape[1])))
    total = ((np.abs(apart) + grid) - grid).sum(axis=1)
    return np.ldexp(total, common) + 0.0
