"""One photo: viewpoint, light, scene, and what lens and sensor do to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from retrieval.drawn.backdrop import draw_haze
from retrieval.drawn.buildings import design_of
from retrieval.drawn.camera import Extent, point_camera
from retrieval.drawn.light import choose_light
from retrieval.drawn.stage import Stage
from retrieval.drawn.surroundings import draw_background, draw_foreground
from retrieval.errors import UsageError

__all__ = ["draw_photo", "jpeg_quality"]

_SCENE, _LENS, _FILE = 0, 1, 2  # streams of random numbers of one photo
SHEET_SCALE = 2  # drawn larger and reduced, as smoothing of edges


def draw_photo(building: int, photo: int, *, seed: int = 0) -> Image.Image:
    """Draw one view of a building.

    Every random number comes from (seed, building, photo), so a photo never depends on which
    other photos are drawn.

    Args:
        building: Number of the building; beyond the designed ones, a random house of its own.
        photo: Number of the view.
        seed: Another seed gives other views of the same buildings.

    Returns:
        An RGB picture with sides of 320 to 640 pixels.

    Raises:
        UsageError: One of the numbers is negative.

    Example:
        >>> draw_photo(0, 0).mode
        'RGB'
        >>> draw_photo(0, 0) == draw_photo(0, 0)
        True
    """
    if min(building, photo, seed) < 0:
        raise UsageError(
            f"draw_photo: found building {building}, photo {photo}, seed {seed}, but each must be "
            "0 or more. Give whole numbers from 0."
        )
    rng = np.random.default_rng([seed, building, photo, _SCENE])
    design = design_of(building)
    size = _choose_size(design.extent, rng)
    sheet_size = (size[0] * SHEET_SCALE, size[1] * SHEET_SCALE)
    camera = point_camera(design.extent, sheet_size, rng)
    stage = Stage(sheet_size, camera, choose_light(rng), rng)
    draw_background(stage, design.extent, rng)
    design.draw(stage)
    draw_haze(stage)
    draw_foreground(stage, design.extent, rng)
    image = stage.image.reduce(SHEET_SCALE)
    if stage.light.is_dark:
        halo = stage.glow.filter(ImageFilter.GaussianBlur(2.5))
        image = ImageChops.screen(image, halo.resize(image.size, Image.Resampling.BILINEAR))
    return _through_lens(image, np.random.default_rng([seed, building, photo, _LENS]))


def jpeg_quality(building: int, photo: int, *, seed: int = 0) -> int:
    """Quality to save a photo with: most are good, some are of the web's worst."""
    rng = np.random.default_rng([seed, building, photo, _FILE])
    return int(rng.integers(35, 60)) if rng.random() < 0.2 else int(rng.integers(75, 95))


def _choose_size(extent: Extent, rng: np.random.Generator) -> tuple[int, int]:
    """Width and height in pixels; tall buildings are mostly taken upright."""
    long_side = int(rng.integers(400, 641))
    short_side = max(320, int(long_side / float(rng.choice([1.0, 1.25, 1.33, 1.5]))))
    is_upright = rng.random() < (0.85 if extent.height > 1.15 * extent.width else 0.12)
    return (short_side, long_side) if is_upright else (long_side, short_side)


def _through_lens(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur, exposure, white balance, vignette, grain; now and then black and white."""
    width, height = image.size
    softness = float(rng.choice([0.0, 0.0, 0.6, 1.2]))
    if softness > 0:
        image = image.filter(ImageFilter.GaussianBlur(softness))
    is_grey = rng.random() < 0.08
    if is_grey:
        image = image.convert("L").convert("RGB")
    pixels = np.asarray(image, dtype=np.float32)  # (H, W, 3)
    balance = np.ones(3) if is_grey else rng.normal(1.0, 0.03, 3)
    exposure = float(rng.uniform(0.88, 1.18))
    contrast = float(rng.uniform(0.82, 1.15))
    pixels = (pixels - 118) * np.float32(contrast) + 118 + np.float32(rng.uniform(-8, 8))
    pixels *= (exposure * balance).astype(np.float32)
    pixels *= _vignette(width, height, float(rng.uniform(0.0, 0.3)))[:, :, None]
    grain = rng.normal(0.0, float(rng.uniform(1.5, 6.0)), (height, width)).astype(np.float32)
    pixels += grain[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _vignette(width: int, height: int, strength: float) -> NDArray[np.float32]:
    """Factor (H, W) that darkens the corners."""
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)
    return 1 - np.float32(strength) * 0.5 * (x[None, :] ** 2 + y[:, None] ** 2)
