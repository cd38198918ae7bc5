"""From faces to pixels: a pinhole camera, the light of an hour, and paint from back to front."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from retrieval.drawn.parts import Part

Array = NDArray[np.float64]
NEAR_M = 0.4  # a face that comes nearer is left out: it would land millions of pixels away
SHEET_SCALE = 2  # drawn larger and reduced, as smoothing of edges
HALO_SCALE = 8  # halos are blurred anyway: a sheet 8 times smaller is enough
LAMPS = np.array([(255, 214, 130), (255, 196, 104), (255, 232, 178), (240, 180, 96)])


class Light(NamedTuple):
    """What falls on the faces, and what stands behind them; colours are red, green and blue."""

    sun: Array  # unit vector towards it; at night, towards a floodlight
    sun_tint: Array  # 1 leaves white paint white
    sky_tint: Array
    zenith: Array  # colour of the sky overhead
    horizon: Array
    lit_fraction: float  # of the windows, 0-1
    is_dark: bool  # lamps are on

    def tint(self, normals: Array) -> Array:
        """What is left (N, 3) of the colours of faces with these normals (N, 3)."""
        normals = normals / np.maximum(1e-9, np.linalg.norm(normals, axis=1, keepdims=True))
        facing = np.maximum(0.0, normals @ self.sun)[:, None]
        # A wall sees half of the sky, a roof all of it: that alone gives form when overcast.
        return np.asarray((0.86 + 0.14 * normals[:, 2:]) * self.sky_tint + facing * self.sun_tint)


class Camera(NamedTuple):
    """Where a photo is taken from."""

    eye: Array  # metres
    axes: Array  # unit vectors (3, 3) to the right, up and forward
    focal: float  # pixels
    centre: Array  # where the optical axis meets the photo, pixels

    def project(self, points: Array) -> tuple[Array, Array]:
        """Pixels (N, 2) and depths (N,) in metres of points (N, 3)."""
        seen = (points - self.eye) @ self.axes.T
        flat = seen[:, :2] * (1, -1) * self.focal / np.maximum(seen[:, 2:], NEAR_M)
        return flat + self.centre, seen[:, 2]


def render(
    image: Image.Image, faces: Part, camera: Camera, light: Light, rng: Generator
) -> Image.Image:
    """Paint the faces that are turned to the camera on a backdrop of twice the photo's size.

    Later faces cover earlier ones; `rng` draws which windows are lit.
    """
    points = np.array([corner for face in faces for corner in face.corners], dtype=float)
    counts = np.array([len(face.corners) for face in faces])
    first = np.cumsum(counts) - counts
    second, third = first + 1, first + np.minimum(2, counts - 1)
    pixels, depth = camera.project(points)
    ab, ac = pixels[second] - pixels[first], pixels[third] - pixels[first]
    is_ball = counts == 2
    is_seen = is_ball | (ab[:, 0] * ac[:, 1] < ab[:, 1] * ac[:, 0])
    is_seen &= np.minimum.reduceat(depth, first) > NEAR_M
    normals = np.cross(points[second] - points[first], points[third] - points[first])
    normals[is_ball] = (0.0, -0.6, 0.5)  # half in the sun
    colours, is_lit = _shaded(faces, normals, light, rng)
    halo = Image.new("RGB", (image.width // HALO_SCALE, image.height // HALO_SCALE))
    ink, glow = ImageDraw.Draw(image, "RGBA"), ImageDraw.Draw(halo)
    for index in np.flatnonzero(is_seen).tolist():
        outline = pixels[first[index] : first[index] + counts[index]]
        if is_ball[index]:
            reach = np.linalg.norm(outline[1] - outline[0])
            disc = np.concatenate([outline[0] - reach, outline[0] + reach])
            ink.ellipse(disc.tolist(), colours[index])
            glow.ellipse((disc / HALO_SCALE).tolist(), 0)  # leaves hide the lamps behind them
            continue
        ink.polygon(outline.ravel().tolist(), colours[index])
        if is_lit[index]:
            glow.polygon((outline / HALO_SCALE).ravel().tolist(), colours[index][:3])
    image = image.reduce(SHEET_SCALE)
    halo = halo.filter(ImageFilter.GaussianBlur(2.5)).resize(image.size)
    return ImageChops.screen(image, halo) if light.is_dark else image


def _shaded(faces: Part, normals: Array, light: Light, rng: Generator) -> tuple[list[Any], Any]:
    """Colour with alpha of each face under the light, and whether it sends out light."""
    kinds = np.array([face.kind for face in faces])
    paint = np.array([face.colour for face in faces], dtype=float)
    is_glass, is_lamp = kinds == "glass", (kinds == "lamp") & light.is_dark
    is_lit = is_glass & (rng.random(len(faces)) < light.lit_fraction)
    gleam = rng.uniform(0.12, 0.42, (len(faces), 1))
    colours = paint * light.tint(normals)
    colours[is_glass] = ((30, 40, 52) + gleam * (light.zenith - (30, 40, 52)))[is_glass]
    colours[is_lit] = LAMPS[rng.integers(len(LAMPS), size=int(is_lit.sum()))]
    colours[is_lamp] = paint[is_lamp]
    rgb = np.clip(colours, 0, 255).astype(int).tolist()
    return [(*c, face.alpha) for c, face in zip(rgb, faces, strict=True)], is_lit | is_lamp
