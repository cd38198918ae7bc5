"""A pinhole camera and how it is pointed at a building.

World axes, in metres: x to the right along the front wall, y away from the viewer into the
building, z up. The front wall stands on y = 0, so a viewer has y < 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["Camera", "Extent", "Flat", "Point", "cross", "dot", "point_camera", "unit"]

Point = tuple[float, float, float]
Flat = tuple[float, float]

NEAR_M = 0.4  # nearer points would land millions of pixels away
MAX_AZIMUTH_DEG = 52.0  # further round, the front is too thin to know the building by


class Extent(NamedTuple):
    """Size in metres of the box that holds a building; x centred on 0, y from 0."""

    width: float
    depth: float
    height: float


def dot(a: Point, b: Point) -> float:
    """Inner product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Point, b: Point) -> Point:
    """Vector product."""
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def unit(a: Point) -> Point:
    """Same direction, length 1; a zero vector points up."""
    length = math.sqrt(dot(a, a))
    return (a[0] / length, a[1] / length, a[2] / length) if length > 0 else (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Camera:
    """Where the picture is taken from.

    Attributes:
        eye: Position in metres.
        right: Unit vector to the right in the picture; `up` and `forward` likewise.
        focal: Focal length in pixels.
        centre: Where the optical axis meets the picture, in pixels.
    """

    eye: Point
    right: Point
    up: Point
    forward: Point
    focal: float
    centre: Flat

    def depth(self, point: Point) -> float:
        """Metres in front of the camera."""
        return dot(
            (point[0] - self.eye[0], point[1] - self.eye[1], point[2] - self.eye[2]), self.forward
        )

    def project(self, points: Sequence[Point]) -> list[Flat]:
        """Pixels of a polygon, cut off where it passes behind the camera."""
        ex, ey, ez = self.eye
        seen: list[Point] = []
        is_cut = False
        for x, y, z in points:
            offset = (x - ex, y - ey, z - ez)
            depth = dot(offset, self.forward)
            is_cut = is_cut or depth < NEAR_M
            seen.append((dot(offset, self.right), dot(offset, self.up), depth))
        if is_cut:
            seen = _in_front(seen)
        cx, cy = self.centre
        return [(cx + self.focal * x / d, cy - self.focal * y / d) for x, y, d in seen]

    def moved(self, x: float, y: float) -> Camera:
        """The camera as seen by something that stands at (x, y) instead of the origin."""
        eye = (self.eye[0] - x, self.eye[1] - y, self.eye[2])
        return Camera(eye, self.right, self.up, self.forward, self.focal, self.centre)


def _in_front(polygon: list[Point]) -> list[Point]:
    """The part of a polygon, in camera axes, that lies beyond the near plane."""
    kept: list[Point] = []
    for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if a[2] >= NEAR_M:
            kept.append(a)
        if (a[2] >= NEAR_M) != (b[2] >= NEAR_M):
            t = (NEAR_M - a[2]) / (b[2] - a[2])
            kept.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), NEAR_M))
    return kept


def point_camera(extent: Extent, size: tuple[int, int], rng: np.random.Generator) -> Camera:
    """A viewpoint in front of a building, with the building about filling the picture.

    One in five pictures is closer than the building is large, so that it is cropped.

    Args:
        extent: Size of the building, metres.
        size: Width and height of the picture, pixels.
        rng: Draws side, distance, height, tilt and framing.

    Returns:
        The camera; its verticals converge by a random share, as with a hand-held camera.
    """
    azimuth = math.radians(float(rng.triangular(-MAX_AZIMUTH_DEG, 0.0, MAX_AZIMUTH_DEG)))
    reach = max(extent.width, extent.height, extent.depth) * float(rng.uniform(1.1, 2.4)) + 4.0
    height = 1.7 if rng.random() < 0.7 else float(rng.uniform(3.0, 0.55 * extent.height + 4.0))
    eye = (reach * math.sin(azimuth), -reach * math.cos(azimuth), height)
    tilt = float(rng.uniform(0.0, 0.6))
    aim = (0.0, 0.25 * extent.depth, height + tilt * (0.5 * extent.height - height))
    forward = unit((aim[0] - eye[0], aim[1] - eye[1], aim[2] - eye[2]))
    right = unit(cross(forward, (0.0, 0.0, 1.0)))
    up = cross(right, forward)
    roll = float(rng.normal(0.0, 0.017))  # about one degree, as by hand
    cos, sin = math.cos(roll), math.sin(roll)
    right, up = (
        (cos * right[0] + sin * up[0], cos * right[1] + sin * up[1], cos * right[2] + sin * up[2]),
        (cos * up[0] - sin * right[0], cos * up[1] - sin * right[1], cos * up[2] - sin * right[2]),
    )
    camera = Camera(eye, right, up, forward, 1.0, (0.0, 0.0))
    is_close = rng.random() < 0.2
    fill = float(rng.uniform(1.15, 1.45)) if is_close else float(rng.uniform(0.76, 1.06))
    return _framed(camera, extent, size, fill, rng)


def _framed(
    camera: Camera, extent: Extent, size: tuple[int, int], fill: float, rng: np.random.Generator
) -> Camera:
    """Focal length and shift that make the building fill this fraction of the picture."""
    half = extent.width / 2
    corners = camera.project(
        [
            (x, y, z)
            for x in (-half, half)
            for y in (0.0, extent.depth)
            for z in (0.0, extent.height)
        ]
    )
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    span = (max(xs) - min(xs), max(ys) - min(ys))
    focal = fill * min(size[0] / span[0], size[1] / span[1])
    at_x = size[0] * (0.5 + float(rng.uniform(-0.07, 0.07)))
    at_y = size[1] * (0.52 + float(rng.uniform(-0.06, 0.06)))
    middle = ((max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2)
    centre = (at_x - focal * middle[0], at_y - focal * middle[1])
    return Camera(camera.eye, camera.right, camera.up, camera.forward, focal, centre)
