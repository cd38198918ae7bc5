"""Pairs of vectors whose distances are hard to compute, and their real values."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

NEAR_KINDS = ("far digits", "one step", "equal", "small parts")
WIDE_KINDS = ("plain", *NEAR_KINDS, "subnormal", "any size", "any row", "one huge", "opposite")


def pairs_of(kind, seed, num_pairs, dim, dtype="float64"):
    """Two arrays (M, D) whose rows are pairs; kinds that are not near are for float64."""
    rng = np.random.default_rng([seed, dim])
    ours, theirs = rng.normal(size=(2, num_pairs, dim))
    ours, theirs = _KINDS[kind](ours, theirs, rng)
    ours, theirs = ours.astype(dtype), theirs.astype(dtype)
    if kind == "one step":
        every, place = np.arange(num_pairs), rng.integers(dim, size=num_pairs)
        theirs[every, place] = np.nextafter(theirs[every, place], np.ones((), dtype))
    return ours, theirs


def _small_parts(ours, theirs, _):
    """One component is shared and large, the others are tiny."""
    ours, theirs = ours * 1e-9, theirs * 1e-9
    ours[:, 0] = theirs[:, 0] = 3.0
    return ours, theirs


def _subnormal(*sides):
    return [np.copysign(np.rint(4 * np.abs(side)) + 1, side) * 5e-324 for side in sides[:2]]


def _any_size(ours, theirs, rng):
    size = 10.0 ** rng.integers(-300, 300, ours.shape)
    return ours * size, ours * size * (1 + 1e-10 * theirs)


def _any_row(ours, theirs, rng):
    size = 10.0 ** rng.integers(-300, 300, (len(ours), 1))
    return ours * size, theirs * size[::-1]


def _one_huge(ours, theirs, _):
    """One component is shared, and so large that the others vanish in its scale."""
    ours, theirs = ours * 2.0**-900, theirs * 2.0**-900
    ours[:, 0] = theirs[:, 0] = 2.0**900
    return ours, theirs


def _opposite(ours, *_):
    """The last ones are further apart than float64 can tell."""
    ours[:] = np.exp2(np.linspace(1000, 1023, len(ours)))[:, None]
    return ours, -ours


_KINDS = {
    "plain": lambda ours, theirs, _: (ours, theirs),
    "far digits": lambda ours, theirs, _: (ours, ours * (1 + 1e-6 * theirs)),
    "one step": lambda ours, *_: (ours, ours.copy()),
    "equal": lambda ours, *_: (ours, ours.copy()),
    "small parts": _small_parts,
    "subnormal": _subnormal,
    "any size": _any_size,
    "any row": _any_row,
    "one huge": _one_huge,
    "opposite": _opposite,
}


def real_square(metric, ours, theirs):
    """The square of the distance, l2 or l1, without any rounding: by whole numbers."""
    ratios = [[float(value).as_integer_ratio() for value in row] for row in (ours, theirs)]
    unit = max(denominator for row in ratios for _, denominator in row)
    whole = [[top * (unit // bottom) for top, bottom in row] for row in ratios]
    sizes = [abs(a - b) for a, b in zip(*whole, strict=True)]
    square = sum(size**2 for size in sizes) if metric == "l2" else sum(sizes) ** 2
    return Fraction(square, unit**2)


def is_right(score, square, dim):
    """Whether a distance is right to (D + 2) · 2⁻⁵² of itself, or half of a subnormal's step."""
    relative, step = Fraction(dim + 2, 2**52), Fraction(1, 2**1074)
    if math.isinf(score):
        return square * (1 + relative) ** 2 >= (Fraction(2) ** 1024 - Fraction(2) ** 970) ** 2
    low, high = max(Fraction(score) - step, Fraction(0)), Fraction(score) + step
    return low**2 <= square * (1 + relative) ** 2 and square * (1 - relative) ** 2 <= high**2


def by_the_rule(metric, ours, theirs):
    """The canonical distance, step by step as `scores` says, with whole numbers for all sums."""
    sizes = [abs(float(a) - float(b)) for a, b in zip(ours, theirs, strict=True)]
    largest = max(sizes)
    if largest in (0.0, math.inf):
        return largest

    def total(scale, steps_a_unit):
        """Σ of squares, or of sizes, times a power of two and rounded to whole steps."""
        half = scale // 2
        values = [size * 2.0**-half * 2.0 ** -(scale - half) for size in sizes]
        terms = [value * value for value in values] if metric == "l2" else values
        return Fraction(sum(round(term * steps_a_unit) for term in terms), int(steps_a_unit))

    scale = math.frexp(largest)[1]
    coarse = total(scale, 2.0 ** (52 - math.ceil(math.log2(len(sizes) + 1))))
    window = 4 if metric == "l2" else 2
    while coarse >= window:
        coarse, scale = coarse / window, scale + 1
    while coarse < 1:
        coarse, scale = coarse * window, scale - 1
    if metric == "l2":
        length = math.sqrt(total(scale, 2.0**50))
    else:
        length = float(total(scale, 2.0**51))
    try:
        return math.ldexp(length, scale)
    except OverflowError:
        return math.inf
