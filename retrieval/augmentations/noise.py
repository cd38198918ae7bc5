"""Noise, blurs, and the details that a blur would remove.

Each function takes a picture, uint8 RGB (H, W, 3), and returns a new one of the same shape.
`rng` decides where noise falls; what has no chance in it ignores it. A `size` is the side of
a square kernel as a fraction of the shorter side; see `retrieval.augmentations.sizes`.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.exposure import rescale_intensity
from skimage.util import img_as_ubyte, random_noise

from retrieval.augmentations.sizes import RGB, kernel_side, length, square_kernel

__all__ = [
    "average_blur",
    "bilateral_blur",
    "black_hat",
    "gaussian_blur",
    "gaussian_noise",
    "median_blur",
    "pepper",
    "salt",
    "salt_and_pepper",
    "top_hat",
]

_UNTOUCHED = 0.5  # neither the 0 nor the 1 that specks are set to
_WHITE_PERCENTILE = 99


def gaussian_noise(image: RGB, rng: np.random.Generator, *, sigma: float) -> RGB:
    """Add to each value a normal deviate of its own, then clip.

    Args:
        image: The picture.
        rng: Draws the deviates.
        sigma: Standard deviation in levels of 255, >= 0.
    """
    noisy = random_noise(image, mode="gaussian", rng=rng, var=(sigma / 255) ** 2)
    return img_as_ubyte(noisy)


def salt(image: RGB, rng: np.random.Generator, *, amount: float) -> RGB:
    """Set a random share of the pixels to white.

    Args:
        image: The picture.
        rng: Chooses the pixels, each for itself.
        amount: Share of the pixels, 0 to 1.
    """
    return _specks(image, rng, "salt", amount)


def pepper(image: RGB, rng: np.random.Generator, *, amount: float) -> RGB:
    """Set a random share of the pixels to black; the rest as `salt`."""
    return _specks(image, rng, "pepper", amount)


def salt_and_pepper(image: RGB, rng: np.random.Generator, *, amount: float) -> RGB:
    """Set a random share of the pixels to white or black, one as likely as the other."""
    return _specks(image, rng, "s&p", amount)


def _specks(image: RGB, rng: np.random.Generator, mode: str, amount: float) -> RGB:
    # On one channel, since on three a speck would be red, green or blue.
    canvas = np.full(image.shape[:2], _UNTOUCHED)  # (H, W)
    specks = random_noise(canvas, mode=mode, rng=rng, amount=amount)
    result = image.copy()
    result[specks == 1] = 255
    result[specks == 0] = 0
    return result


def average_blur(image: RGB, rng: np.random.Generator, *, size: float) -> RGB:
    """Replace each value by the mean of the square around it."""
    side = kernel_side(image, size)
    return np.asarray(cv2.blur(image, (side, side)), np.uint8)


def median_blur(image: RGB, rng: np.random.Generator, *, size: float) -> RGB:
    """Replace each value by the median of the square around it, channel by channel."""
    return np.asarray(cv2.medianBlur(image, kernel_side(image, size)), np.uint8)


def gaussian_blur(image: RGB, rng: np.random.Generator, *, sigma: float) -> RGB:
    """Blur by a Gaussian bell.

    Args:
        image: The picture.
        rng: Ignored.
        sigma: Standard deviation of the bell as a fraction of the shorter side, > 0.
    """
    return np.asarray(cv2.GaussianBlur(image, (0, 0), length(image, sigma)), np.uint8)


def bilateral_blur(
    image: RGB, rng: np.random.Generator, *, size: float, sigma_colour: float
) -> RGB:
    """Blur within areas and keep the edges between them.

    Args:
        image: The picture.
        rng: Ignored.
        size: Diameter of the neighbourhood as a fraction of the shorter side. The time
            grows with its square.
        sigma_colour: How far apart in levels of 255 two colours may be and still mix, > 0.
    """
    diameter = kernel_side(image, size)
    return np.asarray(cv2.bilateralFilter(image, diameter, sigma_colour, diameter), np.uint8)


def black_hat(image: RGB, rng: np.random.Generator, *, size: float) -> RGB:
    """Show bright the dark details that are narrower than the kernel: closing minus picture.

    The differences are brightened by one factor, so that the largest 1 % of them are white;
    a picture without any stays black.
    """
    hat = cv2.morphologyEx(image, cv2.MORPH_BLACKHAT, square_kernel(image, size))
    return _brightened(np.asarray(hat, np.uint8))


def top_hat(image: RGB, rng: np.random.Generator, *, size: float) -> RGB:
    """Show the bright details that are narrower than the kernel: picture minus opening.

    Brightened as by `black_hat`.
    """
    hat = cv2.morphologyEx(image, cv2.MORPH_TOPHAT, square_kernel(image, size))
    return _brightened(np.asarray(hat, np.uint8))


def _brightened(hat: NDArray[np.uint8]) -> RGB:
    # A photo's differences are mostly below 50 of 255, which is black to the eye. Not by their
    # maximum: one glint would keep the rest dark.
    white = max(1.0, float(np.percentile(hat, _WHITE_PERCENTILE)))
    return np.asarray(rescale_intensity(hat, in_range=(0, white), out_range=np.uint8), np.uint8)
