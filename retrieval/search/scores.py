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

For the second kind a float64 matrix product is a first guess, wrong by at most a *slack*
that is known; the caller rescores the pairs that the slack leaves open with `pair_scores`.

Metrics, from the dot product `dot` and the squared norms, all canonical:
    cosine   dot / sqrt(‖q‖² · ‖g‖²): one rounding each of product, root and quotient
    ip       dot
    l2       sqrt(Σ (qᵢ − gᵢ)²), the Euclidean distance
    l1       Σ |qᵢ − gᵢ|
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["METRICS", "Rows", "guess_keys", "is_distance", "key_floor", "pair_scores", "scores_of"]

METRICS = ("cosine", "ip", "l2", "l1")
_DISTANCES = ("l2", "l1")

Floats = NDArray[np.float64]


def is_distance(metric: str) -> bool:
    """Whether smaller scores are nearer."""
    return metric in _DISTANCES


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


def _has_exact_product(metric: str, queries: Rows, gallery: Rows) -> bool:
    """Whether a float64 matrix product of these rows cannot round; see the module's head."""
    if not (queries.is_half and gallery.is_half):
        return False
    # With differing scales the sums of l2 and l1 need a common one: only plain rows qualify.
    limit = 1 if metric in ("cosine", "ip") else 0
    return bool(queries.scales.max() <= limit and gallery.scales.max() <= limit)


def guess_keys(metric: str, queries: Rows, gallery: Rows) -> tuple[Floats, Floats]:
    """Nearness of all pairs by one matrix product, and how far it may be off.

    The key of a pair grows with nearness: the score itself for similarities, minus the
    squared distance for l2, minus the distance for l1.

    Returns:
        keys float64 (Q, N), and slack float64 (Q,): |key − canonical key| ≤ slack. The slack
        is 0 where the product is exact; keys are then canonical.

    Cost: 2 Q N D operations; for l1, Q N D without a matrix product.
    """
    num_dims = queries.values.shape[1]
    exact = _has_exact_product(metric, queries, gallery)
    if metric == "cosine":
        keys = queries.values @ gallery.values.T
        keys /= np.sqrt(queries.norms[:, None] * gallery.norms)
        # Norms are at least sqrt(0.5) each, so dividing at most doubles the product's error.
        unit = np.ones(len(queries.norms))
    elif metric == "ip":
        keys = _unscaled(queries) @ _unscaled(gallery).T
        unit = np.ldexp(1.0, queries.scales + gallery.scales.max())
    elif metric == "l2":
        keys = _minus_squared_distances(_unscaled(queries), _unscaled(gallery))
        unit = np.ldexp(1.0, 2 * np.maximum(queries.scales, gallery.scales.max()))
    else:
        keys = _minus_l1(_unscaled(queries), _unscaled(gallery))
        largest = np.maximum(queries.scales, gallery.scales.max())
        unit = np.ldexp(1.0, largest) * np.sqrt(num_dims)
    keys += 0.0  # minus zero becomes zero: equal scores shall have equal bits
    # Rounding in the product: D · 2⁻⁵³ · Σ|terms|, Σ|terms| ≤ 8 units for each metric; in the
    # canonical sum: D terms rounded by 2⁻⁴⁹ at most. Together below (D + 8) · 2⁻⁴⁶ units.
    slack = np.zeros_like(unit) if exact else (num_dims + 8) * 2.0**-46 * unit
    return keys, slack


def _unscaled(rows: Rows) -> Floats:
    return _times_power(rows.values, rows.scales)


def _minus_squared_distances(queries: Floats, gallery: Floats) -> Floats:
    squares = 2.0 * (queries @ gallery.T)
    squares -= np.einsum("qd,qd->q", queries, queries)[:, None]
    squares -= np.einsum("nd,nd->n", gallery, gallery)
    return np.minimum(squares, 0.0, out=squares)


def _minus_l1(queries: Floats, gallery: Floats) -> Floats:
    keys = np.empty((len(queries), len(gallery)))
    for row, query in enumerate(queries):  # one query at a time: N × D of extra memory
        keys[row] = -np.abs(gallery - query).sum(axis=1)
    return keys


def key_floor(metric: str, scores: Floats) -> Floats:
    """The smallest key that a pair with one of these canonical scores, or a better one, has.

    Only for l2 is it not the score's own key: the square of a rounded root.
    """
    if metric == "l2":
        return -(scores * scores) * (1 + 2.0**-50)
    return -scores if metric == "l1" else scores


def scores_of(metric: str, keys: Floats) -> Floats:
    """Canonical scores of exact keys (slack 0)."""
    if metric == "l2":
        return np.sqrt(-keys) + 0.0
    return (-keys if metric == "l1" else keys) + 0.0


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
    # |differences| are below 3, their sum below 2√2·√D: a grid that is coarse enough for D.
    grid = 1.5 * 2.0 ** np.ceil(np.log2(8 * np.sqrt(apart.shape[1])))
    total = ((np.abs(apart) + grid) - grid).sum(axis=1)
    return np.ldexp(total, common) + 0.0
