"""Blocks, roofs, round towers and domes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from retrieval.drawn.camera import Flat, Point
from retrieval.drawn.light import Colour
from retrieval.drawn.stage import Material, Stage, Wall, rectangle

__all__ = [
    "Block",
    "battlements",
    "dome",
    "drum",
    "front_gable_roof",
    "gable",
    "gable_wall",
    "hip_roof",
    "raise_block",
    "side_gable_roof",
    "tangent_wall",
]

Detail = Callable[[Wall], None]


class Block(NamedTuple):
    """An upright block between two planes of each axis, in metres."""

    x0: float
    x1: float
    y0: float
    y1: float
    z0: float
    z1: float


def raise_block(
    stage: Stage,
    block: Block,
    colour: Colour,
    *,
    material: Material = "plaster",
    front: Detail | None = None,
    sides: Detail | None = None,
) -> None:
    """Draw the visible walls and the flat top of a block.

    Args:
        stage: Where it is drawn.
        block: Its position.
        colour: Of its walls.
        material: Of its walls.
        front: Draws windows and doors on the front wall.
        sides: Draws them on the left and the right wall.
    """
    x0, x1, y0, y1, z0, z1 = block
    top: list[Point] = [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)]
    stage.face(top, (120, 116, 112))
    ends: tuple[tuple[Flat, Flat, Detail | None], ...] = (
        ((x0, y1), (x0, y0), sides),
        ((x1, y0), (x1, y1), sides),
        ((x0, y0), (x1, y0), front),
    )
    for start, end, detail in ends:
        wall = Wall(stage, start, end, z0)
        if wall.is_visible:
            wall.paint(rectangle(0.0, 0.0, wall.width, z1 - z0), colour, material)
            if detail:
                detail(wall)


def _slope(stage: Stage, corners: Sequence[Point], colour: Colour) -> None:
    """One plane of a roof with its rows of tiles: two eaves corners, then two at the ridge."""
    if not stage.face(corners, colour):
        return
    a, b, c, d = corners
    rise = math.dist(a, d)
    rows = max(2, int(rise / 0.6))
    pairs = []
    for row in range(1, rows):
        t = row / rows
        left = (a[0] + t * (d[0] - a[0]), a[1] + t * (d[1] - a[1]), a[2] + t * (d[2] - a[2]))
        right = (b[0] + t * (c[0] - b[0]), b[1] + t * (c[1] - b[1]), b[2] + t * (c[2] - b[2]))
        pairs.append((left, right))
    stage.lines(pairs, (0, 0, 0), 34)


def hip_roof(
    stage: Stage, block: Block, height: float, colour: Colour, *, ridge: float = 0.0
) -> None:
    """Four slopes on top of a block; the ridge runs along x.

    Args:
        stage: Where it is drawn.
        block: What it covers; the eaves stand out by 0.4 m.
        height: Of the ridge over the eaves, metres.
        colour: Of the tiles.
        ridge: Length of the ridge; 0 makes a pyramid.
    """
    x0, x1, y0, y1, z = block.x0 - 0.4, block.x1 + 0.4, block.y0 - 0.4, block.y1 + 0.4, block.z1
    middle, y = (x0 + x1) / 2, (y0 + y1) / 2
    left: Point = (middle - ridge / 2 - 0.01, y, z + height)
    right: Point = (middle + ridge / 2 + 0.01, y, z + height)
    a, b, c, d = (x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)
    for corners in ((c, d, left, right), (d, a, left, left), (b, c, right, right)):
        _slope(stage, corners, colour)
    _slope(stage, (a, b, right, left), colour)


def front_gable_roof(stage: Stage, block: Block, height: float, colour: Colour) -> None:
    """Two slopes whose ridge runs away from the viewer; draw it before the front gable."""
    x0, x1, y0, y1, z = block.x0 - 0.4, block.x1 + 0.4, block.y0, block.y1, block.z1
    x, top = (x0 + x1) / 2, z + height
    _slope(stage, ((x0, y1, z), (x0, y0, z), (x, y0, top), (x, y1, top)), colour)
    _slope(stage, ((x1, y0, z), (x1, y1, z), (x, y1, top), (x, y0, top)), colour)


def side_gable_roof(
    stage: Stage, block: Block, height: float, colour: Colour, walls: Colour
) -> None:
    """Two slopes whose ridge runs along the front, with the gables at the sides.

    Args:
        stage: Where it is drawn.
        block: What it covers; the eaves stand out by 0.4 m.
        height: Of the ridge over the eaves, metres.
        colour: Of the tiles.
        walls: Colour of the gables.
    """
    x0, x1, y0, y1, z = block.x0, block.x1, block.y0, block.y1, block.z1
    y, top = (y0 + y1) / 2, z + height
    stage.face(((x0, y1, z), (x0, y0, z), (x0, y, top)), walls)
    stage.face(((x1, y0, z), (x1, y1, z), (x1, y, top)), walls)
    _slope(stage, ((x1, y1 + 0.4, z), (x0, y1 + 0.4, z), (x0, y, top), (x1, y, top)), colour)
    _slope(stage, ((x0, y0 - 0.4, z), (x1, y0 - 0.4, z), (x1, y, top), (x0, y, top)), colour)


def gable(width: float, eaves: float, height: float) -> list[Flat]:
    """Outline of a wall with a gable on top: five corners."""
    return [(0.0, 0.0), (width, 0.0), (width, eaves), (width / 2, eaves + height), (0.0, eaves)]


def gable_wall(
    stage: Stage, block: Block, height: float, colour: Colour, material: Material
) -> Wall:
    """Paint the front of a block as one wall with its gable.

    Returns:
        The wall, to draw on.
    """
    wall = Wall(stage, (block.x0, block.y0), (block.x1, block.y0), block.z0)
    wall.paint(gable(wall.width, block.z1 - block.z0, height), colour, material)
    return wall


def drum(
    stage: Stage, centre: Flat, heights: Flat, radii: Flat, colour: Colour, num_sides: int = 22
) -> None:
    """A round wall, a cone or a band of a dome.

    Args:
        stage: Where it is drawn.
        centre: Ground position of its axis.
        heights: Of its lower and its upper rim.
        radii: Of its lower and its upper rim; 0 above makes a cone.
        colour: Of its paint.
        num_sides: Of the prism that stands for it.
    """
    x, y = centre
    low, high = heights
    below, above = radii
    turns = [2 * math.pi * side / num_sides for side in range(num_sides + 1)]
    if above > 0:
        stage.face(
            [(x + above * math.cos(t), y + above * math.sin(t), high) for t in turns[:-1]], colour
        )
    for t0, t1 in pairwise(turns):
        c0, s0, c1, s1 = math.cos(t0), math.sin(t0), math.cos(t1), math.sin(t1)
        stage.face(
            [
                (x + below * c0, y + below * s0, low),
                (x + below * c1, y + below * s1, low),
                (x + above * c1, y + above * s1, high),
                (x + above * c0, y + above * s0, high),
            ],
            colour,
        )


def dome(stage: Stage, centre: Flat, base: float, radius: float, colour: Colour) -> None:
    """Half a ball, slightly raised, in bands."""
    num_bands = 7
    for band in range(num_bands):
        low, high = (math.pi / 2 * step / num_bands for step in (band, band + 1))
        heights = (base + 1.1 * radius * math.sin(low), base + 1.1 * radius * math.sin(high))
        radii = (radius * math.cos(low), max(0.02, radius * math.cos(high)))
        drum(stage, centre, heights, radii, colour)


def tangent_wall(
    stage: Stage, centre: Flat, radius: float, turn: float, width: float, bottom: float
) -> Wall:
    """A narrow flat wall that touches a round tower, for a window.

    Args:
        stage: Where it is drawn.
        centre: Ground position of the tower's axis.
        radius: Of the tower at that height.
        turn: Radians to the right of the tower's front.
        width: Of the wall.
        bottom: Its height over the ground.
    """
    nx, ny = math.sin(turn), -math.cos(turn)
    x, y = centre[0] + radius * nx, centre[1] + radius * ny
    half = width / 2
    return Wall(stage, (x + half * ny, y - half * nx), (x - half * ny, y + half * nx), bottom)


def battlements(stage: Stage, block: Block, colour: Colour, spacing: float = 1.6) -> None:
    """Merlons along the front and the sides of a flat roof."""
    count = max(2, int((block.x1 - block.x0) / spacing))
    pitch = (block.x1 - block.x0) / count
    for row in (block.y1 - 0.5, block.y0):
        for index in range(count):
            x = block.x0 + (index + 0.2) * pitch
            merlon = Block(x, x + 0.6 * pitch, row, row + 0.5, block.z1, block.z1 + 1.1)
            raise_block(stage, merlon, colour, material="plain")
