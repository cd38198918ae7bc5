"""Sizes relative to the picture, so that an effect looks the same at any resolution.

A size is a fraction of the picture's shorter side. A 5-pixel blur of a picture with a shorter
side of 256 is the same blur as a 20-pixel one of the same picture at 1024.
"""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["RGB", "grey_as_rgb", "kernel_side", "length", "square_kernel", "to_grey"]

RGB: TypeAlias = NDArray[np.uint8]  # (H, W, 3), C-contiguous


def length(image: RGB, fraction: float) -> float:
    """A fraction of the shorter side, in pixels; not rounded."""
    return fraction * min(image.shape[:2])


def kernel_side(image: RGB, fraction: float) -> int:
    """The odd number >= 3 nearest to a fraction of the shorter side: a kernel's side in pixels.

    Odd, so that the kernel has a middle; at least 3, so that the filter does something even
    where the picture is tiny.
    """
    return max(3, 2 * round((length(image, fraction) - 1) / 2) + 1)


def square_kernel(image: RGB, fraction: float) -> NDArray[np.uint8]:
    """The square neighbourhood of a morphological filter: ones, uint8 (side, side)."""
    side = kernel_side(image, fraction)
    return np.ones((side, side), np.uint8)


def to_grey(image: RGB) -> NDArray[np.uint8]:
    """The luma 0.299 R + 0.587 G + 0.114 B, uint8 (H, W)."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)


def grey_as_rgb(grey: NDArray[np.uint8]) -> RGB:
    """Grey, uint8 (H, W), as a picture of three equal channels."""
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
