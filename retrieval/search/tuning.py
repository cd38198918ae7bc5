"""How short the first product should be.

A longer one costs more and leaves fewer pairs; which is best depends on the gallery's spectrum,
on k and on the number of queries. So the pairs that each length would leave are counted on a
sample, and the cheapest is taken by a model of the costs. The answer decides the speed alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.search.bounds import principal_directions
from retrieval.search.gallery_block import prepare

__all__ = ["Choice", "choose_basis", "is_worth_a_sample", "whole_product_ns"]

_LENGTHS = (8, 16, 24, 32, 48, 64, 96, 128)
_SOME_QUERIES = 64
_SAMPLE_VALUES = 2**23  # rows times dimensions: more would cost more than it tells
_LITTLE_NS = 5e8  # below this, what a sample tells costs more than it saves
# Nanoseconds of one core, measured on EPYC (AVX2) with OpenBLAS; only their ratios matter.
_NS_A_FLOP = 0.011
_NS_A_BOUND = 0.6  # writing, reading and comparing one bound, beside its arithmetic
_NS_A_PAIR = 60.0  # reaching the two vectors of a pair that is left ...
_NS_A_PAIR_DIM = 0.15  # ... and multiplying them, exactly if need be


@dataclass(frozen=True)
class Choice:
    """How to rank a gallery.

    Attributes:
        basis: float32 (D, p), directions of a short first product; None for the whole one.
        ns_a_row: What one gallery row is expected to cost one core, for all queries.
    """

    basis: NDArray[np.float32] | None
    ns_a_row: float


def whole_product_ns(num_queries: int, num_dims: int) -> float:
    """What one gallery row costs one core without a short first product, in nanoseconds."""
    return num_queries * (2 * num_dims * _NS_A_FLOP + _NS_A_BOUND)


def is_worth_a_sample(num_queries: int, num_dims: int, num_gallery: int) -> bool:
    """Whether there is so much to do that a sample, which costs some 0.1 s, can save more."""
    return num_gallery * whole_product_ns(num_queries, num_dims) >= _LITTLE_NS


def choose_basis(sample: NDArray[Any], queries: NDArray[Any], k: int, num_gallery: int) -> Choice:
    """Choose the directions of a short first product, or none if it would not pay.

    Args:
        sample: (N, D) rows from all over the gallery, some thousand.
        queries: (Q, D) one block of queries.
        k: Neighbours of each query.
        num_gallery: Rows of the whole gallery.

    Cost: below a second; less than a hundredth of ranking a million rows.
    """
    num_queries, num_dims = queries.shape
    lengths = [length for length in _LENGTHS if length <= num_dims // 4]
    plain_ns = whole_product_ns(num_queries, num_dims)
    is_worth = is_worth_a_sample(num_queries, num_dims, num_gallery)
    if not lengths or len(sample) < 512 or not is_worth:
        return Choice(None, plain_ns)
    rows = _unit(sample[:: -(-len(sample) * num_dims // _SAMPLE_VALUES)])
    basis = principal_directions(rows, lengths[-1])
    some = _unit(queries[:: -(-num_queries // _SOME_QUERIES)])
    shares = _shares_left(rows, some, basis, lengths, k / num_gallery)
    costs = [
        _prefix_ns(length, num_dims, num_queries, share)
        for length, share in zip(lengths, shares, strict=True)
    ]
    best = int(np.argmin(costs))
    if costs[best] >= plain_ns:
        return Choice(None, plain_ns)
    return Choice(np.ascontiguousarray(basis[:, : lengths[best]]), costs[best])


def _shares_left(
    theirs: NDArray[np.float32],
    ours: NDArray[np.float32],
    basis: NDArray[np.float32],
    lengths: list[int],
    share_wanted: float,
) -> list[float]:
    """The share of all pairs that the bound of each length leaves, estimated on the sample."""
    scores = ours @ theirs.T
    # The k-th best of the gallery is this one of the sample. For small k it is the sample's
    # best, which is worse than the k-th of all, and so near what a scan meets on the way.
    place = min(len(theirs), max(1, round(share_wanted * len(theirs))))
    limits = np.partition(scores, -place, axis=1)[:, -place]
    our_prefix, their_prefix = ours @ basis, theirs @ basis
    shares = []
    for length in lengths:
        our_part, their_part = our_prefix[:, :length], their_prefix[:, :length]
        bounds = our_part @ their_part.T + np.outer(_tails(our_part), _tails(their_part))
        shares.append(float(np.mean(bounds >= limits[:, None])))
    return shares


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Rows of length one; a block's `prepare` is several times faster than NumPy's float16."""
    block = prepare(vectors, np.empty(vectors.shape, np.float32))
    if not block.is_tame:  # as such blocks are ranked without bounds, anything will do
        return np.full(vectors.shape, 1 / np.sqrt(vectors.shape[1]), np.float32)
    return block.rough / np.sqrt(block.squares).astype(np.float32)[:, None]


def _tails(prefix: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.sqrt(np.maximum(1 - np.einsum("np,np->n", prefix, prefix), 0))


def _prefix_ns(length: int, num_dims: int, num_queries: int, share: float) -> float:
    """Nanoseconds a gallery row with a first product of this length."""
    turning = 2 * num_dims * length * _NS_A_FLOP
    bounding = num_queries * (2 * (length + 1) * _NS_A_FLOP + _NS_A_BOUND)
    finishing = num_queries * share * (_NS_A_PAIR + num_dims * _NS_A_PAIR_DIM)
    return turning + bounding + finishing
