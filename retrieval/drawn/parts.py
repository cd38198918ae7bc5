"""Parts of buildings: flat faces in metres, x to the right, y away from the viewer, z up.

A part has its front middle on the origin, until `put` moves it. What hangs on a wall is a part too,
drawn as if on the front wall; there u stands for x, and v for z.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np

Colour = tuple[int, int, int]
Flat = tuple[float, float]
Point = tuple[float, float, float]
Part = list["Face"]
BLACK: Colour = (10, 10, 16)
CREAM: Colour = (226, 208, 170)


class Face(NamedTuple):
    """A flat polygon, or a ball."""

    corners: tuple[Point, ...]  # counter-clockwise seen from outside; of a ball: middle and top
    colour: Colour
    alpha: int = 255
    kind: str = "matt"  # or "glass", lit in some photos; "lamp", lit when it is dark


def put(part: Iterable[Face], x: float = 0, y: float = 0, z: float = 0, turn: float = 0) -> Part:
    """Move a part, after a turn about the z axis in radians; a right angle faces to the right."""
    cos, sin = math.cos(turn), math.sin(turn)
    return [
        Face(tuple([(x + cos * a - sin * b, y + sin * a + cos * b, z + c) for a, b, c in at]), *how)
        for at, how in ((face.corners, face[1:]) for face in part)
    ]


def repeat(part: Sequence[Face], us: Iterable[float], vs: Iterable[float] = (0,)) -> Part:
    """The same part in every column and row of a wall."""
    return [face for u, v in product(us, vs) for face in put(part, u, 0, v)]


def ring(part: Sequence[Face], radius: float, turns: Iterable[float]) -> Part:
    """The same part round a tower; a turn of 0 is its front."""
    return [face for t in turns for face in put(put(part, 0, -radius), turn=t)]


def across(width: float, count: int) -> list[float]:
    """Middles of equal bays."""
    return [width * ((index + 0.5) / count - 0.5) for index in range(count)]


def shape(outline: Iterable[Flat], colour: Colour, alpha: int = 255, kind: str = "matt") -> Face:
    """A shape painted on a wall."""
    return Face(tuple((u, 0.0, v) for u, v in outline), colour, alpha, kind)


def panel(width: float, height: float, colour: Colour, alpha: int = 255) -> Face:
    """A rectangle painted on a wall."""
    return shape(_arch(width, height), colour, alpha)


def disc(radius: float, colour: Colour, kind: str = "matt") -> Face:
    """A circle painted on a wall, round the origin."""
    turns = np.linspace(0, math.tau, 20, endpoint=False).tolist()
    return shape([(radius * math.cos(t), radius * math.sin(t)) for t in turns], colour, 255, kind)


def slab(size: Point, colour: Colour, u: float = 0.0, v: float = 0.0) -> Part:
    """A block that stands out of a wall, such as a sill or a balcony, and the shade under it."""
    width, out, _ = size
    shade = panel(width, 0.8 * out, BLACK, 70)
    return put([shade], u, 0, v - 0.8 * out) + put(box(size, colour), u, -out, v)


def floor(x: float, y: float, size: Flat, colour: Colour) -> Face:
    """A rectangle on the ground, from its left corner nearest to the viewer."""
    right, back = x + size[0], y + size[1]
    return Face(((x, y, 0.0), (right, y, 0.0), (right, back, 0.0), (x, back, 0.0)), colour)


def ball(middle: Point, radius: float, colour: Colour) -> Face:
    """A ball."""
    return Face((middle, (middle[0], middle[1], middle[2] + radius)), colour)


def box(
    size: Point,
    colour: Colour,
    front: Iterable[Face] = (),
    sides: Iterable[Face] = (),
    course: float = 0.0,  # height of a row; 0 is plaster
    gable: tuple[float, Colour] | None = None,  # height and colour of its roof
) -> Part:
    """A block of some width, depth and height, with what hangs on its walls; it has no back."""
    width, depth, height = size
    side = [*_wall(depth, height, colour, course), *sides]
    top = [floor(-width / 2, 0, (width, depth), colour)]
    if gable:
        top = roof((width, depth, gable[0]), gable[1], gabled=True)
    return [
        *put(side, -width / 2, depth / 2, turn=-math.pi / 2),
        *put(side, width / 2, depth / 2, turn=math.pi / 2),
        *put(top, z=height),
        *_wall(width, height, colour, course, gable[0] if gable else 0),
        *front,
    ]


def roof(size: Point, colour: Colour, *, gabled: bool = False) -> Part:
    """Two slopes to a ridge that runs away from the viewer, or four to one that runs across."""
    width, depth, height = size
    x, y = width / 2 + 0.4, depth + 0.4
    a, b, c, d = (-x, -0.4, 0.0), (x, -0.4, 0.0), (x, y, 0.0), (-x, y, 0.0)
    if gabled:
        p, q = (0.0, -0.4, height), (0.0, y, height)
        slopes = [(d, a, p, q), (b, c, q, p)]
    else:
        half = max(0.01, (width - depth) / 2)
        p, q = (-half, depth / 2, height), (half, depth / 2, height)
        slopes = [(c, d, p, q), (d, a, p, p), (b, c, q, q), (a, b, q, p)]
    return [Face(slope, colour) for slope in slopes]


def drum(profile: Sequence[Flat], *colours: Colour) -> Part:
    """A round tower, cone or dome about the z axis, from its radii and heights, foot first."""
    turns = np.linspace(0, math.tau, 25).tolist()
    rims = [[(r * math.cos(t), r * math.sin(t), z) for t in turns] for r, z in profile]
    faces = [Face(tuple(rims[-1][1:]), colours[0])]
    for index, (low, high) in enumerate(pairwise(rims)):
        sides = zip(pairwise(low), pairwise(high), strict=True)
        faces += [Face((a, b, d, c), colours[index % len(colours)]) for (a, b), (c, d) in sides]
    return faces


def window(
    size: Flat,
    is_round: bool = False,
    frame: Colour = (232, 228, 218),
    trim: Colour | None = None,
    panes: tuple[int, int] = (2, 2),
    leaf: Colour | None = None,
) -> Part:
    """A window with a flat or a round head, or a door, whose `leaf` has a colour."""
    width, height = size
    kind = "matt" if leaf else "glass"
    pane = shape(_arch(width - 0.2, height - 0.2, is_round), leaf or BLACK, 255, kind)
    faces = [shape(_arch(width + 0.4, height + 0.2, is_round), trim)] if trim else []
    faces += [shape(_arch(width, height, is_round), frame), *put([pane], z=0.1)]
    if not leaf:
        faces += slab((width + 0.3, 0.2, 0.16), trim or (200, 194, 184), v=-0.16)
    if not is_round:  # the wall is thicker than the window, and shades its upper edge
        faces += put([panel(width, 0.22, BLACK, 70)], z=height - 0.22)
    columns, rows = (np.arange(1, n) / n for n in panes)
    faces += repeat([panel(0.09, height - 0.3, frame)], (columns - 0.5) * width, [0.1])
    return faces + repeat([panel(width - 0.2, 0.09, frame)], [0], rows * height)


def _arch(width: float, height: float, is_round: bool = False) -> list[Flat]:
    half = width / 2
    if not is_round:
        return [(-half, 0), (half, 0), (half, height), (-half, height)]
    turns = [math.pi * step / 8 for step in range(9)]
    arc = [(half * math.cos(t), height - half + half * math.sin(t)) for t in turns]
    return [(-half, 0), (half, 0), *arc]


def _wall(width: float, height: float, colour: Colour, course: float, peak: float = 0) -> Part:
    """A wall with the joints between its rows of bricks."""
    half, top = width / 2, height + peak
    gable = [(half, height), (0.0, top), (-half, height)][:: 1 if peak else 2]
    faces = [shape([(-half, 0.0), (half, 0.0), *gable], colour)]
    for v in np.arange(course or top, top, course or top).tolist():
        span = width * min(1, (top - v) / peak) if peak else width
        faces += put([panel(span, 0.03, BLACK, 30)], z=v)
    return faces
