"""How the results that a class needs are shared out among its photos and the techniques.

A competition report on the retrieval of buildings multiplied some 15 photos of a class into
some 600. Here each photo of a class gives as many results as the others, and each technique
is used as often as the others in the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Share", "share_out", "share_rest"]


@dataclass(frozen=True)
class Share:
    """What one photo of a class has to give.

    Attributes:
        first: Position, in the recipe's techniques, of the one that it begins with.
        count: How many results.
        skip: How many it has given before; they are made again, but not returned.
        is_dry: Whether it could not give all that it was asked for before.
    """

    first: int
    count: int
    skip: int = 0
    is_dry: bool = False


def share_out(num_photos: int, per_class: int, num_techniques: int) -> list[Share]:
    """Share the results that a class needs out among its photos.

    Each photo begins with the technique after the last one of the photo before. So over the
    class each technique is used equally often, one time more or less, if nothing is dropped.

    Args:
        num_photos: Photos of the class, in a lasting order.
        per_class: Wanted photos and results together.
        num_techniques: Of the recipe; of 0 nothing can be made.

    Returns:
        One share a photo. Their counts differ by one at most, the larger ones first; they are
        0 where the class is large enough as it is.

    Example:
        >>> [(each.first, each.count) for each in share_out(3, per_class=10, num_techniques=5)]
        [(0, 3), (3, 2), (0, 2)]
    """
    wanted = max(0, per_class - num_photos) if num_techniques else 0
    shares, position = [], 0
    for count in _evenly(wanted, num_photos):
        shares.append(Share(position % max(1, num_techniques), count))
        position += count
    return shares


def share_rest(shares: Sequence[Share], made: Sequence[int]) -> list[Share]:
    """Share out again what some photos of a class could not give.

    Args:
        shares: What each photo was asked for last.
        made: What it gave of that.

    Returns:
        One share a photo; what is lacking is asked of those that never failed. All counts are
        0 if nothing is lacking, or if every photo has given what it can.
    """
    given = list(zip(shares, made, strict=True))
    is_dry = [share.is_dry or number < share.count for share, number in given]
    lacking = sum(share.count for share in shares) - sum(made)
    more = iter(_evenly(lacking, is_dry.count(False)))
    return [
        Share(share.first, 0 if dry else next(more), share.skip + number, dry)
        for (share, number), dry in zip(given, is_dry, strict=True)
    ]


def _evenly(total: int, num_parts: int) -> list[int]:
    return [total // num_parts + (part < total % num_parts) for part in range(num_parts)]
