"""The product of many rows and few queries, which BLAS does at half the speed or less.

A tile of two rows and four queries uses each loaded value several times and keeps its eight
sums in registers; each loop over the dimensions is vectorised.

Numba notices a change of this file in its own compiled loops, but not in those of other files
that have taken code from here: after one, remove retrieval/search/__pycache__.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["MOST_QUERIES", "few_products", "padded"]

MOST_QUERIES = 12  # with more, BLAS is as fast
_TOGETHER = 4


def padded(queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Queries (Q, D), with zero rows up to a multiple of four."""
    missing = -len(queries) % _TOGETHER
    return np.concatenate([queries, np.zeros((missing, queries.shape[1]), np.float32)])


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def few_products(rows, queries, result):
    """Write rows · queries into a result; for compiled loops, too.

    Args:
        rows: float32 (N, D).
        queries: float32 (Q, D), Q a multiple of four; see `padded`.
        result: float32 (N, Q), overwritten. Sums are in any order.
    """
    for row in range(0, len(rows), 2):
        other = min(row + 1, len(rows) - 1)  # the last of an odd number is its own neighbour
        ours, theirs = rows[row], rows[other]
        for first in range(0, len(queries), _TOGETHER):
            a, b, c, d = (
                queries[first], queries[first + 1], queries[first + 2], queries[first + 3]
            )  # fmt: skip
            a1 = b1 = c1 = d1 = a2 = b2 = c2 = d2 = np.float32(0.0)
            for dim in range(len(ours)):
                one, two = ours[dim], theirs[dim]
                a1 += one * a[dim]
                b1 += one * b[dim]
                c1 += one * c[dim]
                d1 += one * d[dim]
                a2 += two * a[dim]
                b2 += two * b[dim]
                c2 += two * c[dim]
                d2 += two * d[dim]
            result[row, first], result[row, first + 1] = a1, b1
            result[row, first + 2], result[row, first + 3] = c1, d1
            result[other, first], result[other, first + 1] = a2, b2
            result[other, first + 2], result[other, first + 3] = c2, d2
