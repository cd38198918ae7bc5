"""Which photos are in which batch.

The order of an epoch is a function of (labels, seed, epoch) alone. So training that was killed
goes on with the very batches that it would have had, and several workers share out one order.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from retrieval.choices import SAMPLERS
from retrieval.errors import UsageError

__all__ = ["SAMPLERS", "epoch_batches", "num_steps", "seed_of"]

# Photos of a class in a batch of the balanced sampler: enough for pairs, and 8 classes in 32.
PHOTOS_PER_CLASS = 4


def seed_of(*parts: object) -> int:
    """A seed of 32 bits from numbers and names, the same in every process.

    Example:
        >>> seed_of(0, "epoch", 1) == seed_of(0, "epoch", 1) != seed_of(0, "epoch", 2)
        True
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "little")


def epoch_batches(
    labels: NDArray[np.int64], *, batch_size: int, sampler: str, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Deal the photos of one epoch into full batches.

    The photos beyond the last full batch are left out; an epoch shuffles anew, so that no photo
    stays out for long. (A last batch of one photo would break batch normalisation.)

    Args:
        labels: int64 (N,), class of each photo.
        batch_size: Photos of a batch, over all workers; shuffled, more than N means N.
        sampler: "shuffled": each photo at most once. "balanced": each batch has
            PHOTOS_PER_CLASS photos of each of its classes, and small classes come as often
            as large ones.
        seed: Of the training.
        epoch: Number of the epoch.

    Returns:
        int64 (steps, batch size), rows of photos.

    Raises:
        UsageError: the batch size suits no balanced batch.
    """
    seed = seed_of(seed, "order", epoch)
    if sampler == "shuffled":
        batch_size = min(batch_size, len(labels))
        order = np.random.default_rng(seed).permutation(len(labels))
    else:
        order = _balanced_order(labels, batch_size, seed)
    count = num_steps(len(labels), batch_size)
    return order[: count * batch_size].reshape(count, batch_size)


def num_steps(num_photos: int, batch_size: int) -> int:
    """Full batches of an epoch; a batch larger than all photos is all photos."""
    return num_photos // min(batch_size, num_photos)


def _balanced_order(labels: NDArray[np.int64], batch_size: int, seed: int) -> NDArray[np.int64]:
    from pytorch_metric_learning.samplers import MPerClassSampler
    from pytorch_metric_learning.utils import common_functions

    num_classes = len(np.unique(labels))
    most = min(num_classes, len(labels) // PHOTOS_PER_CLASS) * PHOTOS_PER_CLASS
    if batch_size % PHOTOS_PER_CLASS or batch_size > most:
        raise UsageError(
            f"`batch_size` {batch_size}: with `sampler` balanced a batch holds "
            f"{PHOTOS_PER_CLASS} photos of each of its classes, and there are {num_classes} with "
            f"{len(labels)} photos. Use a multiple of {PHOTOS_PER_CLASS} up to {most}."
        )
    before = common_functions.NUMPY_RANDOM
    # The sampler draws from this module-wide generator; there is no argument for it.
    common_functions.NUMPY_RANDOM = np.random.RandomState(seed)
    try:
        length = len(labels) - len(labels) % batch_size
        sampler = MPerClassSampler(labels, PHOTOS_PER_CLASS, batch_size, length)
        return np.fromiter(sampler, np.int64, count=length)
    finally:
        common_functions.NUMPY_RANDOM = before
