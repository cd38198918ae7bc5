"""Distances by rule 1, by which no ranking is made any more: to judge those that there are.

Both rows are in the scale of the longer, so that their norms are below √2. Squares of
differences are rounded to multiples of 2⁻⁴⁸, differences for l1 to a grid by the number of
dimensions. So l2 is right to an absolute (D + 4) · 2⁻⁴⁹ of its square in that scale, and near
neighbours have few right digits, or a distance of 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.search.scores import minkowski_power

__all__ = ["distances", "grid_bits"]

_SQUARE_BITS = 48


def grid_bits(num_dims: int) -> int:
    """l1's differences are rounded to multiples of 2^-bits.

    Example:
        >>> grid_bits(64), grid_bits(65)
        (46, 45)
    """
    # 52 less the smallest b with 2ᵇ ≥ 8 √D.
    return 49 - ((num_dims - 1).bit_length() + 1) // 2


def distances(metric: str, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """l2, l1 or minkowski:P of vectors with these absolute components.

    Args:
        metric: Which.
        sizes: float64 (M, D), below 2√2.

    Returns:
        float64 (M,).
    """
    if power := minkowski_power(metric):
        largest = np.maximum(sizes.max(axis=1), np.finfo(np.float64).tiny)
        sums: NDArray[np.float64] = ((sizes / largest[:, None]) ** power).sum(axis=1)
        return sums ** (1 / power) * largest
    if metric == "l2":
        steps = np.rint(np.square(sizes) * 2.0**_SQUARE_BITS).astype(np.int64).sum(axis=1)
        return np.sqrt(np.ldexp(steps.astype(np.float64), -_SQUARE_BITS))
    bits = grid_bits(sizes.shape[1])
    steps = np.rint(sizes * 2.0**bits).astype(np.int64).sum(axis=1)
    return np.ldexp(steps.astype(np.float64), -bits)
