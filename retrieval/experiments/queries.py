"""Which photos of a class become queries, and how often chance alone finds their class."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

__all__ = ["chance_accuracy", "choose_queries"]


def choose_queries(
    image_ids: Sequence[str], labels: Sequence[str], *, per_class: int, seed: int
) -> set[str]:
    """Draw the queries of each class by a seeded hash of their ids.

    So the choice depends neither on the order of the photos nor on other classes. A class
    that would be left with fewer than two photos gives none.

    Args:
        image_ids: Of all photos (N,), each once.
        labels: Class of each (N,).
        per_class: How many to draw.
        seed: Another seed draws others.

    Example:
        >>> len(choose_queries(["1", "2", "3", "4"], ["a"] * 4, per_class=2, seed=0))
        2
        >>> choose_queries(["1", "2", "3"], ["a"] * 3, per_class=2, seed=0)
        set()
    """
    of_class: dict[str, list[str]] = {}
    for image_id, label in zip(image_ids, labels, strict=True):
        of_class.setdefault(label, []).append(image_id)
    chosen: set[str] = set()
    for members in of_class.values():
        if len(members) - per_class >= 2:
            chosen.update(sorted(members, key=lambda image_id: _lot(seed, image_id))[:per_class])
    return chosen


def _lot(seed: int, image_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{image_id}".encode()).digest()


def chance_accuracy(num_relevant: Sequence[int], num_gallery: int, k: int) -> float:
    """Expected top-k accuracy if the gallery were shuffled for each query.

    Args:
        num_relevant: Photos of each query's class in the gallery (Q,).
        num_gallery: Photos of the gallery.
        k: Rank up to which a hit counts.

    Example:
        >>> chance_accuracy([1, 1], num_gallery=4, k=1)
        0.25
    """
    k = min(k, num_gallery)
    all_sets = math.comb(num_gallery, k)
    missed = sum(math.comb(num_gallery - relevant, k) / all_sets for relevant in num_relevant)
    return 1 - missed / len(num_relevant)
