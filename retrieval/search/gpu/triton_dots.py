"""Sums of products of float16 pairs, read once and summed in float64, in one Triton kernel.

Only for rows of which no sum rounds (float16 of small norm, see `scores`): then it does not
matter that a compiler joins product and sum, or in which order it adds. A fraction of the
memory traffic of `rescoring`, which gathers float64 copies.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["exact_sums"]

_PAIRS = 16
_DIMS = 64


def _sums(  # noqa: PLR0913 - a kernel has no objects
    queries: tl.tensor,
    rows: tl.tensor,
    query_of: tl.tensor,
    row_of: tl.tensor,
    dots: tl.tensor,
    squares: tl.tensor,
    num_pairs: tl.tensor,
    dim: tl.tensor,
    PAIRS: tl.constexpr,  # noqa: N803 - Triton's custom for constants
    DIMS: tl.constexpr,  # noqa: N803
) -> None:
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    is_pair = pair < num_pairs
    part = tl.arange(0, DIMS)
    ours = queries + tl.load(query_of + pair, mask=is_pair, other=0)[:, None] * dim + part[None, :]
    theirs = rows + tl.load(row_of + pair, mask=is_pair, other=0)[:, None] * dim + part[None, :]
    dot = tl.zeros((PAIRS, DIMS), dtype=tl.float64)
    square = tl.zeros((PAIRS, DIMS), dtype=tl.float64)
    for start in range(0, dim, DIMS):
        mask = is_pair[:, None] & (part < dim - start)[None, :]
        left = tl.load(ours + start, mask=mask, other=0.0).to(tl.float64)
        right = tl.load(theirs + start, mask=mask, other=0.0).to(tl.float64)
        dot += left * right
        square += right * right
    tl.store(dots + pair, tl.sum(dot, 1), mask=is_pair)
    tl.store(squares + pair, tl.sum(square, 1), mask=is_pair)


_kernel = triton.jit(_sums)


def exact_sums(queries: Tensor, rows: Tensor, query: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """q·x and ‖x‖² of pairs.

    Args:
        queries: float16 (Q, D).
        rows: float16 (N, D).
        query: int64 (M,), numbers of rows of `queries`.
        row: int64 (M,), of `rows`.

    Returns:
        Two float64 (M,).
    """
    # A kernel knows no strides, and a number that torch has expanded has memory for one alone.
    queries, rows, query, row = (part.contiguous() for part in (queries, rows, query, row))
    dots = torch.empty(len(query), dtype=torch.float64, device=rows.device)
    squares = torch.empty_like(dots)
    if len(query):
        grid = (-(-len(query) // _PAIRS),)
        arrays = (queries, rows, query, row, dots, squares)
        with torch.cuda.device_of(rows):  # type: ignore[no-untyped-call]  # Triton looks there
            size, dim = len(query), rows.shape[1]
            # Joining product and sum changes nothing here; unset, Triton 3.9 warns.
            _kernel[grid](*arrays, size, dim, _PAIRS, _DIMS, enable_fp_fusion=False)
    return dots, squares
