"""Which part of the picture is seen and how it lies, and what is large or small in it.

Each function takes a picture, uint8 RGB (H, W, 3), and returns a new one; `crop`, `stretch`
and `padding` change its height and width. A `size` is a fraction of the shorter side; see
`retrieval.augmentations.sizes`.
"""

from __future__ import annotations

import cv2
import numpy as np
from skimage.segmentation import slic

from retrieval.augmentations.sizes import RGB, length, square_kernel

__all__ = [
    "closing",
    "crop",
    "dilation",
    "flip_both",
    "flip_horizontal",
    "flip_vertical",
    "opening",
    "padding",
    "stretch",
    "superpixels",
]

# After 3 the patches lie 8.8 levels from the photo in the mean, after the usual 10 they lie 8.0,
# and take four times as long.
_SLIC_ITERATIONS = 3
# How much nearness counts against colour in Lab: higher makes squares, lower frays the patches
# until they fall apart.
_SLIC_COMPACTNESS = 16


def crop(image: RGB, rng: np.random.Generator, *, fraction: float) -> RGB:
    """A rectangle of the picture, of the same proportions, anywhere in it.

    Args:
        image: The picture.
        rng: Chooses where.
        fraction: Of the height and of the width, above 0, at most 1.
    """
    height, width = (max(1, round(side * fraction)) for side in image.shape[:2])
    top = int(rng.integers(image.shape[0] - height + 1))
    left = int(rng.integers(image.shape[1] - width + 1))
    return image[top : top + height, left : left + width].copy()


def stretch(image: RGB, rng: np.random.Generator, *, width: float, height: float) -> RGB:
    """Resize by different factors across and down.

    Args:
        image: The picture.
        rng: Ignored.
        width: Factor of the width, > 0.
        height: Factor of the height, > 0.
    """
    size = (max(1, round(image.shape[1] * width)), max(1, round(image.shape[0] * height)))
    is_smaller = max(width, height) <= 1
    # Averages where several pixels become one; of an enlarged side it would make blocks.
    method = cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=method), np.uint8)


def flip_horizontal(image: RGB, rng: np.random.Generator) -> RGB:
    """Swap left and right."""
    return np.asarray(cv2.flip(image, 1), np.uint8)


def flip_vertical(image: RGB, rng: np.random.Generator) -> RGB:
    """Swap top and bottom."""
    return np.asarray(cv2.flip(image, 0), np.uint8)


def flip_both(image: RGB, rng: np.random.Generator) -> RGB:
    """Swap left and right, top and bottom: half a turn."""
    return np.asarray(cv2.flip(image, -1), np.uint8)


def padding(image: RGB, rng: np.random.Generator, *, size: float) -> RGB:
    """Put a black frame around the picture.

    Args:
        image: The picture.
        rng: Ignored.
        size: Breadth of the frame as a fraction of the shorter side; at least 1 pixel.
    """
    side = max(1, round(length(image, size)))
    framed = cv2.copyMakeBorder(image, side, side, side, side, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(framed, np.uint8)


def dilation(image: RGB, rng: np.random.Generator, *, size: float) -> RGB:
    """Let what is bright grow: the maximum of the square around each value."""
    return np.asarray(cv2.dilate(image, square_kernel(image, size)), np.uint8)


def opening(image: RGB, rng: np.random.Generator, *, size: float) -> RGB:
    """Remove what is bright and narrower than the kernel: erosion, then dilation."""
    kernel = square_kernel(image, size)
    return np.asarray(cv2.morphologyEx(image, cv2.MORPH_OPEN, kernel), np.uint8)


def closing(image: RGB, rng: np.random.Generator, *, size: float) -> RGB:
    """Remove what is dark and narrower than the kernel: dilation, then erosion."""
    kernel = square_kernel(image, size)
    return np.asarray(cv2.morphologyEx(image, cv2.MORPH_CLOSE, kernel), np.uint8)


def superpixels(image: RGB, rng: np.random.Generator, *, size: float) -> RGB:
    """Divide the picture into patches along its edges (SLIC), each in its mean colour.

    Args:
        image: The picture.
        rng: Ignored.
        size: Side of a patch as a fraction of the shorter side.
    """
    num_pixels = image.shape[0] * image.shape[1]
    num_patches = max(1, round(num_pixels / max(1, length(image, size)) ** 2))
    # Converted by OpenCV, which takes a tenth of scikit-image's time.
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    # slic() scales its input to [0, 1], so that one glaring pixel would change every patch.
    compactness = _SLIC_COMPACTNESS / max(1, float(np.ptp(lab)))
    labels = slic(
        lab, num_patches, compactness, _SLIC_ITERATIONS, convert2lab=False, start_label=0
    ).ravel()  # (H W,)
    # As color.label2rgb(kind="avg"), which passes over the whole picture once for each patch.
    sums = [np.bincount(labels, channel) for channel in image.reshape(-1, 3).T]
    means = np.stack(sums, axis=1) / np.bincount(labels)[:, np.newaxis]  # (patches, 3)
    return np.rint(means).astype(np.uint8)[labels].reshape(image.shape)
