"""The canonical score of a query and a gallery vector: a pure function of the two.

This is the rule, with its proof, in NumPy. What runs is `rescoring` on the CPU, in compiled loops,
and `gpu.rescoring` on a GPU: both have the constants from here, and the bits.

Floating-point sums depend on their order, so a matrix product gives other bits for another
block size, thread count or machine. Here every sum that decides a score is one in which
**no addition rounds**; then all orders agree.

float16 vectors (norm below 2√2, as all normalised ones are). A float16 value is a multiple
of 2⁻²⁴, a product of two a multiple of 2⁻⁴⁸, and by Cauchy–Schwarz every partial sum of
products stays below 8 in size: 51 bits. A float64 holds 53, so a float64 matrix product has
no rounding at all, whichever library computes it.

Products of all others (float32, float64, large norms). Rows are scaled by a power of two
(exact) to a squared norm in [0.5, 2); each product p, |p| < 2, is rounded to a multiple of 2⁻⁵⁰
by (p + 6) − 6, since numbers in [4, 8) have that spacing; sums stay below 4, so no addition
rounds. This is pre-rounded summation (Demmel, Ahrens, Nguyen, EECS-2016-121) with one fold,
which is enough because the terms are bounded. Where both rules apply they agree: multiples of
2⁻⁴⁸ are multiples of 2⁻⁵⁰ and (p + 6) − 6 leaves them alone.

Distances. Near neighbours have differences that are tiny beside the rows: a grid that suits
the rows would round them away. So the differences dᵢ = fl(qᵢ − gᵢ), of the stored values as
they are, get a scale 2ᵉ of their own. It must not depend on an order either:
  1. 2ˢ is the power of two above the largest |dᵢ|. Each square (dᵢ 2⁻ˢ)² < 1 is rounded to the
     spacing 2ᴸ⁻⁵² of numbers near 1.5 · 2ᴸ, 2ᴸ > D. Sums stay below 2ᴸ, and do not round.
  2. From this coarse sum, and from it alone, e is such that it becomes one in [1, 4) for the
     differences times 2⁻ᵉ. As rounding is monotonic and 4ᵏ on every grid, no square then
     reaches 4; nor does their sum reach 8, since the coarse sum, of which the largest term is
     at least ¼, is right to a part of D² 2⁻⁵⁰.
  3. Each square (dᵢ 2⁻ᵉ)² is rounded to a multiple of 2⁻⁵⁰ by (v + 4) − 4. Sums below 8 of such
     numbers do not round. The distance is 2ᵉ times the root of the sum.
l1 is the same without squares: a coarse sum in [1, 2), terms below 2 on a grid of 2⁻⁵¹ by
(v + 2) − 2, sums below 4. If all dᵢ are 0 the distance is +0.0; if one is beyond float64, so is
the distance: infinite. Distances scale with the vectors by powers of two, and are symmetric.
float16 vectors of norm below √2: Σ dᵢ² < 8, so e ≤ 1, and squares, multiples of 2⁻⁴⁸, are
multiples of 2⁻⁵⁰ still after the scaling; for l1 e < 27. So nothing is rounded but the root,
with which a power of two commutes: it has the bits of any exact sum.

Metrics, from the dot product `dot` and the squared norms, all canonical:
    cosine   dot / sqrt(‖q‖² · ‖g‖²): one rounding each of product, root and quotient
    ip       dot
    l2       sqrt(Σ (qᵢ − gᵢ)²), the Euclidean distance
    l1       Σ |qᵢ − gᵢ|
    minkowski:P  (Σ |qᵢ − gᵢ|ᴾ)^(1/P), P ≥ 1: no exact sum, since powers are rounded by the
                 machine's own library

How far a score may be from the real number, for any finite rows, D < 2¹⁶, and beside half of
the smallest float64 where that is what it comes to:
    cosine     (D + 2) · 2⁻⁴⁹. A dot product is off by D halves of 2⁻⁵⁰ and by 2⁻⁵³ of the
               products, in all (D + ½) 2⁻⁵¹ where ‖q‖‖g‖ ≥ ½; the norms' product as much again.
    ip         (D + 1) · 2⁻⁵⁰ · ‖q‖‖g‖
    l2, l1     (D + 2) · 2⁻⁵² of its own size. A difference is off by 2⁻⁵³ of itself, even where
               it is subnormal; so a square by 3 · 2⁻⁵³ of itself, and by 2⁻⁵¹, half a step of the
               grid, where the sum is 1 or more; the root halves that and is off by 2⁻⁵³.
               l1: by 2⁻⁵³, and D times 2⁻⁵².
    minkowski  D · 2⁻⁵⁰ of its own size
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from retrieval.choices import METRICS, minkowski_power

__all__ = [
    "COARSE_GRID",
    "EXACT_SQUARES",
    "METRICS",
    "PRODUCT_GRID",
    "RULES",
    "SIZE_GRID",
    "SQUARE_GRID",
    "Rows",
    "is_distance",
    "minkowski_power",
    "pair_scores",
    "score_rule",
]

_DISTANCES = ("l2", "l1")

# The numbers of all rules by which scores have ever been computed: a file names its own, and
# scores by different ones must never meet in one list. A file without a number is by rule 1.
#   1  cosine and ip to this day. Distances in files written before rule 2: differences in the
#      scale of the longer vector, for l2 and l1 rounded to a grid of about 2⁻⁴⁸ of its length,
#      so that near neighbours had distances of few right digits, or of 0.
#   2  distances: right to a small part of their own size.
RULES = (1, 2)

# (v + grid) − grid rounds v to the spacing of the numbers near the grid. The proofs above are about
# these values: another one is another rule. Numba has them as constants in its compiled loops,
# which do not notice a change of this file: after one, remove retrieval/search/__pycache__.
PRODUCT_GRID: Final = 6.0  # of products of size below 2: multiples of 2⁻⁵⁰
SQUARE_GRID: Final = 4.0  # of squared differences below 4: multiples of 2⁻⁵⁰
SIZE_GRID: Final = 2.0  # of absolute differences below 2: multiples of 2⁻⁵¹
COARSE_GRID: Final = 1.5  # times 2ᴸ > D, of terms up to 1, for the scale alone
# Squared norms of float16 rows below which no sum of a pair rounds.
EXACT_SQUARES: Final = {"cosine": 8.0, "ip": 8.0, "l2": 2.0, "l1": 2.0}

Floats = NDArray[np.float64]


def is_distance(metric: str) -> bool:
    """Whether smaller scores are nearer."""
    return metric in _DISTANCES or minkowski_power(metric) is not None


def score_rule(metric: str) -> int:
    """The number of the rule by which scores of a metric are computed now; see `RULES`.

    Args:
        metric: One of METRICS, or "minkowski:P".

    Example:
        >>> score_rule("cosine"), score_rule("l2")
        (1, 2)
    """
    return 2 if is_distance(metric) else 1


@dataclass(frozen=True)
class Rows:
    """Vectors made ready for scoring.

    Attributes:
        stored: float16, float32 or float64 (N, D), as they are; not a copy.
        values: float64 (N, D), the stored values times 2^-scales: squared norms in [0.5, 2).
        scales: int32 (N,), exponents of two.
        norms: float64 (N,), canonical squared norms of `values`.
        is_half: Whether the stored values were float16.
    """

    stored: NDArray[Any]
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
        square = _coarse_sums(values * values)
        more = np.ceil((np.frexp(square)[1] - 1) / 2).astype(np.int32)
        scales += more
        values = _times_power(stored, -scales)
        norms = _round_products(values * values).sum(axis=1)
        return cls(vectors, values, scales, norms, vectors.dtype == np.float16)

    def take(self, rows: NDArray[np.intp]) -> Rows:
        """Some of the rows, in the order asked for."""
        parts = self.stored[rows], self.values[rows], self.scales[rows], self.norms[rows]
        return Rows(*parts, self.is_half)


def _times_power(values: Floats, exponents: NDArray[np.int32]) -> Floats:
    """Each row times a power of two: exact, and several times faster than ldexp."""
    if not exponents.any():
        return values
    half = exponents // 2  # in two steps, since 2¹⁰⁷⁴, which tiny float64 need, overflows
    return values * np.ldexp(1.0, half)[:, None] * np.ldexp(1.0, exponents - half)[:, None]


def _coarse_sums(terms: Floats) -> Floats:
    """Sums of terms from 0 to 1, (N, D) → (N,): rough, and free of any order."""
    grid = COARSE_GRID * 2.0 ** np.ceil(np.log2(terms.shape[1] + 1))
    sums: Floats = ((terms + grid) - grid).sum(axis=1)
    return sums


def _round_products(products: Floats) -> Floats:
    """Round numbers of size at most 2 to multiples of 2⁻⁵⁰."""
    return (products + PRODUCT_GRID) - PRODUCT_GRID


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
    with np.errstate(over="ignore"):  # a distance beyond float64 is infinite, as it should be
        sizes = np.abs(queries.stored.astype(np.float64) - gallery.stored)
        power = minkowski_power(metric)
        return _lengths(metric, sizes) if power is None else _minkowski_lengths(power, sizes)


def _lengths(metric: str, sizes: Floats) -> Floats:
    """l2 or l1 of vectors with these absolute components (M, D); see the module's head."""
    largest = sizes.max(axis=1)
    scales = np.frexp(largest)[1].astype(np.int32)
    below_one = _times_power(sizes, -scales)
    if metric == "l2":
        scales += (np.frexp(_coarse_sums(below_one * below_one))[1] - 1) >> 1
        values = _times_power(sizes, -scales)
        lengths = np.sqrt(((values * values + SQUARE_GRID) - SQUARE_GRID).sum(axis=1))
    else:
        scales += np.frexp(_coarse_sums(below_one))[1] - 1
        values = _times_power(sizes, -scales)
        lengths = ((values + SIZE_GRID) - SIZE_GRID).sum(axis=1)
    return np.where(np.isinf(largest), np.inf, np.ldexp(lengths, scales))


def _minkowski_lengths(power: float, sizes: Floats) -> Floats:
    largest = sizes.max(axis=1)
    # Of the largest, since a high power of a small component alone would vanish.
    unit = np.where((largest > 0) & (largest < np.inf), largest, 1.0)
    sums: Floats = ((sizes / unit[:, None]) ** power).sum(axis=1)
    return sums ** (1 / power) * unit
