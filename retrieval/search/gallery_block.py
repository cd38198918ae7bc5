"""A block of gallery vectors made ready: float32 for the first pass, exact for the second.

Numba has no float16 on the CPU, but LLVM has: one instruction (F16C, on every x86-64 of the last
ten years; ARMv8 has its own) converts eight values, and the loop around it is vectorised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

__all__ = ["GalleryBlock", "is_tame", "prepare"]

# Squared norms between these can neither overflow nor lose bits to underflow in float32,
# whatever is done to them here; blocks with others take the direct way.
_SMALLEST, _LARGEST = 2.0**-60, 2.0**60


@dataclass(frozen=True)
class GalleryBlock:
    """Vectors of N gallery rows.

    Attributes:
        exact: float32 or float64 (N, D), the stored values without rounding.
        rough: float32 (N, D), rounded where the stored values are float64.
        squares: float64 (N,), squared norms, relative error below 2⁻⁴⁰; exact for float16
            vectors with a norm below 2√2.
        is_half: Whether the stored values were float16.
        is_tame: Whether all norms allow float32 arithmetic.
    """

    exact: NDArray[Any]
    rough: NDArray[np.float32]
    squares: NDArray[np.float64]
    is_half: bool
    is_tame: bool


def prepare(vectors: NDArray[Any], buffer: NDArray[np.float32]) -> GalleryBlock:
    """Widen and measure vectors.

    Args:
        vectors: float16, float32 or float64 (N, D), finite, no zero vector.
        buffer: float32 (N or more, D), to be overwritten: the result may point into it.

    Cost: one pass over the vectors, at memory speed.
    """
    squares = np.empty(len(vectors))
    is_half = vectors.dtype == np.float16
    if is_half:
        rough = buffer[: len(vectors)]
        _widen(vectors.view(np.uint16), rough, squares)
        return GalleryBlock(rough, rough, squares, is_half, is_tame(squares))
    vectors = np.ascontiguousarray(vectors)  # for BLAS
    _measure(vectors, squares)
    tame = is_tame(squares)
    rough = vectors
    if vectors.dtype == np.float64:
        rough = buffer[: len(vectors)]
        if tame:
            rough[:] = vectors
    return GalleryBlock(vectors, rough, squares, is_half, tame)


def is_tame(squares: NDArray[np.float64]) -> bool:
    """Whether float32 arithmetic is safe for vectors of these squared norms."""
    return bool(squares.min() > _SMALLEST and squares.max() < _LARGEST)


@intrinsic
def _half_to_float(typing_context, bits):
    """The float32 of the same value as the float16 with these bits (uint16); exact."""

    def generate(context, builder, signature, arguments):
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), generate


# reassoc and contract allow vectorised sums and fused multiply-add. The sums of float16
# squares have no rounding (see `scores`); the others need not be exact.
@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _widen(bits, rough, squares):
    for row in range(bits.shape[0]):
        total = 0.0
        for dim in range(bits.shape[1]):
            value = _half_to_float(bits[row, dim])
            rough[row, dim] = value
            total += np.float64(value) * np.float64(value)
        squares[row] = total


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _measure(vectors, squares):
    for row in range(vectors.shape[0]):
        total = 0.0
        for dim in range(vectors.shape[1]):
            total += np.float64(vectors[row, dim]) * np.float64(vectors[row, dim])
        squares[row] = total
