"""Upper bounds of all pairs by one short float32 matrix product. The twin on a GPU: `gpu.bounds`.

With R of p orthonormal columns, y = Rᵀx, and P⊥ the projection onto what R leaves out,

    q̂·x = y_q·y_x + P⊥q̂·P⊥x ≤ y_q·y_x + ‖P⊥q̂‖ ‖P⊥x‖                        (Cauchy–Schwarz)

so with the tails τ = ‖P⊥·‖ as one more coordinate, the product of (y_q, τ_q) and (y_x, τ_x)
is an upper bound of q̂·x, from p + 1 multiplications instead of D. It is sharp where the
first p directions hold most of the vectors' length: R spans the leading directions of an
uncentred principal component analysis of a sample (Panorama, arXiv 2510.00566, has the bound
without a matrix product; SuperKMeans, arXiv 2603.20009, the product without the proof).
Without R (p = D) the product of q̂ and x is its own bound.

Rounding. u = 2⁻²⁴, γ_n = n u / (1 − n u); a float32 sum of n products, in any order, with or
without fused multiply-add, is off by at most γ_n Σ|terms| (Higham, Accuracy and Stability,
§3.1). All is relative to ‖x‖, with ‖q̂‖ = 1:

    R       is stored in float32, so ‖RᵀR − I‖₂ ≤ δ, its Frobenius norm, computed in float64.
            Then q̂ᵀ(I − RRᵀ)x ≤ ‖P⊥q̂‖‖P⊥x‖ + δ‖x‖, and ‖P⊥x‖² ≤ ‖x‖² − ‖y‖² + 2δ‖x‖².
    y_x     each component is a sum of D products, taken in chunks of 128, so n = 128 + D/128
            roundings: off by γ_n ‖R_j‖ ‖x‖, all p together by ε = (√p γ_n + u)(1 + δ), where
            u is x's own, if it is stored in float64. So τ² = ‖x‖² − ‖y‖² + (2δ + 3ε)‖x‖².
    y_q, τ_q  computed in float64, rounded to float32: off by 2u together.
    product p + 1 terms whose Σ|terms| is at most (1 + ε)(1 + ε): γ_{p+1} times that.
            Without R it has D terms, and γ_D; or γ_n as above, where it is taken in chunks.

The slack is the sum of these, times 1.01 for the second-order terms, plus 2⁻²⁰ for the
comparison itself, which is rounded four times in float32, and for the canonical score.
A pair is kept if its bound plus the slack reaches the score that it has to reach:

    cosine   bound(q̂, x) ≥ (t − slack) ‖x‖
    ip       bound(q̂, x) ≥ t / ‖q‖ − slack ‖x‖
    l2       bound(q, x) ≥ (‖q‖² − t²)/2 + ‖x‖²/2 − slack ‖q‖ ‖x‖

In each the right side is t'·w + b with t' of the query and w, b of the gallery row.

t is what the canonical score has to reach; the real one may be off by what `scores` tells. Of
cosine and ip the 2⁻²⁰ hold that. A canonical distance is right to η = (D + 2) · 2⁻⁵² of itself,
so where it is at most t, the real one is at most t(1 + 2η), and t² is taken 2⁻²⁰ too large.
The squares of the norms are taken 2⁻²⁰ too small. So each of the three terms has room for its own
roundings: 2⁻⁴⁰ in float64, 2⁻²⁴ for a float32 of it, twice that in the sum of all. None of this
depends on how near the rows are: among near neighbours ‖q‖² + ‖x‖² − 2 q·x cancels, t² may be
far below the slack, and then the slack, which is a part of the norms, lets all of them pass.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from retrieval.search.blas import SGEMM, multiply, place_of
from retrieval.search.gallery_block import GalleryBlock
from retrieval.search.prefilter_pairs import CHUNK
from retrieval.search.scores import Rows

__all__ = ["Bounds", "principal_directions"]

_UNIT = 2.0**-24
_COMPARISON = 2.0**-20


class Bounds:
    """Bounds of one block of queries, for any gallery block.

    Attributes:
        operand: float32 (p + 1 or D, Q), the queries' side of the product.
        by_query: The same, (Q, p + 1 or D).
        slack: How far a bound may lie below the score, for rows of length one.
    """

    def __init__(
        self,
        metric: str,
        queries: Rows,
        basis: NDArray[np.float32] | None,
        *,
        by_chunks: bool = False,
    ) -> None:
        """Prepare the queries' side.

        Args:
            metric: "cosine", "ip" or "l2".
            queries: Q queries, with norms in [2⁻³⁰, 2³⁰].
            basis: float32 (D, p), columns orthonormal but for rounding; None for p = D.
            by_chunks: Whether the products over all dimensions are taken in chunks.
        """
        self._metric = metric
        self._basis = None if basis is None else np.ascontiguousarray(basis)
        self._norms = np.ldexp(np.sqrt(queries.norms), queries.scales)
        unit = queries.values / np.sqrt(queries.norms)[:, None]
        num_dims = unit.shape[1]
        num_roundings = _roundings_by_chunks(num_dims) if by_chunks else num_dims
        operand, slack = (unit, _gamma(num_roundings) + 3 * _UNIT)
        if basis is not None:
            operand, slack = self._shorten(unit, basis)
        self.slack = float(1.01 * slack + _COMPARISON)
        if metric == "l2":
            operand = operand * self._norms[:, None]
        self.by_query = operand.astype(np.float32)
        # The product's rows are gallery rows, with all queries side by side.
        self.operand = np.ascontiguousarray(self.by_query.T)

    def _shorten(
        self, unit: NDArray[np.float64], basis: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], float]:
        """Prefixes and tails of the queries, and the slack; the letters are the module's."""
        num_dims, depth = basis.shape
        exact = basis.astype(np.float64)
        delta = float(np.linalg.norm(exact.T @ exact - np.eye(depth)))
        gamma = _gamma(_roundings_by_chunks(num_dims))
        epsilon = (np.sqrt(depth) * gamma + _UNIT) * (1 + delta)
        self._widening = 2 * delta + 3 * epsilon
        prefix = unit @ exact
        left = 1 - np.einsum("qp,qp->q", prefix, prefix) + 2 * delta
        tail = np.sqrt(np.maximum(left, 0.0))
        slack = delta + epsilon + 2 * _UNIT + _gamma(depth + 1) * (1 + epsilon) ** 2
        return np.concatenate([prefix, tail[:, None]], axis=1), slack

    def limits(
        self, floors: NDArray[np.float64], queries: slice = slice(None)
    ) -> NDArray[np.float32]:
        """The t' of some queries, for the keys that their pairs have to reach; float32."""
        norms = self._norms[queries]
        with np.errstate(over="ignore"):  # floors of rows that are not tame: infinity is right
            if self._metric == "cosine":
                limits = floors - self.slack
            elif self._metric == "ip":
                limits = floors / norms
            else:
                squares = norms * norms
                farthest = floors * floors * (1 + _COMPARISON)
                limits = (squares * (1 - _COMPARISON) - farthest) / 2
            return limits.astype(np.float32)

    def row_terms(self, block: GalleryBlock) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The w and b of each gallery row; float32 (N,) each."""
        norms = np.sqrt(block.squares)
        if self._metric == "cosine":
            return norms.astype(np.float32), np.zeros(len(norms), np.float32)
        ones = np.ones(len(norms), np.float32)
        if self._metric == "ip":
            return ones, (-self.slack * norms).astype(np.float32)
        least = block.squares * (1 - _COMPARISON) / 2 - self.slack * self._norms.max() * norms
        return ones, least.astype(np.float32)

    def gallery_operand(self, block: GalleryBlock) -> NDArray[np.float32]:
        """The rows' side of the product: prefixes and tails (N, p + 1), or the rows (N, D)."""
        if self._basis is None:
            return block.rough
        operand = np.empty((len(block.rough), self._basis.shape[1] + 1), np.float32)
        _product_by_chunks(block.rough, self._basis, operand)
        _append_tails(operand, block.squares, self._widening)
        return operand


def _product_by_chunks(
    rows: NDArray[np.float32], basis: NDArray[np.float32], result: NDArray[np.float32]
) -> None:
    """Write rows · basis into the first columns of a result; summed in pieces of `CHUNK`."""
    _add_chunks(SGEMM, rows, basis, result)


@njit(nogil=True, cache=True)
def _add_chunks(sgemm, rows, basis, result):
    num_rows, (num_dims, depth) = len(rows), basis.shape
    part = np.empty((num_rows, depth), np.float32)
    result[:, :depth] = 0
    for first in range(0, num_dims, CHUNK):
        last = min(first + CHUNK, num_dims)
        shape = num_rows, depth, last - first
        multiply(sgemm, shape, place_of(rows[:, first:]), place_of(basis[first:]), place_of(part))
        for row in range(num_rows):
            for dim in range(depth):
                result[row, dim] += part[row, dim]


def _roundings_by_chunks(num_dims: int) -> int:
    return min(num_dims, CHUNK) + -(-num_dims // CHUNK)


def _gamma(num_terms: int) -> float:
    return num_terms * _UNIT / (1 - num_terms * _UNIT)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
def _append_tails(operand, squares, widening):
    depth = operand.shape[1] - 1
    for row in range(operand.shape[0]):
        held = 0.0
        for dim in range(depth):
            held += np.float64(operand[row, dim]) * np.float64(operand[row, dim])
        left = max(squares[row] - held, 0.0) + widening * squares[row]
        operand[row, depth] = np.sqrt(left) * (1 + 2.0**-22)


def principal_directions(rows: NDArray[np.float32], num: int) -> NDArray[np.float32]:
    """The leading directions of some rows, taken from the origin.

    By one subspace iteration (Halko, Martinsson, Tropp, SIAM Review 2011): a rough answer is as
    safe as a sharp one, only looser, and here a second one leaves less than 1 % fewer pairs.

    Args:
        rows: (N, D), of length one.
        num: How many, at most D.

    Returns:
        float32 (D, num), orthonormal columns, the most important first.
    """
    rng = np.random.default_rng(0)
    basis = rng.normal(size=(rows.shape[1], min(num + 8, rows.shape[1]))).astype(np.float32)
    basis, _ = np.linalg.qr(rows.T @ (rows @ basis))
    seen = (rows @ basis).astype(np.float64)
    _, turn = np.linalg.eigh(seen.T @ seen)
    leading = basis.astype(np.float64) @ turn[:, : -num - 1 : -1]
    return np.linalg.qr(leading)[0].astype(np.float32)
