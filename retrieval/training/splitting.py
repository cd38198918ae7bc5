"""Which photos are trained on and which are held back to measure.

The unit is the source: a photo together with all augmented copies of it and all files of the
same content. A source is on one side only, so that no copy of a validation photo is ever
trained on; and only originals are measured, each content once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = ["LEFT_OUT", "TRAINING", "VALIDATION", "assign_sides", "hold_out"]

TRAINING, VALIDATION, LEFT_OUT = "training", "validation", "left out"


def assign_sides(
    photos: pa.Table, held: NDArray[np.bool_], *, photos_per_class: int | None, seed: int
) -> pa.Array:
    """Give each photo its side.

    Args:
        photos: Columns label, source (hash of the original photo behind each) and is_original.
        held: bool (N,), whether the photo's source is held out.
        photos_per_class: Sources to train on in a class; None for all.
        seed: Of the choice, where there are more.

    Returns:
        string (N,). TRAINING: not held out. VALIDATION: of a source that is held out, the first
        original. LEFT_OUT: further copies of such a source, and sources beyond the limit.
    """
    sources = np.asarray(photos["source"].to_pylist(), dtype=object)
    originals = np.flatnonzero(held & photos["is_original"].to_numpy(zero_copy_only=False))
    _, first = np.unique(sources[originals].astype(str), return_index=True)
    sides = np.where(held, LEFT_OUT, TRAINING).astype(object)
    sides[originals[first]] = VALIDATION
    if photos_per_class is not None:
        allowed = _limit(photos["label"].to_pylist(), sources, sides, photos_per_class, seed)
        sides[(sides == TRAINING) & ~allowed] = LEFT_OUT
    return pa.array(sides, pa.string())


def _limit(
    labels: Sequence[str],
    sources: NDArray[np.object_],
    sides: NDArray[np.object_],
    limit: int,
    seed: int,
) -> NDArray[np.bool_]:
    """Bool (N,), whether the photo's source is among the first of its class to be drawn."""
    of_class: dict[str, set[str]] = {}
    for label, source, side in zip(labels, sources, sides, strict=True):
        if side == TRAINING:
            of_class.setdefault(label, set()).add(source)
    allowed = {
        (label, source)
        for label, members in of_class.items()
        for source in sorted(members, key=lambda source: _lot(seed, source))[:limit]
    }
    return np.array([pair in allowed for pair in zip(labels, sources, strict=True)], np.bool_)


def hold_out(
    labels: Sequence[str], sources: Sequence[str], *, fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Choose the sources of the validation side, class by class.

    Of a class with n sources, round(fraction × n) are held out, but at least two, since a
    photo without another one of its class has nothing to be found; and at most n - 1. A class
    of two or three gives one, a class of one gives none.

    The choice hangs on the sources alone and not on their number or order: photos that are
    added later leave most of the split as it was.

    Args:
        labels: Class of each photo (N,).
        sources: Hash of the original photo behind each (N,).
        fraction: Share of the sources held out, in (0, 1).
        seed: Another seed gives another split.

    Returns:
        bool (N,), True where the photo's source is held out.

    Example:
        >>> int(hold_out(["a"] * 4, ["1", "2", "3", "4"], fraction=0.25, seed=0).sum())
        2
    """
    of_class: dict[str, set[str]] = {}
    for label, source in zip(labels, sources, strict=True):
        of_class.setdefault(label, set()).add(source)
    held: set[str] = set()
    seen: set[str] = set()
    for label in sorted(of_class):
        # Of a photo that lies in two classes, the first one has decided already.
        free = sorted(of_class[label] - seen, key=lambda source: _lot(seed, source))
        held.update(free[: _num_held(len(free), fraction)])
        seen |= of_class[label]
    return np.array([source in held for source in sources], np.bool_)


def _num_held(num_sources: int, fraction: float) -> int:
    if num_sources < 4:
        return int(num_sources > 1)
    return min(max(2, round(fraction * num_sources)), num_sources - 1)


def _lot(seed: int, source: str) -> bytes:
    return hashlib.sha256(f"{seed}/{source}".encode()).digest()
