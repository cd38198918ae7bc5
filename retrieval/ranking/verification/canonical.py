"""The canonical scores again: with nothing of the engines, and nothing of `search.scores`.

What is to be computed is said in `search.scores`; here it is done another way. Where a term is
rounded to a grid there, by an addition and a subtraction, it is counted here in steps of that
grid, and whole numbers are summed. float64 has all of them, since they stay below 2⁵³. Square
roots, quotients and powers of two are then one rounding each, on both sides.

Differing in one bit from what an engine gives is an error of one of the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.ranking.verification import rule_one
from retrieval.search.scores import minkowski_power

__all__ = ["Rows", "pair_scores", "times_power"]

_PRODUCT_BITS = 50  # of a grid of 2⁻⁵⁰
_SUM_BITS = 51

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Vectors made ready for scoring.

    Attributes:
        stored: float64 (N, D).
        values: float64 (N, D), times 2^-scales: squared norms in [0.5, 2).
        scales: int64 (N,).
        norms: float64 (N,), squared norms of `values` in whole steps of 2⁻⁵⁰.
    """

    stored: Floats
    values: Floats
    scales: Integers
    norms: Floats

    @classmethod
    def prepare(cls, vectors: NDArray[Any]) -> Rows:
        """Scale vectors and measure them.

        Args:
            vectors: float16, float32 or float64 (N, D), finite, no zero vector.
        """
        stored = vectors.astype(np.float64)
        scales = np.frexp(np.abs(stored).max(axis=1))[1].astype(np.int64)
        coarse = _coarse_exponents(np.square(times_power(stored, -scales)))
        scales += coarse >> 1
        values = times_power(stored, -scales)
        norms = np.ldexp(_steps(np.square(values), _PRODUCT_BITS), -_PRODUCT_BITS)
        return cls(stored, values, scales, norms)

    def take(self, rows: NDArray[np.intp]) -> Rows:
        """Some of the rows, in the order asked for."""
        return Rows(self.stored[rows], self.values[rows], self.scales[rows], self.norms[rows])


def times_power(values: Floats, exponents: Integers) -> Floats:
    """Each row times a power of two of its own; as `np.ldexp`, and mostly faster."""
    if len(exponents) and np.abs(exponents).max() < 1000:
        return values * np.ldexp(1.0, exponents)[:, None]
    return np.ldexp(values, exponents[:, None])


def _steps(terms: Floats, bits: int) -> Floats:
    """Σ of each row, every term rounded to a multiple of 2^-bits, in such steps: (N,)."""
    steps = terms * 2.0**bits
    sums: Floats = np.rint(steps, out=steps).sum(axis=1)
    return sums


def _coarse_exponents(terms: Floats) -> Integers:
    """The e with a row's coarse sum in [2^(e−1), 2^e), of terms from 0 to 1."""
    bits = 52 - terms.shape[1].bit_length()
    return np.frexp(_steps(terms, bits))[1].astype(np.int64) - bits


def pair_scores(metric: str, rule: int, queries: Rows, gallery: Rows) -> Floats:
    """Canonical scores of pairs: row i of the queries with row i of the gallery.

    Args:
        metric: One of `search.scores.METRICS`, or "minkowski:P".
        rule: One of `search.scores.RULES`.
        queries: M rows.
        gallery: M rows.

    Returns:
        float64 (M,); a distance beyond float64 is infinite.

    Cost: O(M D) time and extra memory; call it with some thousand pairs at a time.
    """
    if metric in ("cosine", "ip"):
        dots = _steps(queries.values * gallery.values, _PRODUCT_BITS)
        if metric == "ip":
            return np.ldexp(dots, queries.scales + gallery.scales - _PRODUCT_BITS) + 0.0
        return np.ldexp(dots / np.sqrt(queries.norms * gallery.norms), -_PRODUCT_BITS)
    if rule == 1:
        shared = np.maximum(queries.scales, gallery.scales)
        ours = times_power(queries.values, queries.scales - shared)
        theirs = times_power(gallery.values, gallery.scales - shared)
        return np.ldexp(rule_one.distances(metric, np.abs(ours - theirs)), shared)
    with np.errstate(over="ignore"):
        return _distances(metric, np.abs(queries.stored - gallery.stored))


def _distances(metric: str, sizes: Floats) -> Floats:
    """Of vectors with these absolute components (M, D), by rule 2."""
    largest = sizes.max(axis=1)
    is_endless = np.isinf(largest)
    sizes[is_endless] = 0.0
    if power := minkowski_power(metric):
        unit = np.where((largest > 0) & ~is_endless, largest, 1.0)
        sums = ((sizes / unit[:, None]) ** power).sum(axis=1)
        return np.where(is_endless, np.inf, sums ** (1 / power) * unit)
    is_square = metric == "l2"
    raised = np.square if is_square else np.positive
    scales = np.frexp(sizes.max(axis=1))[1].astype(np.int64)
    exponents = _coarse_exponents(raised(times_power(sizes, -scales))) - 1
    scales += exponents >> 1 if is_square else exponents
    bits = _PRODUCT_BITS if is_square else _SUM_BITS
    steps = _steps(raised(times_power(sizes, -scales)), bits)
    lengths = np.sqrt(steps) if is_square else steps
    halved = bits // 2 if is_square else bits
    return np.where(is_endless, np.inf, np.ldexp(lengths, scales - halved))
