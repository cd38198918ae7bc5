"""What an image may consist of at most; docs/images.md has the limits in a table, with reasons.

Each was chosen by measurement: no real image reaches it, and what it lets through is decoded in
some 5 s on one core.
"""

from __future__ import annotations

from typing import Final

from retrieval.errors import ImageError
from retrieval.images.reasons import Reason

__all__ = ["check_number", "check_pixels", "check_sides"]

# Of any format. A screenshot of a whole page or a line scan has up to 100,000.
MAX_SIDE: Final = 1_000_000


def check_number(number: int, limit: int, what: str) -> None:
    """Refuse more than `limit` of `what`, a plural; whoever counts may stop one above the limit.

    Raises:
        ImageError: too_complex.
    """
    if number > limit:
        raise ImageError(Reason.TOO_COMPLEX, f"more than {limit} {what}, which is the limit")


def check_pixels(width: int, height: int, limit: int, what: str = "") -> None:
    """Refuse a picture of more than `limit` pixels; `what`, if given, says which form has it.

    Raises:
        ImageError: too_many_pixels.
    """
    if width * height > limit:
        raise ImageError(Reason.TOO_MANY_PIXELS, f"{width} × {height}; the limit{what} is {limit}")


def check_sides(width: int, height: int) -> None:
    """Refuse a side of more than MAX_SIDE pixels.

    Raises:
        ImageError: too_many_pixels.
    """
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            Reason.TOO_MANY_PIXELS, f"{width} × {height}; the limit of a side is {MAX_SIDE}"
        )
