"""Canonical scores of pairs on a device: the bits of `scores.pair_scores`.

The twin on the CPU is `retrieval.search.rescoring`; the rule and its constants are those of
`retrieval.search.scores`.

The same operations in the same precision, each a torch kernel of its own, so that no compiler
can join a product and a sum into one rounding. Sums do not round, so their order is free.
Quotients and roots must be correctly rounded: CUDA's float64 ones are (CUDA C++ Programming
Guide, "Standard Functions"), and so is torch's quotient on a CPU, but not its root, which MKL
computes: NumPy's is taken there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retrieval.search.gpu.operands import times_power
from retrieval.search.scores import COARSE_GRID, PRODUCT_GRID, SQUARE_GRID, Rows

__all__ = ["CanonicalRows", "keys_of_sums", "pair_keys", "prepare"]


@dataclass(frozen=True)
class CanonicalRows:
    """`scores.Rows` on a device.

    Attributes:
        stored: float16, float32 or float64 (N, D), as they are.
        values: float64 (N, D), stored values times 2^-scales: squared norms in [0.5, 2).
        scales: int32 (N,).
        norms: float64 (N,), canonical squared norms of `values`.
    """

    stored: Tensor
    values: Tensor
    scales: Tensor
    norms: Tensor

    @classmethod
    def from_host(cls, rows: Rows, device: torch.device) -> CanonicalRows:
        """Copy rows that the CPU has prepared."""
        parts = (rows.stored, rows.values, rows.scales, rows.norms)
        return cls(*(torch.tensor(part, device=device) for part in parts))

    def take(self, rows: Tensor) -> CanonicalRows:
        """Some of the rows, in the order asked for."""
        parts = (self.stored, self.values, self.scales, self.norms)
        return CanonicalRows(*(part[rows] for part in parts))


def prepare(stored: Tensor) -> CanonicalRows:
    """What `Rows.prepare` does, on the device of `stored` (float16, float32 or float64)."""
    exact = stored.double()
    scales = torch.frexp(exact.abs().amax(1))[1]
    values = times_power(exact, -scales[:, None])
    more = torch.frexp(_coarse_sums(values * values))[1] >> 1
    values = times_power(values, -more[:, None])
    return CanonicalRows(
        stored, values, scales + more, _on_grid(values * values, PRODUCT_GRID).sum(1)
    )


def pair_keys(metric: str, queries: CanonicalRows, gallery: CanonicalRows) -> Tensor:
    """Canonical keys of pairs: row i of the queries with row i of the gallery.

    Returns:
        float64 (M,): the canonical score, for l2 minus the canonical distance.

    Cost: O(M D) time and about nine float64 (M, D) of extra memory.
    """
    if metric == "l2":
        return -_distances(queries.stored, gallery.stored)
    dots = _on_grid(queries.values * gallery.values, PRODUCT_GRID).sum(1)
    if metric == "ip":
        return times_power(dots, queries.scales + gallery.scales) + 0.0
    return dots / _square_root(queries.norms * gallery.norms) + 0.0


def _distances(queries: Tensor, gallery: Tensor) -> Tensor:
    """l2 of stored rows, (M, D) each, pair by pair; `scores` has the rule."""
    sizes = (queries.double() - gallery.double()).abs_()
    is_endless = sizes.amax(1).isinf()
    sizes.masked_fill_(is_endless[:, None], 0.0)  # frexp of infinity gives no exponent
    scales = torch.frexp(sizes.amax(1))[1]
    values = times_power(sizes, -scales[:, None])
    scales = scales + ((torch.frexp(_coarse_sums(values * values))[1] - 1) >> 1)
    values = times_power(sizes, -scales[:, None])
    total = _on_grid(values * values, SQUARE_GRID).sum(1)
    return times_power(_square_root(total), scales).masked_fill(is_endless, torch.inf)


def keys_of_sums(metric: str, dots: Tensor, ours: Tensor, theirs: Tensor) -> Tensor:
    """Canonical keys from exact sums of stored values: q·x, ‖q‖² and ‖x‖².

    Where no sum rounds (see `scores`), a power of two in the rows passes through product, root
    and quotient, and Σ(qᵢ − xᵢ)² = ‖q‖² + ‖x‖² − 2 q·x holds exactly.
    """
    if metric == "l2":
        return -_square_root((ours + theirs) - 2.0 * dots)
    if metric == "ip":
        return dots + 0.0
    return dots / _square_root(ours * theirs) + 0.0


def _coarse_sums(terms: Tensor) -> Tensor:
    """Sums of terms from 0 to 1, (N, D) → (N,), which are overwritten; see `scores`."""
    grid = float(COARSE_GRID * 2.0 ** np.ceil(np.log2(terms.shape[1] + 1)))
    return _on_grid(terms, grid).sum(1)


def _on_grid(products: Tensor, grid: float) -> Tensor:
    """Round to the spacing of numbers near `grid`; two kernels, in place."""
    products += grid
    products -= grid
    return products


def _square_root(values: Tensor) -> Tensor:
    if values.device.type == "cpu":
        return torch.from_numpy(np.asarray(np.sqrt(values.numpy())))
    return torch.sqrt(values)
