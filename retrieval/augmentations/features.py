"""What is left of a picture when only its edges, reliefs or outlines are kept.

Each function takes a picture, uint8 RGB (H, W, 3), and returns a new one of the same shape.
Nothing here draws anything: `rng` is ignored. A `size` is the side of a square kernel as a
fraction of the shorter side; see `retrieval.augmentations.sizes`.
"""

from __future__ import annotations

import cv2
import numpy as np

from retrieval.augmentations.sizes import (
    RGB,
    grey_as_rgb,
    kernel_side,
    square_kernel,
    to_grey,
)

__all__ = ["adaptive_threshold", "canny", "emboss", "erosion", "gradient", "sobel"]

_LOWER_THRESHOLD = 0.5  # of the upper one; Canny advises between a third and a half
_RELIEF = np.array([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], np.float32)


def sobel(image: RGB, rng: np.random.Generator, *, gain: float) -> RGB:
    """How steeply the luma changes, in any direction.

    Args:
        image: The picture.
        rng: Ignored.
        gain: Brightness of an edge over its height: at 1, an upright edge between two
            levels is as bright as they are apart.
    """
    grey, scale = to_grey(image), gain / 4  # 4: what Sobel's kernel makes of such an edge
    across = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=scale)
    down = cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=scale)
    steepness = np.rint(cv2.magnitude(across, down)).clip(0, 255)
    return grey_as_rgb(steepness.astype(np.uint8))


def canny(image: RGB, rng: np.random.Generator, *, threshold: float) -> RGB:
    """Edges as white lines of one pixel on black.

    Args:
        image: The picture.
        rng: Ignored.
        threshold: Steepness from which an edge counts, in units of Sobel's kernel: four
            times the height of a step. Where it goes on, half of that is enough.
    """
    edges = cv2.Canny(to_grey(image), _LOWER_THRESHOLD * threshold, threshold, L2gradient=True)
    return grey_as_rgb(np.asarray(edges, np.uint8))


def emboss(image: RGB, rng: np.random.Generator, *, strength: float, corner: float) -> RGB:
    """Light the picture from one corner as if it were a relief.

    Args:
        image: The picture.
        rng: Ignored.
        strength: How much of the relief is added, >= 0.
        corner: Whole, 0 to 3: light and shadow turned by as many quarters.
    """
    kernel = strength * np.rot90(_RELIEF, int(corner))
    kernel[1, 1] += 1
    return np.asarray(cv2.filter2D(image, -1, kernel), np.uint8)


def erosion(image: RGB, rng: np.random.Generator, *, size: float) -> RGB:
    """Let what is dark grow: the minimum of the square around each value."""
    return np.asarray(cv2.erode(image, square_kernel(image, size)), np.uint8)


def gradient(image: RGB, rng: np.random.Generator, *, size: float) -> RGB:
    """Outlines: dilation minus erosion, in colour."""
    kernel = square_kernel(image, size)
    return np.asarray(cv2.morphologyEx(image, cv2.MORPH_GRADIENT, kernel), np.uint8)


def adaptive_threshold(image: RGB, rng: np.random.Generator, *, size: float, offset: float) -> RGB:
    """White where the luma is above the mean around it minus an offset, else black.

    Args:
        image: The picture.
        rng: Ignored.
        size: Side of the square of which the mean is taken.
        offset: In levels of 255; larger leaves more white.
    """
    side = kernel_side(image, size)
    method, kind = cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY
    binary = cv2.adaptiveThreshold(to_grey(image), 255, method, kind, side, offset)
    return grey_as_rgb(np.asarray(binary, np.uint8))
