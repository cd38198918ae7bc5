"""Canonical scores of pairs on a device: the bits of `scores.pair_scores`.

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
from retrieval.search.scores import Rows

__all__ = ["CanonicalRows", "keys_of_sums", "pair_keys", "prepare"]


@dataclass(frozen=True)
class CanonicalRows:
    """`scores.Rows` on a device.

    Attributes:
        values: float64 (N, D), stored values times 2^-scales: squared norms in [0.5, 2).
        scales: int32 (N,).
        norms: float64 (N,), canonical squared norms of `values`.
    """

    values: Tensor
    scales: Tensor
    norms: Tensor

    @classmethod
    def from_host(cls, rows: Rows, device: torch.device) -> CanonicalRows:
        """Copy rows that the CPU has prepared."""
        parts = (rows.values, rows.scales, rows.norms)
        return cls(*(torch.tensor(part, device=device) for part in parts))

    def take(self, rows: Tensor) -> CanonicalRows:
        """Some of the rows, in the order asked for."""
        return CanonicalRows(self.values[rows], self.scales[rows], self.norms[rows])


def prepare(stored: Tensor) -> CanonicalRows:
    """What `Rows.prepare` does, on the device of `stored` (float16, float32 or float64)."""
    exact = stored.double()
    scales = torch.frexp(exact.abs().amax(1))[1]
    values = times_power(exact, -scales[:, None])
    grid = float(1.5 * 2.0 ** np.ceil(np.log2(values.shape[1] + 1)))
    square = _on_grid(values * values, grid).sum(1)
    more = torch.frexp(square)[1] >> 1
    values = times_power(values, -more[:, None])
    return CanonicalRows(values, scales + more, _on_grid(values * values, 6.0).sum(1))


def pair_keys(metric: str, queries: CanonicalRows, gallery: CanonicalRows) -> Tensor:
    """Canonical keys of pairs: row i of the queries with row i of the gallery.

    Returns:
        float64 (M,): the canonical score, for l2 minus the canonical distance.

    Cost: O(M D) time and about eight float64 (M, D) of extra memory.
    """
    if metric == "l2":
        common = torch.maximum(queries.scales, gallery.scales)
        ours = times_power(queries.values, (queries.scales - common)[:, None])
        theirs = times_power(gallery.values, (gallery.scales - common)[:, None])
        apart = ours - theirs
        total = _on_grid(apart * apart, 24.0).sum(1)
        return -times_power(_square_root(total), common)
    dots = _on_grid(queries.values * gallery.values, 6.0).sum(1)
    if metric == "ip":
        return times_power(dots, queries.scales + gallery.scales) + 0.0
    return dots / _square_root(queries.norms * gallery.norms) + 0.0


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


def _on_grid(products: Tensor, grid: float) -> Tensor:
    """Round to the spacing of numbers near `grid`; two kernels, in place."""
    products += grid
    products -= grid
    return products


def _square_root(values: Tensor) -> Tensor:
    if values.device.type == "cpu":
        return torch.from_numpy(np.asarray(np.sqrt(values.numpy())))
    return torch.sqrt(values)
