"""What stands round a building for one photo: neighbours, trees, people, cars, lamp posts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from retrieval.drawn.backdrop import draw_ground, draw_shadow, draw_sky, draw_skyline
from retrieval.drawn.camera import Extent, Flat
from retrieval.drawn.houses import draw_house, plan_house
from retrieval.drawn.light import Colour
from retrieval.drawn.solids import Block, raise_block
from retrieval.drawn.stage import Stage

__all__ = ["draw_background", "draw_foreground"]

_LEAVES: tuple[Colour, ...] = (
    (64, 110, 52), (84, 128, 60), (46, 92, 58), (112, 132, 58), (186, 122, 44), (150, 74, 40),
)  # fmt: skip
_PAINTS: tuple[Colour, ...] = (
    (170, 36, 40), (40, 74, 140), (226, 226, 226), (38, 40, 46), (120, 128, 136), (212, 168, 54),
    (60, 110, 90),
)  # fmt: skip


def draw_background(stage: Stage, extent: Extent, rng: np.random.Generator) -> None:
    """Everything behind the building: sky, skyline, ground, neighbours, trees, its shadow."""
    draw_sky(stage, rng)
    draw_ground(stage, rng)
    draw_skyline(stage, rng)
    things: list[tuple[float, Callable[[], None]]] = []
    for side in (-1, 1):
        _add_neighbour(stage, extent, side, rng, things)
    for _ in range(int(rng.integers(0, 4))):
        x = float(rng.uniform(0.8, 2.2)) * extent.width * (1 if rng.random() < 0.5 else -1)
        y = float(rng.uniform(extent.depth, extent.depth + 20))
        things.append((stage.camera.depth((x, y, 0)), _tree(stage, x, y, rng)))
    draw_shadow(stage, extent)
    for _, draw in sorted(things, key=lambda thing: -thing[0]):
        draw()


def draw_foreground(stage: Stage, extent: Extent, rng: np.random.Generator) -> None:
    """Everything before the building: people, cars, and often a tree or lamp post in the way."""
    eye = stage.camera.eye
    things: list[tuple[float, Callable[[], None]]] = []

    def add(
        make: Callable[[Stage, float, float, np.random.Generator], Callable[[], None]],
        nearest: float,
        farthest: float,
    ) -> None:
        share = float(rng.uniform(nearest, farthest))
        target = float(rng.uniform(-0.75, 0.75)) * extent.width
        x, y = target + share * (eye[0] - target), -1.0 + share * (eye[1] + 1.0)
        things.append((stage.camera.depth((x, y, 0)), make(stage, x, y, rng)))

    for _ in range(int(rng.integers(0, 5))):
        add(_person, 0.12, 0.5)
    for _ in range(int(rng.choice([0, 0, 1, 2]))):
        add(_car, 0.15, 0.45)
    if rng.random() < 0.35:
        add(_tree, 0.1, 0.4)
    if rng.random() < 0.4:
        add(_lamp_post, 0.25, 0.65)
    for _, draw in sorted(things, key=lambda thing: -thing[0]):
        draw()


def _add_neighbour(
    stage: Stage,
    extent: Extent,
    side: int,
    rng: np.random.Generator,
    things: list[tuple[float, Callable[[], None]]],
) -> None:
    """A house beside the building, unless it would stand in the line of sight."""
    plan = plan_house(rng)
    gap = float(rng.uniform(1.5, 9.0))
    slant = side * stage.camera.eye[0] / max(1.0, -stage.camera.eye[1])
    if rng.random() < 0.25 or slant > 0.45:
        return
    x = side * (extent.width / 2 + gap + plan.extent.width / 2 + 6 * max(0.0, slant))
    y = float(rng.uniform(1.5, 6.0))
    things.append((stage.camera.depth((x, y, 0)), lambda: draw_house(stage.at(x, y), plan)))


def _lit(stage: Stage, colour: Colour) -> Colour:
    """Colour of a thing without sides: half in the sun."""
    tint = stage.light.tint((0.0, -0.6, 0.5))
    return (
        min(255, int(colour[0] * tint[0])),
        min(255, int(colour[1] * tint[1])),
        min(255, int(colour[2] * tint[2])),
    )


def _upright(stage: Stage, at: Flat, foot: float, size: Flat, colour: Colour) -> None:
    """A flat upright rectangle that faces the camera."""
    rx, ry, _ = stage.camera.right
    x, y = at
    half = size[0] / 2
    corners = [
        (x - half * rx, y - half * ry, foot),
        (x + half * rx, y + half * ry, foot),
        (x + half * rx, y + half * ry, foot + size[1]),
        (x - half * rx, y - half * ry, foot + size[1]),
    ]
    stage.fill(corners, _lit(stage, colour))


def _tree(stage: Stage, x: float, y: float, rng: np.random.Generator) -> Callable[[], None]:
    height, girth = float(rng.uniform(4.5, 9.0)), float(rng.uniform(1.3, 2.4))
    leaves = _LEAVES[int(rng.integers(len(_LEAVES)))]
    is_bare = rng.random() < 0.15
    blobs = rng.uniform(-1, 1, (60, 3)).tolist()

    def draw() -> None:
        _upright(stage, (x, y), 0.0, (0.35, 0.75 * height), (84, 66, 50))
        if is_bare:
            for across, up, _ in blobs:
                tip = (x + girth * across, y, height * (0.75 + 0.25 * up))
                stage.lines([((x, y, 0.45 * height), tip)], _lit(stage, (84, 66, 50)), 255)
            return
        side = 1 if stage.light.sun[0] > 0 else -1
        for across, up, size in sorted(blobs, key=lambda blob: blob[1] + side * blob[0]):
            if across * across + up * up > 1:
                continue
            shade = 0.76 + 0.2 * up + 0.14 * side * across + 0.08 * size
            colour = (int(leaves[0] * shade), int(leaves[1] * shade), int(leaves[2] * shade))
            middle = (x + girth * across * 0.75, y, 0.68 * height + 0.26 * height * up)
            stage.disc(middle, girth * (0.3 + 0.1 * size), _lit(stage, colour))

    return draw


def _person(stage: Stage, x: float, y: float, rng: np.random.Generator) -> Callable[[], None]:
    coat = _PAINTS[int(rng.integers(len(_PAINTS)))]
    tall = float(rng.uniform(0.9, 1.08))

    def draw() -> None:
        _upright(stage, (x, y), 0.0, (0.34, 0.85 * tall), (48, 50, 62))
        _upright(stage, (x, y), 0.75 * tall, (0.5, 0.68 * tall), coat)
        stage.disc((x, y, 1.6 * tall), 0.15 * tall, _lit(stage, (214, 168, 140)))

    return draw


def _car(stage: Stage, x: float, y: float, rng: np.random.Generator) -> Callable[[], None]:
    paint = _PAINTS[int(rng.integers(len(_PAINTS)))]
    here = stage.at(x, y)

    def draw() -> None:
        here.fill([(-2.2, -1, 0), (2.2, -1, 0), (2.2, 1, 0), (-2.2, 1, 0)], (10, 10, 16), 110)
        for wheel in (-1.35, 1.35):
            here.disc((wheel, -0.85, 0.34), 0.36, (22, 22, 24))
        raise_block(here, Block(-2.1, 2.1, -0.9, 0.9, 0.35, 0.95), paint, material="plain")
        raise_block(here, Block(-1.3, 1.0, -0.75, 0.75, 0.95, 1.42), (52, 62, 72), material="plain")
        raise_block(here, Block(-1.2, 0.9, -0.75, 0.75, 1.4, 1.5), paint, material="plain")
        for wheel in (-1.35, 1.35):
            here.disc((wheel, -0.9, 0.34), 0.33, (26, 26, 28))
            here.disc((wheel, -0.9, 0.34), 0.16, (130, 132, 136))

    return draw


def _lamp_post(stage: Stage, x: float, y: float, rng: np.random.Generator) -> Callable[[], None]:
    height = float(rng.uniform(4.2, 5.6))

    def draw() -> None:
        _upright(stage, (x, y), 0.0, (0.16, height), (46, 52, 54))
        _upright(stage, (x, y), 0.0, (0.34, 0.8), (46, 52, 54))
        head = [
            (x - 0.3, y, height),
            (x + 0.3, y, height),
            (x + 0.2, y, height - 0.6),
            (x - 0.2, y, height - 0.6),
        ]
        if stage.light.is_dark:
            stage.shine(head, (255, 226, 160))
        else:
            stage.fill(head, _lit(stage, (210, 206, 190)))

    return draw
