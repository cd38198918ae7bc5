"""Whether a result is worth keeping: not a near copy, and not destroyed.

Pictures are compared by thumbnails, stretched to a square of up to 160 x 160 by averaging. The
deviation of one from another is the mean, over pixels and channels, of how far a value lies
outside the lowest and highest value that the other has in the 3 x 3 square around. A near copy
is a picture whose deviation from the source or from an accepted sibling, and theirs from it,
are below `MIN_DEVIATION`, at proportions that differ by less than `MAX_RATIO`. The thumbnail
cannot see a stretch; so only the last tells it.

Plain differences would not do: a thumbnail hides noise by averaging, but not a shift. On 738
photos of buildings, the shorter side reduced to 256, they are 8.3 levels in the median for a
shift by 1 pixel across and down, as much as for Gaussian noise (8.8), and more than for a
bilateral filter (3.8). The square around allows for a shift. It does not allow for noise, which
sticks out of it, nor for a blur, for the original sticks out of the narrower one of the blur.

Deviations of the same photos, and how many of them are near copies:

    the same again             median   95th percentile
    JPEG of quality 90           0.13              0.27    100 %
    noise of sigma 1             0.03              0.06    100 %
    1 pixel cut off              0.12              0.28   99.9 %
    shift by 1 and 1 pixel       0.27              0.64     98 %
    half the size                0.42              0.96     90 %

    by default ranges          median    5th percentile
    bilateral_blur               1.44              0.58     14 %
    median_blur                  3.74              1.06      2 %
    all others, stretch apart    3.77 and more     1.37   0 to 2 %

Of stretched photos 11 % keep their proportions within 5 %. Destroyed is a picture of which the
thumbnail's luma has a standard deviation below `MIN_CONTRAST`; these photos have 19 and more,
what was made of them 7 and more.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from retrieval.augmentations.sizes import RGB, to_grey

__all__ = ["Guard", "Verdict"]

MIN_DEVIATION: Final = 0.8  # mean levels of 255; between the two tables above
MIN_CONTRAST: Final = 5.0  # levels of 255
MAX_RATIO: Final = 1.05  # of width / height; a crop's rounding changes it by 1 %
_MIN_SIDE, _MAX_SIDE = 8, 160  # of the thumbnail; of less, a strip would be of one brightness
_AROUND: Final = np.ones((3, 3), np.uint8)


class Verdict(StrEnum):
    """What the guard says of a picture."""

    GOOD = "good"
    NEAR_COPY = "near_copy"  # of the source or of a sibling accepted before
    DESTROYED = "destroyed"  # of one brightness all over


@dataclass(frozen=True, eq=False)
class _Thumbnail:
    """A picture made small: pixels uint8 (S, S, 3), lowest and highest value around each.

    Rows are shuffled, so that the first quarter of them comes from the whole picture.
    """

    pixels: NDArray[np.uint8]
    lowest: NDArray[np.uint8]
    highest: NDArray[np.uint8]
    proportion: float  # width / height of the picture

    def is_near(self, other: _Thumbnail) -> bool:
        ratio = self.proportion / other.proportion
        if not 1 / MAX_RATIO <= ratio <= MAX_RATIO:
            return False
        return self._lies_in(other) and other._lies_in(self)

    def _lies_in(self, other: _Thumbnail) -> bool:
        limit = MIN_DEVIATION * self.pixels.size
        # A quarter of the rows is mostly enough to see that two pictures differ: sums only grow.
        num_rows = len(self.pixels)
        return all(self._outside(other, rows) < limit for rows in (-(-num_rows // 4), num_rows))

    def _outside(self, other: _Thumbnail, num_rows: int) -> float:
        """Sum of how far the first rows lie outside the other's values around."""
        pixels = self.pixels[:num_rows]
        inside = cv2.min(cv2.max(pixels, other.lowest[:num_rows]), other.highest[:num_rows])
        return cv2.norm(pixels, inside, cv2.NORM_L1)


class Guard:
    """Compares pictures made of one source with it and with each other.

    Args:
        source: uint8 RGB (H, W, 3), of about the size of the results.

    Memory: 230 KB for the source and for each accepted picture.
    """

    def __init__(self, source: RGB) -> None:
        # 256 to 160: a smaller picture is not blown up, or the square around a pixel of the
        # thumbnail would be less than a pixel of the picture.
        self._side = max(_MIN_SIDE, min(_MAX_SIDE, min(source.shape[:2]) * 5 // 8))
        self._rows = np.argsort(np.arange(self._side) % 4, kind="stable")
        self._known = [self._thumbnail(source)]

    def verdict(self, image: RGB) -> Verdict:
        """Judge a picture, uint8 RGB (H, W, 3); of any size."""
        thumbnail = self._thumbnail(image)
        if float(to_grey(thumbnail.pixels).std()) < MIN_CONTRAST:
            return Verdict.DESTROYED
        is_copy = any(map(thumbnail.is_near, self._known))
        return Verdict.NEAR_COPY if is_copy else Verdict.GOOD

    def accept(self, image: RGB) -> None:
        """Remember a picture: what comes too near to it is a copy from now on."""
        self._known.append(self._thumbnail(image))

    def _thumbnail(self, image: RGB) -> _Thumbnail:
        size = (self._side, self._side)
        pixels = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        lowest = np.asarray(cv2.erode(pixels, _AROUND), np.uint8)
        highest = np.asarray(cv2.dilate(pixels, _AROUND), np.uint8)
        rows = self._rows
        proportion = image.shape[1] / image.shape[0]
        return _Thumbnail(pixels[rows], lowest[rows], highest[rows], proportion)
