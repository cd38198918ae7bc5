"""Colour, brightness and sharpness.

Each function takes a picture, uint8 RGB (H, W, 3), and returns a new one of the same shape.
Nothing here draws anything: `rng` is ignored.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.exposure import adjust_gamma
from skimage.filters import unsharp_mask
from skimage.util import img_as_ubyte

from retrieval.augmentations.sizes import RGB, grey_as_rgb, length, to_grey

__all__ = [
    "channel_gain",
    "contrast",
    "darken",
    "grayscale",
    "hue",
    "invert",
    "lighten",
    "saturation",
    "sharpen",
]

_LEVELS = np.arange(256, dtype=np.float64)


def saturation(image: RGB, rng: np.random.Generator, *, factor: float) -> RGB:
    """Move each colour away from the grey of its luma, or towards it.

    Args:
        image: The picture.
        rng: Ignored.
        factor: Of the distance from grey: 0 gives grey, 1 the picture, more than 1 gaudy.
    """
    grey = grey_as_rgb(to_grey(image))
    return np.asarray(cv2.addWeighted(image, factor, grey, 1 - factor, 0), np.uint8)


def hue(image: RGB, rng: np.random.Generator, *, shift: float) -> RGB:
    """Turn the colour wheel. Grey stays, and so does each pixel's largest value.

    Args:
        image: The picture.
        rng: Ignored.
        shift: Degrees, -360 to 360; 120 turns red into green.
    """
    # In float32, since OpenCV keeps only 180 hues in uint8.
    hsv = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2HSV)  # degrees, 0-1, 0-255
    hsv[..., 0] = (hsv[..., 0] + shift) % 360
    return np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).astype(np.uint8)


def contrast(image: RGB, rng: np.random.Generator, *, factor: float) -> RGB:
    """Move each value away from the picture's mean luma, or towards it.

    Args:
        image: The picture.
        rng: Ignored.
        factor: Of the distance from the mean: 0 gives one grey, 1 the picture.
    """
    middle = float(to_grey(image).mean())
    return _mapped(image, middle + factor * (_LEVELS - middle))


def lighten(image: RGB, rng: np.random.Generator, *, gamma: float) -> RGB:
    """Lift the dark parts by value ** gamma on the scale 0 to 1; black and white stay.

    Args:
        image: The picture.
        rng: Ignored.
        gamma: Above 0, at most 1; smaller is lighter.
    """
    return np.asarray(adjust_gamma(image, gamma), np.uint8)


def darken(image: RGB, rng: np.random.Generator, *, gamma: float) -> RGB:
    """Lower the bright parts by value ** gamma on the scale 0 to 1; black and white stay.

    Args:
        image: The picture.
        rng: Ignored.
        gamma: At least 1; larger is darker.
    """
    return np.asarray(adjust_gamma(image, gamma), np.uint8)


def sharpen(image: RGB, rng: np.random.Generator, *, radius: float, amount: float) -> RGB:
    """Add what a Gaussian blur would take away, amount times (an unsharp mask).

    Args:
        image: The picture.
        rng: Ignored.
        radius: Standard deviation of the blur as a fraction of the shorter side, > 0.
        amount: How much of the difference is added, >= 0.
    """
    # 2, since of -1 scikit-image 0.26 makes the first axis and leaves most rows unset.
    sharp = unsharp_mask(image, radius=length(image, radius), amount=amount, channel_axis=2)
    return img_as_ubyte(sharp)


def grayscale(image: RGB, rng: np.random.Generator) -> RGB:
    """The luma alone, in three equal channels."""
    return grey_as_rgb(to_grey(image))


def invert(image: RGB, rng: np.random.Generator) -> RGB:
    """The negative: 255 minus each value."""
    return np.asarray(cv2.bitwise_not(image), np.uint8)


def channel_gain(
    image: RGB, rng: np.random.Generator, *, red: float, green: float, blue: float
) -> RGB:
    """Multiply each channel by a factor of its own, as light of another colour would.

    Args:
        image: The picture.
        rng: Ignored.
        red: Factor of red, >= 0.
        green: Factor of green, >= 0.
        blue: Factor of blue, >= 0.
    """
    return _mapped(image, np.outer(_LEVELS, (red, green, blue)))


def _mapped(image: RGB, values: NDArray[np.float64]) -> RGB:
    """Look each value up in a table, (256,) or one a channel (256, 3), clipped and rounded."""
    table = np.rint(values.clip(0, 255)).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table.reshape(1, 256, -1)), np.uint8)
