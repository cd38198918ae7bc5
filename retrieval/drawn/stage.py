"""The sheet a picture is drawn on: shaded polygons in space, and walls addressed in metres."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from retrieval.drawn.camera import Camera, Flat, Point, cross, dot, unit
from retrieval.drawn.light import Colour, Light, Tint, mix

__all__ = ["GLOW_SCALE", "Material", "Stage", "Wall", "rectangle"]

Material = Literal["brick", "stone", "plaster", "plain"]

GLOW_SCALE = 8  # the halo of lamps is blurred anyway: a sheet 8 times smaller is enough
SNOW: Colour = (232, 236, 244)


def _shaded(colour: Colour, tint: Tint) -> Colour:
    return (
        min(255, int(colour[0] * tint[0])),
        min(255, int(colour[1] * tint[1])),
        min(255, int(colour[2] * tint[2])),
    )


class Stage:
    """One picture in the making; later polygons cover earlier ones.

    Args:
        size: Width and height in pixels.
        camera: Where the picture is taken from.
        light: What falls on the surfaces.
        rng: Draws which windows are lit.
    """

    def __init__(
        self, size: tuple[int, int], camera: Camera, light: Light, rng: np.random.Generator
    ) -> None:
        self.camera = camera
        self.light = light
        self.rng = rng
        self.image = Image.new("RGB", size)
        self.ink = ImageDraw.Draw(self.image, "RGBA")
        self.glow = Image.new("RGB", (size[0] // GLOW_SCALE, size[1] // GLOW_SCALE))
        self.glow_ink = ImageDraw.Draw(self.glow)

    def at(self, x: float, y: float) -> Stage:
        """The same sheet with its origin on the ground at (x, y)."""
        moved = object.__new__(Stage)
        moved.__dict__.update(self.__dict__)
        moved.camera = self.camera.moved(x, y)
        return moved

    def fill(self, points: Sequence[Point], colour: Colour, alpha: int = 255) -> None:
        """A polygon of exactly this colour."""
        outline = self.camera.project(points)
        if len(outline) > 2:
            self.ink.polygon(outline, (*colour, alpha))

    def face(self, points: Sequence[Point], colour: Colour) -> bool:
        """A flat surface under the light, counter-clockwise as seen from outside.

        Returns:
            Whether it faces the camera; if not, nothing is drawn.
        """
        a, b, c = points[0], points[1], points[-1]
        normal = unit(
            cross((b[0] - a[0], b[1] - a[1], b[2] - a[2]), (c[0] - a[0], c[1] - a[1], c[2] - a[2]))
        )
        if not self.sees(a, normal):
            return False
        if self.light.has_snow and normal[2] > 0.2:  # it slides off what is steeper
            colour = mix(colour, SNOW, min(0.85, 2.5 * (normal[2] - 0.2)))
        self.fill(points, _shaded(colour, self.light.tint(normal)))
        return True

    def sees(self, point: Point, normal: Point) -> bool:
        """Whether a surface through this point faces the camera."""
        eye = self.camera.eye
        return dot((eye[0] - point[0], eye[1] - point[1], eye[2] - point[2]), normal) > 0

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """A ball, drawn flat, of exactly this colour; radius in metres."""
        depth = self.camera.depth(centre)
        if depth < 1.0:
            return
        ((x, y),) = self.camera.project([centre])
        r = radius * self.camera.focal / depth
        self.ink.ellipse((x - r, y - r, x + r, y + r), (*colour, 255))

    def lines(self, pairs: Sequence[tuple[Point, Point]], colour: Colour, alpha: int) -> None:
        """Thin lines of two pixels of the sheet, that is one of the photo."""
        for pair in pairs:
            ends = self.camera.project(pair)
            if len(ends) > 1:
                self.ink.line(ends[:2], (*colour, alpha), 2)

    def shine(self, points: Sequence[Point], colour: Colour) -> None:
        """A polygon that sends out light, with a halo."""
        outline = self.camera.project(points)
        if len(outline) > 2:
            self.ink.polygon(outline, colour)
            self.glow_ink.polygon([(x / GLOW_SCALE, y / GLOW_SCALE) for x, y in outline], colour)


def rectangle(u: float, v: float, width: float, height: float) -> list[Flat]:
    """Corners of an upright rectangle on a wall, from its lower left one."""
    return [(u, v), (u + width, v), (u + width, v + height), (u, v + height)]


class Wall:
    """An upright plane; u runs to the right from its start, v up from its bottom, in metres.

    Args:
        stage: Where it is drawn.
        start: Ground position (x, y) of its left end, as seen from outside.
        end: Ground position of its right end.
        bottom: Height of v = 0.
    """

    def __init__(self, stage: Stage, start: Flat, end: Flat, bottom: float = 0.0) -> None:
        dx, dy = end[0] - start[0], end[1] - start[1]
        self.stage = stage
        self.width = math.hypot(dx, dy)
        self.along = (dx / self.width, dy / self.width)
        self.normal: Point = (self.along[1], -self.along[0], 0.0)
        self.start = start
        self.bottom = bottom
        self.is_visible = stage.sees((*start, bottom), self.normal)
        self.tint = stage.light.tint(self.normal)
        middle = self.point(self.width / 2, 3.0)
        self.pixels_per_m = stage.camera.focal / max(1.0, stage.camera.depth(middle))

    def point(self, u: float, v: float, out: float = 0.0) -> Point:
        """Position in space; `out` is metres in front of the wall."""
        return (
            self.start[0] + u * self.along[0] + out * self.normal[0],
            self.start[1] + u * self.along[1] + out * self.normal[1],
            self.bottom + v,
        )

    def shape(
        self, outline: Sequence[Flat], colour: Colour, *, out: float = 0.0, alpha: int = 255
    ) -> None:
        """A flat shape on the wall, under the light that falls on the wall."""
        points = [self.point(u, v, out) for u, v in outline]
        self.stage.fill(points, _shaded(colour, self.tint), alpha)

    def shade(self, outline: Sequence[Flat], alpha: int) -> None:
        """Darken a shape."""
        self.stage.fill([self.point(u, v) for u, v in outline], (12, 12, 24), alpha)

    def shine(self, outline: Sequence[Flat], colour: Colour) -> None:
        """Fill a shape with lamp light."""
        self.stage.shine([self.point(u, v) for u, v in outline], colour)

    def paint(self, outline: Sequence[Flat], colour: Colour, material: Material) -> None:
        """The wall itself: colour, joints and stains that are the same in every picture."""
        self.shape(outline, colour)
        if material in ("brick", "stone"):
            self._joints(outline, 0.3 if material == "brick" else 0.75)
        if material != "plain":
            self._stains(outline, material)
        top = max(v for _, v in outline)
        for height in (0.35, 0.9) if self.bottom == 0 else ():  # dirt from the street
            self.shade(rectangle(0.0, 0.0, self.width, min(height, top)), 18)

    def slab(self, area: Sequence[Flat], out: float, colour: Colour) -> None:
        """A block that stands out of the wall: sill, cornice, balcony; with its shadow.

        Args:
            area: Its rectangle on the wall, from `rectangle`.
            out: How far it stands out, metres.
            colour: Of its paint.
        """
        (u, v), (_, _), (right, top), _ = area
        facing = dot(self.normal, self.stage.light.sun)
        if self.stage.light.is_sunny and facing > 0.05:
            drop = min(1.5, out * self.stage.light.sun[2] / max(0.25, facing))
            self.shade(rectangle(u, v - drop, right - u, drop), 70)
        p = self.point
        faces = (
            [p(u, v), p(right, v), p(right, v, out), p(u, v, out)],
            [p(u, top, out), p(right, top, out), p(right, top), p(u, top)],
            [p(u, v), p(u, v, out), p(u, top, out), p(u, top)],
            [p(right, v, out), p(right, v), p(right, top), p(right, top, out)],
            [p(u, v, out), p(right, v, out), p(right, top, out), p(u, top, out)],
        )
        for corners in faces:
            self.stage.face(corners, colour)

    def _joints(self, outline: Sequence[Flat], spacing: float) -> None:
        while spacing * self.pixels_per_m < 7:  # closer lines would only be grey
            spacing *= 2
        top = max(v for _, v in outline)
        pairs = []
        for step in range(1, int(top / spacing) + 1):
            span = _span(outline, step * spacing)
            if span:
                pairs.append(
                    (self.point(span[0], step * spacing), self.point(span[1], step * spacing))
                )
        self.stage.lines(pairs, (20, 14, 12), 26)

    def _stains(self, outline: Sequence[Flat], material: Material) -> None:
        # Seeded by the place of the wall, so that a building wears its marks in every photo.
        place = (*self.start, *self.normal, self.bottom, self.width)
        rng = np.random.default_rng([abs(round(100 * value)) for value in place])
        size = {"brick": (0.6, 0.3), "stone": (1.4, 0.75)}.get(material, (0.35, 1.3))
        top = max(v for _, v in outline)
        for across, up, shade in rng.random((min(70, int(self.width * top / 3)), 3)).tolist():
            v = int(up * top / size[1]) * size[1]
            span = _span(outline, v + size[1])
            if not span or v == 0:
                continue
            length = min(size[0], span[1] - span[0])
            u = span[0] + across * (span[1] - span[0] - length)
            colour = (255, 240, 220) if shade > 0.6 else (10, 8, 12)
            self.shape(
                rectangle(u, v, length, size[1]), colour, alpha=9 if material == "plaster" else 24
            )


def _span(outline: Sequence[Flat], v: float) -> Flat | None:
    """Leftmost and rightmost u of an outline at a height."""
    crossings = []
    for (u0, v0), (u1, v1) in zip(outline, [*outline[1:], outline[0]], strict=True):
        if (v0 <= v) != (v1 <= v):
            crossings.append(u0 + (v - v0) / (v1 - v0) * (u1 - u0))
    return (min(crossings), max(crossings)) if len(crossings) > 1 else None
