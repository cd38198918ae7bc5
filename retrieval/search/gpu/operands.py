"""Vectors as operands of a float16 matrix product, and what the rounding took from them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["HalfRows", "half_rows", "power_of_two", "times_power"]

# Largest operand: below 2¹⁵, so that components down to 2⁻²⁹ of it are normal float16.
_TOP = 15


@dataclass(frozen=True)
class HalfRows:
    """Operands: stored vectors times powers of two, rounded to float16.

    Attributes:
        half: float16 (N, D).
        exponents: int32 (N,), powers of two that the stored vectors were multiplied by.
        norms: float64 (N,), ‖x‖ of the scaled, unrounded vectors, up to `norm_error`.
        norm_error: Relative error of `norms`, at most.
        residuals: float64 (N,), ‖x − x̂‖ at most.
    """

    half: Tensor
    exponents: Tensor
    norms: Tensor
    norm_error: float
    residuals: Tensor


def half_rows(stored: Tensor, rows_at_once: int, *, common: bool) -> HalfRows:
    """Make operands.

    Args:
        stored: float16, float32 or float64 (N, D), finite, no zero vector, N ≥ 1.
        rows_at_once: Rows that are worked on in float64 at a time.
        common: Whether all rows get the same power of two. float16 rows always do: 2⁰.

    Returns:
        Operands; float16 vectors are their own, without a copy.

    Cost: one reading of float16 rows; else a float16 copy and some passes in float64.
    """
    if stored.dtype == torch.float16:
        norms = torch.linalg.vector_norm(stored, dim=1, dtype=torch.float32)
        none = torch.zeros(len(stored), dtype=torch.int32, device=stored.device)
        # float32 sum of D exact squares, then a root: γ of D + 4 roundings covers both.
        error = (stored.shape[1] + 4) * 2.0**-24
        return HalfRows(stored, none, norms.double(), error, none.double())
    starts = range(0, len(stored), rows_at_once)
    peaks = [stored[start : start + rows_at_once].double().abs().amax(1) for start in starts]
    exponents = _TOP - torch.frexp(torch.cat(peaks))[1]
    if common:
        exponents = exponents.min().expand(len(stored)).contiguous()
    half = torch.empty(stored.shape, dtype=torch.float16, device=stored.device)
    norms = torch.empty(len(stored), dtype=torch.float64, device=stored.device)
    residuals = torch.empty_like(norms)
    for start in starts:
        some = slice(start, start + rows_at_once)
        exact = times_power(stored[some].double(), exponents[some, None])
        half[some] = exact.half()
        norms[some] = torch.linalg.vector_norm(exact, dim=1)
        exact -= half[some]
        residuals[some] = torch.linalg.vector_norm(exact, dim=1) * (1 + 2.0**-20)
    return HalfRows(half, exponents, norms, 2.0**-30, residuals)


def power_of_two(exponents: Tensor) -> Tensor:
    """float64 2^e for integers |e| ≤ 1022, exact by its bits: a device's pow need not be."""
    return ((exponents.to(torch.int64) + 1023) << 52).view(torch.float64)


def times_power(values: Tensor, exponents: Tensor) -> Tensor:
    """float64 values times 2^e for |e| ≤ 3000, rounded as ldexp rounds.

    In three steps, since 2^e itself may over- or underflow. The first two keep every value of
    size 2⁻⁵⁰ to 2⁵⁰ normal whenever the result does not vanish, so only the last can round.
    """
    third = torch.div(exponents, 3, rounding_mode="trunc")
    step = power_of_two(third)
    return values * step * step * power_of_two(exponents - 2 * third)
