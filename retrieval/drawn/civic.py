"""Six public buildings: town hall, lighthouse, chapel, museum, library, castle gate."""

from __future__ import annotations

import math

from retrieval.drawn.light import Colour
from retrieval.drawn.openings import Opening, circle, clock, head_outline, openings, place, spread
from retrieval.drawn.solids import (
    Block,
    battlements,
    dome,
    drum,
    front_gable_roof,
    gable_wall,
    hip_roof,
    raise_block,
    tangent_wall,
)
from retrieval.drawn.stage import Stage, Wall, rectangle

__all__ = [
    "draw_castle_gate",
    "draw_chapel",
    "draw_library",
    "draw_lighthouse",
    "draw_museum",
    "draw_town_hall",
]

CREAM: Colour = (226, 208, 170)
SANDSTONE: Colour = (208, 184, 140)
COPPER: Colour = (104, 166, 144)
SLATE: Colour = (84, 92, 106)


def draw_town_hall(stage: Stage) -> None:
    """Red brick with cream trim, an arcade, and a clock tower under a copper spire."""
    brick = (170, 78, 62)
    tall = Opening(1.5, 3.4, "round", surround=CREAM, panes=(2, 3))
    arch = Opening(2.3, 3.7, "round", frame=(96, 70, 54), surround=CREAM, panes=(2, 1))

    def front(wall: Wall) -> None:
        wall.slab(rectangle(0, 5.0, 26, 0.45), 0.25, CREAM)
        wall.slab(rectangle(0, 10.6, 26, 0.6), 0.45, CREAM)
        for u in (0.0, 25.2):
            wall.shape(rectangle(u, 0, 0.8, 11), CREAM)
        openings(wall, arch, [*spread(1, 10, 3), *spread(16, 25, 3)], [0.3])
        openings(wall, tall, [*spread(1, 10, 3), *spread(16, 25, 3)], [6.1])

    def sides(wall: Wall) -> None:
        wall.slab(rectangle(0, 5.0, wall.width, 0.45), 0.25, CREAM)
        openings(wall, tall, spread(0.5, wall.width - 0.5, 4), [1.0, 6.1])

    def tower(wall: Wall) -> None:
        for v in (5.0, 11.4, 18.4):
            wall.slab(rectangle(-0.2, v, 5.8, 0.5), 0.35, CREAM)
        clock(wall, 2.7, 16.2, 1.6)
        openings(wall, Opening(0.9, 1.8, "round", surround=CREAM, panes=(1, 1)), [1.7, 3.7], [12.2])

    def tower_front(wall: Wall) -> None:
        tower(wall)
        place(wall, Opening(2.6, 4.2, "round", surround=CREAM, leaf=(58, 78, 66)), 2.7, 0.0)
        place(wall, Opening(1.9, 3.6, "round", surround=CREAM, panes=(2, 3)), 2.7, 6.2)
        wall.slab(rectangle(0.4, 5.5, 4.6, 0.9), 1.0, CREAM)

    body = Block(-13, 13, 0, 13, 0, 11)
    raise_block(stage, body, brick, material="brick", front=front, sides=sides)
    hip_roof(stage, body, 4.6, SLATE, ridge=16)
    shaft = Block(-2.7, 2.7, -0.9, 4.5, 0, 19)
    raise_block(stage, shaft, brick, material="brick", front=tower_front, sides=tower)
    hip_roof(stage, shaft, 7.5, COPPER)


def draw_lighthouse(stage: Stage) -> None:
    """A tapered tower with three red bands, and the keeper's small house."""
    white, red = (238, 236, 230), (196, 44, 40)
    centre = (-2.5, 4.0)

    def front(wall: Wall) -> None:
        place(wall, Opening(1.1, 2.1, leaf=(44, 92, 130), surround=red), 3.0, 0.0)
        openings(wall, Opening(1.2, 1.2, frame=red), [1.2, 5.0], [1.1])

    def sides(wall: Wall) -> None:
        openings(wall, Opening(1.2, 1.2, frame=red), spread(0, wall.width, 2), [1.1])

    cottage = Block(0.6, 6.8, 2.0, 9.0, 0, 3.0)

    def house() -> None:
        raise_block(stage, cottage, white, sides=sides)
        front_gable_roof(stage, cottage, 2.4, (168, 66, 50))
        front(gable_wall(stage, cottage, 2.4, white, "plaster"))

    if stage.camera.eye[0] > 0:  # the farther one first
        _light_tower(stage, centre, white, red)
        house()
    else:
        house()
        _light_tower(stage, centre, white, red)


def _light_tower(stage: Stage, centre: tuple[float, float], white: Colour, red: Colour) -> None:
    for band in range(6):
        low, high = 3.1 * band, 3.1 * (band + 1)
        radii = (3.1 - 0.17 * band, 3.1 - 0.17 * (band + 1))
        drum(stage, centre, (low, high), radii, red if band % 2 else white, 40)
    for turn, height in ((0.0, 4.2), (0.5, 10.4), (-0.4, 16.4), (-0.9, 7.4)):
        wall = tangent_wall(stage, centre, 3.12 - 0.055 * height, turn, 0.9, height)
        if wall.is_visible:
            place(wall, Opening(0.8, 1.3, frame=(70, 70, 74), panes=(1, 1), has_sill=False), 0.4, 0)
    drum(stage, centre, (18.6, 19.1), (2.1, 3.0), (60, 62, 66), 30)
    drum(stage, centre, (19.1, 20.0), (2.95, 2.95), (84, 88, 92), 30)
    drum(stage, centre, (19.5, 22.0), (1.5, 1.5), (96, 110, 116))
    for turn in (-1.2, -0.6, 0.0, 0.6, 1.2):
        wall = tangent_wall(stage, centre, 1.5, turn, 0.7, 20.0)
        if not wall.is_visible:
            continue
        if stage.light.is_dark:
            wall.shine(rectangle(0, 0, 0.7, 1.8), (255, 244, 190))
        else:
            wall.shape(rectangle(0, 0, 0.7, 1.8), (206, 222, 214))
    drum(stage, centre, (22.0, 24.2), (1.9, 0.0), red)


def draw_chapel(stage: Stage) -> None:
    """White walls, pointed windows, a steeple before the gable and a red door."""
    white, roof = (236, 234, 226), (82, 78, 84)
    lancet = Opening(1.0, 3.0, "pointed", frame=(120, 128, 134), panes=(2, 3))

    def sides(wall: Wall) -> None:
        openings(wall, lancet, spread(1, wall.width - 1, 5), [1.8])

    nave = Block(-5, 5, 0, 17, 0, 6)
    raise_block(stage, nave, white, sides=sides)
    front_gable_roof(stage, nave, 5.4, roof)
    wall = gable_wall(stage, nave, 5.4, white, "plaster")
    openings(wall, lancet, [1.5, 8.5], [1.8])

    def belfry(wall: Wall) -> None:
        openings(wall, Opening(1.1, 2.2, "pointed", leaf=(92, 96, 92)), [1.2, 2.8], [10.2])
        wall.slab(rectangle(-0.1, 9.4, 4.2, 0.3), 0.2, (206, 204, 198))

    def front(wall: Wall) -> None:
        belfry(wall)
        place(
            wall, Opening(1.9, 3.4, "pointed", leaf=(168, 40, 44), surround=(170, 164, 156)), 2, 0
        )
        wall.shape(circle(2, 6.6, 1.15), (150, 150, 148))
        for petal in range(8):
            turn = math.pi * petal / 4
            spot = circle(2 + 0.62 * math.cos(turn), 6.6 + 0.62 * math.sin(turn), 0.3, 10)
            wall.shape(spot, (52, 66, 108) if petal % 2 else (132, 52, 62))

    tower = Block(-2, 2, -2.2, 1.8, 0, 13)
    raise_block(stage, tower, white, front=front, sides=belfry)
    hip_roof(stage, tower, 9.0, roof)
    cross = Wall(stage, (-0.6, -0.2), (0.6, -0.2), 21.9)
    cross.shape(rectangle(0.5, 0, 0.2, 1.8), (208, 170, 70))
    cross.shape(rectangle(0.1, 1.0, 1.0, 0.2), (208, 170, 70))


def _portico(stage: Stage, half: float, num_columns: int, height: float, colour: Colour) -> None:
    """Steps, columns and a pediment before the front wall; the middle at x = 0."""
    for step in range(4):
        run = 4.6 - 0.5 * step
        raise_block(
            stage, Block(-half - 0.4, half + 0.4, -run, 0, 0.3 * step, 0.3 * step + 0.3), colour
        )
    columns = sorted(spread(-half, half, num_columns), key=lambda x: -abs(x - stage.camera.eye[0]))
    for x in columns:
        drum(stage, (x, -2.0), (1.2, height - 0.4), (0.62, 0.5), colour, 14)
        capital = Block(x - 0.75, x + 0.75, -2.75, -1.25, height - 0.4, height)
        raise_block(stage, capital, colour, material="plain")
    beam = Block(-half, half, -3.0, 0, height, height + 1.5)
    front_gable_roof(stage, beam, 2.6, (126, 122, 116))
    raise_block(stage, beam, colour, material="plain")
    wall = gable_wall(stage, beam, 2.6, colour, "plain")
    wall.shade([(1.6, 1.75), (2 * half - 1.6, 1.75), (half, 3.7)], 46)
    wall.slab(rectangle(-0.2, 1.2, 2 * half + 0.4, 0.3), 0.3, colour)


def draw_museum(stage: Stage) -> None:
    """Sandstone, eight columns under a wide pediment, banners between tall windows."""
    tall = Opening(1.5, 4.2, surround=(224, 204, 166), panes=(2, 4))

    def front(wall: Wall) -> None:
        openings(wall, tall, [*spread(0.8, 8, 2), *spread(22, 29.2, 2)], [2.6])
        openings(wall, Opening(1.9, 5.0, leaf=(92, 62, 42), surround=CREAM), [11, 15, 19], [1.2])

    def sides(wall: Wall) -> None:
        openings(wall, tall, spread(0.5, wall.width - 0.5, 4), [2.6])

    body = Block(-15, 15, 0, 14, 0, 9.5)
    raise_block(stage, body, SANDSTONE, material="stone", front=front, sides=sides)
    attic = Block(-15.3, 15.3, -0.3, 14.3, 9.5, 10.4)
    raise_block(stage, attic, CREAM, material="plain")
    _portico(stage, 8.2, 8, 8.4, SANDSTONE)
    for x in (-11.5, 11.5):
        banner = Wall(stage, (x - 0.7, -0.2), (x + 0.7, -0.2), 2.2)
        banner.shape(rectangle(0, 0, 1.4, 5.4), (164, 38, 62))
        banner.shape(circle(0.7, 3.6, 0.45, 14), (236, 206, 120))


def draw_library(stage: Stage) -> None:
    """Sandstone like the museum, but four columns, round windows' heads and a copper dome."""
    round_head = Opening(1.6, 3.6, "round", surround=(226, 206, 170), panes=(2, 3))

    def front(wall: Wall) -> None:
        openings(wall, round_head, [*spread(0.6, 8.6, 3), *spread(17.4, 25.4, 3)], [2.4])
        place(wall, Opening(2.4, 4.6, "round", leaf=(48, 76, 66), surround=CREAM), 13, 1.2)

    def sides(wall: Wall) -> None:
        openings(wall, round_head, spread(0.5, wall.width - 0.5, 4), [2.4])

    body = Block(-13, 13, 0, 14, 0, 8.4)
    raise_block(stage, body, SANDSTONE, material="stone", front=front, sides=sides)
    raise_block(stage, Block(-13.3, 13.3, -0.3, 14.3, 8.4, 9.2), CREAM, material="plain")
    centre = (0.0, 7.0)
    drum(stage, centre, (9.2, 13.4), (5.6, 5.6), SANDSTONE, 32)
    for step in range(-4, 5):
        wall = tangent_wall(stage, centre, 5.62, 0.36 * step, 1.1, 10.0)
        if wall.is_visible:
            place(wall, Opening(1.0, 2.5, "round", panes=(1, 2), has_sill=False), 0.55, 0)
    drum(stage, centre, (13.4, 14.0), (6.0, 6.0), CREAM, 32)
    dome(stage, centre, 14.0, 5.4, COPPER)
    drum(stage, centre, (19.6, 21.6), (0.9, 0.9), CREAM, 12)
    drum(stage, centre, (21.6, 23.4), (1.2, 0.0), COPPER, 12)
    _portico(stage, 4.4, 4, 7.4, SANDSTONE)


def draw_castle_gate(stage: Stage) -> None:
    """Two round grey towers with battlements, a gate between them, blue banners."""
    stone, dark = (150, 146, 138), (112, 108, 102)

    def front(wall: Wall) -> None:
        gate = head_outline(2.6, 0, 4.8, 6.0, "round")
        wall.shape(head_outline(2.1, 0, 5.8, 6.6, "round"), dark)
        wall.shape(gate, (34, 28, 26))
        for u in (3.2, 4.0, 4.8, 5.6, 6.4):
            wall.shape(rectangle(u, 2.6, 0.16, 2.8), (92, 84, 74))
        for v in (3.0, 3.8, 4.6):
            wall.shape(rectangle(2.8, v, 4.4, 0.16), (92, 84, 74))
        openings(wall, Opening(0.9, 1.7, "round", frame=dark, panes=(1, 1)), [2.5, 5, 7.5], [7.6])

    middle = Block(-5, 5, 0, 8, 0, 11)
    raise_block(stage, middle, stone, material="stone", front=front)
    battlements(stage, middle, stone)
    for x in sorted((-7.6, 7.6), key=lambda x: -abs(x - stage.camera.eye[0])):
        _gate_tower(stage, x, stone, dark)


def _gate_tower(stage: Stage, x: float, stone: Colour, dark: Colour) -> None:
    centre = (x, 2.0)
    drum(stage, centre, (0, 1.5), (4.1, 3.7), dark, 28)
    for course in range(6):
        low = 1.5 + 2.0 * course
        shade = 6 if course % 2 else 0
        colour = (stone[0] - shade, stone[1] - shade, stone[2] - shade)
        drum(stage, centre, (low, low + 2.0), (3.7, 3.7), colour, 28)
    drum(stage, centre, (13.5, 14.3), (3.7, 4.2), dark, 28)
    drum(stage, centre, (14.3, 15.4), (4.2, 4.2), stone, 28)
    for step in range(14):
        turn = 2 * math.pi * step / 14 + math.pi
        wall = tangent_wall(stage, centre, 4.2, turn, 1.1, 15.4)
        wall.shape(rectangle(0, 0, 1.1, 1.1), stone if wall.is_visible else dark)
    for turn, height in ((-0.7, 4.0), (0.7, 7.0), (-0.7, 10.5), (0.7, 11.0)):
        wall = tangent_wall(stage, centre, 3.72, turn, 0.5, height)
        if wall.is_visible:
            wall.shape(rectangle(0.1, 0, 0.3, 1.7), (26, 24, 26))
    banner = tangent_wall(stage, centre, 3.8, 0.0, 1.7, 6.0)
    if banner.is_visible:
        banner.shape([(0, 0), (0.85, 0.8), (1.7, 0), (1.7, 6), (0, 6)], (40, 70, 150))
        banner.shape(circle(0.85, 3.8, 0.5, 12), (236, 196, 70))
