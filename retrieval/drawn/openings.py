"""Windows, doors, columns and clocks: what makes a wall the wall of one building."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from retrieval.drawn.camera import Flat
from retrieval.drawn.light import Colour, mix
from retrieval.drawn.stage import Wall, rectangle

__all__ = ["Opening", "circle", "clock", "head_outline", "openings", "place", "spread"]

Head = Literal["flat", "round", "pointed"]

LAMPS: tuple[Colour, ...] = ((255, 214, 130), (255, 196, 104), (255, 232, 178), (240, 180, 96))


@dataclass(frozen=True)
class Opening:
    """One kind of window or door.

    Attributes:
        width: Metres, of the frame.
        height: Metres, to the top of its head.
        head: Shape of its upper end.
        frame: Colour of frame and bars.
        surround: Colour of the moulding round it, if it has one.
        panes: Number of panes across and up.
        leaf: Colour of a closed leaf instead of glass.
        shutters: Colour of open shutters beside it.
        flowers: Colour of a flower box under it.
        has_sill: A stone sill stands out under it.
    """

    width: float
    height: float
    head: Head = "flat"
    frame: Colour = (232, 228, 218)
    surround: Colour | None = None
    panes: tuple[int, int] = (2, 2)
    leaf: Colour | None = None
    shutters: Colour | None = None
    flowers: Colour | None = None
    has_sill: bool = True


def head_outline(u: float, v: float, width: float, height: float, head: Head) -> list[Flat]:
    """Outline of an opening from its lower left corner; the head is part of the height."""
    if head == "flat":
        return rectangle(u, v, width, height)
    half = width / 2
    if head == "round":
        spring = v + max(0.0, height - half)
        rise = min(half, height)
        arc = [
            (u + half + half * math.cos(math.pi * t / 8), spring + rise * math.sin(math.pi * t / 8))
            for t in range(9)
        ]
        return [(u, v), (u + width, v), *arc]
    rise = min(height, 0.87 * width)  # both arcs have the width as radius
    spring = v + height - rise
    turns = [math.pi / 3 * t / 4 for t in range(5)]
    right = [(u + width * math.cos(t), spring + rise / 0.87 * math.sin(t)) for t in turns]
    left = [(2 * u + width - x, y) for x, y in reversed(right[:-1])]
    return [(u, v), (u + width, v), *right, *left]


def place(wall: Wall, opening: Opening, u: float, v: float) -> None:
    """Draw one opening.

    Args:
        wall: Where it is.
        opening: What it looks like.
        u: Of its middle, metres.
        v: Of its lower edge, metres.
    """
    width, height, head = opening.width, opening.height, opening.head
    left = u - width / 2
    if opening.surround:
        wall.shape(
            head_outline(left - 0.2, v - 0.1, width + 0.4, height + 0.3, head), opening.surround
        )
    wall.shape(head_outline(left, v, width, height, head), opening.frame)
    inner = head_outline(left + 0.1, v + 0.1, width - 0.2, height - 0.2, head)
    if opening.leaf:
        wall.shape(inner, opening.leaf)
    else:
        _glaze(wall, inner, is_large=width * height > 1.5)
    _divide(wall, opening, left, v)
    # The wall is thicker than the window: its upper edge throws a shadow on the glass.
    if head == "flat":
        wall.shade(rectangle(left, v + height - 0.22, width, 0.22), 70)
    _dress(wall, opening, left, v)


def _glaze(wall: Wall, inner: list[Flat], *, is_large: bool) -> None:
    stage = wall.stage
    chance, lamp, gleam = stage.rng.random(3).tolist()
    if chance < stage.light.lit_fraction:
        wall.shine(inner, LAMPS[int(lamp * len(LAMPS))])
        return
    glass = mix((30, 40, 52), stage.light.zenith, 0.12 + 0.3 * gleam)
    stage.fill([wall.point(*at) for at in inner], glass)
    if is_large:
        (u, v), (right, _), (_, top) = inner[0], inner[1], inner[2]
        mirrored = [(u, v), (u + 0.6 * (right - u), v), (u + 0.2 * (right - u), top), (u, top)]
        stage.fill([wall.point(*at) for at in mirrored], stage.light.horizon, 42)


def _divide(wall: Wall, opening: Opening, left: float, v: float) -> None:
    across, up = opening.panes
    bar = 0.09
    if bar * wall.pixels_per_m < 0.7:  # would be drawn a pixel wide, and too heavy
        return
    for step in range(1, across):
        u = left + opening.width * step / across - bar / 2
        wall.shape(rectangle(u, v + 0.1, bar, opening.height - 0.3), opening.frame)
    for step in range(1, up):
        height = v + opening.height * step / up - bar / 2
        wall.shape(rectangle(left + 0.1, height, opening.width - 0.2, bar), opening.frame)


def _dress(wall: Wall, opening: Opening, left: float, v: float) -> None:
    width, height = opening.width, opening.height
    if opening.shutters:
        for u in (left - 0.55 * width, left + 1.05 * width):
            wall.shape(rectangle(u, v, 0.5 * width, height), opening.shutters)
            wall.shade(rectangle(u + 0.1, v + 0.12, 0.5 * width - 0.2, height / 2 - 0.2), 36)
            wall.shade(
                rectangle(u + 0.1, v + height / 2 + 0.08, 0.5 * width - 0.2, height / 2 - 0.2), 36
            )
    if opening.has_sill and not opening.leaf:
        sill = opening.surround or (200, 194, 184)
        wall.slab(rectangle(left - 0.15, v - 0.18, width + 0.3, 0.18), 0.2, sill)
    if opening.flowers:
        wall.slab(rectangle(left - 0.05, v - 0.1, width + 0.1, 0.28), 0.32, (92, 62, 44))
        for step in range(int(width / 0.25) + 1):
            u, up = left + 0.25 * step, v + 0.24 + 0.06 * (step % 2)
            colour = opening.flowers if step % 3 else (64, 118, 58)
            wall.shape(rectangle(u, up, 0.3, 0.26), colour, out=0.3)


def spread(start: float, end: float, count: int) -> list[float]:
    """Middles of equal bays between two positions."""
    return [start + (end - start) * (index + 0.5) / count for index in range(count)]


def openings(wall: Wall, opening: Opening, columns: Iterable[float], rows: Iterable[float]) -> None:
    """The same opening in every column and row, on walls that are wide enough for it."""
    middles = list(columns)
    for v in rows:
        for u in middles:
            place(wall, opening, u, v)


def circle(u: float, v: float, radius: float, num_corners: int = 24) -> list[Flat]:
    """Outline of a disc on a wall."""
    turns = [2 * math.pi * corner / num_corners for corner in range(num_corners)]
    return [(u + radius * math.cos(t), v + radius * math.sin(t)) for t in turns]


def clock(wall: Wall, u: float, v: float, radius: float) -> None:
    """A dial that shows the hour of the photo; lit when it is dark."""
    wall.shape(circle(u, v, 1.18 * radius), (70, 60, 48), out=0.1)
    if wall.stage.light.is_dark:
        wall.shine(circle(u, v, radius), (255, 240, 200))
    else:
        wall.shape(circle(u, v, radius), (246, 240, 226), out=0.1)
    for hour in range(12):
        turn = math.pi * hour / 6
        mark = circle(
            u + 0.82 * radius * math.cos(turn), v + 0.82 * radius * math.sin(turn), 0.09, 6
        )
        wall.shape(mark, (40, 34, 30), out=0.1)
    for length, turn in zip((0.5, 0.75), wall.stage.rng.uniform(0, 6.28, 2).tolist(), strict=True):
        du, dv = math.cos(turn), math.sin(turn)
        hand = [
            (u - 0.09 * dv, v + 0.09 * du),
            (u + 0.09 * dv, v - 0.09 * du),
            (u + length * radius * du, v + length * radius * dv),
        ]
        wall.shape(hand, (30, 26, 24), out=0.1)
