"""Is a score right? Told by whole numbers of any size, without a grid, a scale or a float sum.

Brute force proves that a ranking is what the rule of its scores gives. Were the rule itself at
fault, or badly written on both sides, both would agree on wrong scores. So of some pairs the
real value is computed from the stored vectors, which are fractions of whole numbers, and the
score in the file has to be as near to it as its rule promises (`search.scores`, `rule_one`).

A root is never taken: a score between a and b is one whose square, with its sign, is between
a|a| and b|b|. A bound that is a root itself is rounded up, by less than 2⁻⁶⁰ of it.
"""

from __future__ import annotations

import decimal
import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

from numpy.typing import NDArray

from retrieval.ranking.verification.rule_one import grid_bits
from retrieval.search.scores import minkowski_power

__all__ = ["RealValue", "real_value"]

_INFINITE = Fraction(2) ** 1024 - Fraction(2) ** 970  # from here on, float64 rounds to infinity
_TINY = Fraction(1, 2**1074)  # as far as rounding to a subnormal may go, and more
_DIGITS = 60


@dataclass(frozen=True)
class RealValue:
    """What a score should be.

    Attributes:
        square: The value times its size: its square, with its sign.
        error: By how much a score may differ from the value.
    """

    square: Fraction
    error: Fraction

    def allows(self, score: float) -> bool:
        """Whether a score is as near as it has to be. An infinite one is beyond float64."""
        if math.isnan(score):
            return False
        if math.isinf(score):
            least = _INFINITE - self.error
            return self.square >= least**2 if score > 0 else self.square <= -(least**2)
        low, high = Fraction(score) - self.error, Fraction(score) + self.error
        return low * abs(low) <= self.square <= high * abs(high)

    def __str__(self) -> str:
        """The value and the error in digits; either may be beyond float64."""
        with decimal.localcontext(_context(20)):
            root = _in_decimals(abs(self.square)).sqrt()
            value = root if self.square >= 0 else -root
            return f"{value:.17g}, from which a score may differ by {_in_decimals(self.error):.2g}"


def _in_decimals(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)


def real_value(metric: str, rule: int, query: NDArray[Any], row: NDArray[Any]) -> RealValue:
    """The value of a pair, and how far a score by this rule may be from it.

    Args:
        metric: One of `search.scores.METRICS`, or "minkowski:P".
        rule: One of `search.scores.RULES`.
        query: float16, float32 or float64 (D,), finite, no zero vector.
        row: Likewise.

    Cost: about 2 D microseconds; of minkowski:P some ten times as much.
    """
    ours, theirs, unit = _whole_numbers(query, row)
    num_dims = len(ours)
    squares = [Fraction(sum(a * a for a in side)) * unit**2 for side in (ours, theirs)]
    if metric in ("cosine", "ip"):
        dot = sum(a * b for a, b in zip(ours, theirs, strict=True)) * unit**2
        product = squares[0] * squares[1]
        if metric == "cosine":
            return RealValue(dot * abs(dot) / product, Fraction(num_dims + 2, 2**49))
        error = Fraction(num_dims + 1, 2**50) * _root_above(product)
        return RealValue(dot * abs(dot), error + _TINY)
    sizes = [abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    square = _distance_square(metric, sizes) * unit**2
    if minkowski_power(metric):
        relative = Fraction(num_dims, 2**50) + Fraction(1, 10 ** (_DIGITS - 20))
    else:
        relative = Fraction(num_dims + 2, 2**52)
    error = relative * _root_above(square)
    if rule == 1:
        error = _error_of_rule_one(metric, num_dims, square, max(squares), error)
    return RealValue(square, error + _TINY)


def _whole_numbers(*rows: NDArray[Any]) -> tuple[list[int], list[int], Fraction]:
    """Two rows as whole numbers, and the unit that they are multiples of."""
    ratios = [[float(value).as_integer_ratio() for value in row.tolist()] for row in rows]
    common = max(denominator for row in ratios for _, denominator in row)
    ours, theirs = (
        [numerator * (common // denominator) for numerator, denominator in row] for row in ratios
    )
    return ours, theirs, Fraction(1, common)


def _distance_square(metric: str, sizes: list[int]) -> Fraction:
    """The square of the length of a vector with these absolute components."""
    if metric == "l2":
        return Fraction(sum(size * size for size in sizes))
    if metric == "l1" or not any(sizes):
        return Fraction(sum(sizes)) ** 2
    with decimal.localcontext(_context(_DIGITS)):
        power, largest = Decimal(minkowski_power(metric) or 0.0), Decimal(max(sizes))
        total = sum((Decimal(size) / largest) ** power for size in sizes if size)
        length = Decimal(total) ** (1 / power) * largest
        return Fraction(length) ** 2


def _context(digits: int) -> decimal.Context:
    return decimal.Context(
        prec=digits, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX, traps=[decimal.InvalidOperation]
    )


def _error_of_rule_one(
    metric: str, num_dims: int, square: Fraction, longest: Fraction, error: Fraction
) -> Fraction:
    """What rule 1 promises of distances, in the scale of the longer row.

    Args:
        metric: "l2", "l1" or "minkowski:P".
        num_dims: D.
        square: Of the distance.
        longest: The larger squared norm; in that scale it is at least 1/2.
        error: What rule 2 promises.
    """
    scale_square = longest * Fraction(201, 100)
    if metric == "l2":  # of the square, so of the distance this divided by it, or the root of it
        of_square = Fraction(num_dims + 4, 2**49) * scale_square
        root = _root_above(of_square)
        return min(root, of_square / _root_above(square)) if square else root
    if metric == "l1":
        return Fraction(num_dims + 1, 2 ** (1 + grid_bits(num_dims))) * _root_above(scale_square)
    lost = num_dims * Fraction(1, 2**1070)  # components that were too small in that scale
    return error + lost * _root_above(scale_square)


def _root_above(value: Fraction) -> Fraction:
    """The square root or a little more: by less than 2⁻⁶⁰ of it."""
    if not value:
        return Fraction(0)
    # As a whole number of 130 bits or more, times a power of four.
    shift = 130 - value.numerator.bit_length() + value.denominator.bit_length()
    shift += shift % 2
    scaled = value * Fraction(2) ** shift
    return Fraction(math.isqrt(math.ceil(scaled)) + 1) / Fraction(2) ** (shift // 2)
