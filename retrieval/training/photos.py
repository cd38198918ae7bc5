"""The bytes of a photo → the square of pixels that training sees.

Without a recipe these are the very pixels that `embed` makes. With one, the photo is reduced to
a little more than the network's input, augmented at that size, and then stretched to it: so the
same recipe means the same on the fly as on disk, and costs little.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retrieval.augmentations import Recipe, random_generator
from retrieval.augmentations.multiplying import reduced_picture
from retrieval.images import Preprocessing, decode_image

__all__ = ["training_pixels"]

# Shorter side while augmenting, against the network's input: the classic 256 for 224, so that a
# crop of 7/8 still has a pixel for each of the input's.
_HEADROOM = 8 / 7


def training_pixels(
    content: bytes,
    preprocessing: Preprocessing,
    recipe: Recipe,
    *,
    seed: int,
    draw: tuple[str, int],
) -> NDArray[np.uint8]:
    """Decode and augment one photo.

    Args:
        content: The file.
        preprocessing: Of the network.
        recipe: What to do with it; "none" leaves it as `embed` would see it.
        seed: Of the training.
        draw: Image id, and a number that tells its draws apart: other numbers give other
            pictures, the same one always the same.

    Returns:
        uint8 (S, S, 3).

    Raises:
        ImageError: the photo cannot be decoded.
    """
    if not recipe.steps:
        return decode_image(content, preprocessing).pixels
    side = preprocessing.size
    picture = reduced_picture(content, round(side * _HEADROOM), preprocessing.decoder)
    image_id, number = draw
    rng = random_generator(seed, image_id, "training", number)
    augmented = Image.fromarray(recipe.augment(picture, rng))
    return np.array(augmented.resize((side, side), Image.Resampling.BILINEAR))
