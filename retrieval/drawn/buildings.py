"""The twelve buildings, random houses, and the small things of a street, as sums of parts.

Red warehouse and brick mill, and museum and domed library, are alike on purpose.
Parts stand in the order they are painted in, the farthest first; lengths are metres.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from retrieval.drawn.parts import BLACK, CREAM, Colour, Part, across, ball, box, disc, drum

# isort: split
from retrieval.drawn.parts import panel, put, repeat, ring, roof, shape, slab, window

BRICK, SANDSTONE, STONE, ROSE = (168, 82, 64), (208, 184, 140), (150, 146, 138), (204, 164, 146)
WHITE, GREY, SLATE, TILES = (236, 234, 226), (112, 108, 102), (84, 88, 100), (150, 74, 54)
COPPER, GREEN, RED, OAK = (104, 166, 144), (52, 96, 72), (180, 42, 48), (86, 58, 40)
GOLD, ORANGE, TEAL, BLUE = (206, 164, 70), (222, 122, 48), (46, 140, 146), (84, 116, 140)
WALLS = (CREAM, BRICK, STONE, (218, 186, 120), (186, 128, 112), (152, 166, 172))
PAINTS = (RED, GREEN, (40, 74, 140), WHITE, (38, 40, 46), GREY, GOLD)
ROUND = True  # head of a window
LEAVES = ((64, 110, 52), (84, 128, 60), (46, 92, 58), (112, 132, 58), (186, 122, 44))


def _portico(width: float, num_columns: int, height: float) -> Part:
    column = put(drum([(0.62, 1.2), (0.5, height - 0.4)], SANDSTONE), y=-2)
    column += put(box((1.5, 1.5, 0.4), SANDSTONE), y=-2.75, z=height - 0.4)
    inset = shape([(1.6 - width / 2, 1.75), (width / 2 - 1.6, 1.75), (0, 3.7)], BLACK, 46)
    beam = box((width, 3, 1.5), SANDSTONE, [inset], gable=(2.6, GREY))
    stair = box((width + 0.8, 4.6, 0.3), SANDSTONE)
    stairs = [face for i in range(4) for face in put(stair, 0, i / 2 - 4.6, 0.3 * i)]
    return stairs + repeat(column, across(width, num_columns)) + put(beam, y=-3, z=height)


def _tier(width: float, low: float, height: float) -> Part:
    slits = repeat(window((0.9, 1.5), frame=SLATE), [0], np.arange(0.4, height - 3, 2.05))
    bay = [panel(1.1, height - 1.8, GREY), *slits]
    wall = repeat(bay, across(width - 1, round(width / 1.9)), [0.6])
    wall += slab((width, 0.3, 0.5), GOLD, v=height - 0.8)
    return put(box((width, width, height), ROSE, wall, wall, 0.75), y=9 - width / 2, z=low)


SMALL, LOW = window((1.2, 1.2), frame=RED), window((1.5, 1.4), frame=OAK)
ARCH = window((2.3, 3.7), ROUND, OAK, CREAM)
TALL = window((1.5, 3.4), ROUND, trim=CREAM, panes=(2, 3))
VAULT = window((1.5, 1.9), ROUND, GREEN, (136, 62, 48), (3, 2))
SASH = window((1.4, 1.9), frame=WHITE, panes=(2, 3))
LOUVRES = repeat(window((1.1, 2.2), ROUND, leaf=GREY), [-0.8, 0.8], [0.8])
NARROW = window((0.9, 1.7), ROUND, GREY, panes=(1, 1))
LANCET, HIGH = window((1, 3), ROUND, GREY), window((1.5, 4.2), trim=CREAM, panes=(2, 4))
WIDE, SHOP = (window(size, frame=GREY, panes=(3, 1)) for size in ((2.1, 1.7), (4.2, 2.7)))
DUTCH = repeat([panel(0.6, 2.3, GREEN)], [-1, 1]) + window((1.2, 2.3), trim=CREAM, panes=(2, 3))
FLOWERED = window((1.2, 1.5), frame=OAK) + slab((1.3, 0.3, 0.3), OAK, v=-0.1)
FLOWERED += repeat([ball((0, -0.2, 0.25), 0.2, RED)], across(1.2, 5))
HATCH = slab((2.4, 0.5, 0.25), GREY, v=-0.25) + window((2, 2.6), frame=CREAM, leaf=GREEN)
CLOCK = [disc(1.9, GREY), disc(1.6, WHITE, "lamp"), panel(0.2, 1.3, OAK)]
CLOCK += put([panel(0.9, 0.2, OAK)], 0.4)
BELFRY = repeat(NARROW, [-1.1, 1.1], [1.4]) + put(CLOCK, z=5.3)
BELFRY += slab((5.8, 0.3, 0.5), CREAM, v=7.5)
LANTERN = [panel(0.75, 1.8, WHITE)._replace(kind="lamp")]
TIMBER = repeat([panel(9.9, 0.3, OAK)], [0], [0, 1.4, 2.7])
TIMBER += repeat([panel(0.3, 3, OAK)], across(12.4, 5)) + repeat(FLOWERED, [-1.2, 1.2], [0.9])
# fmt: off
TRUSS = [panel(0.3, 10, OAK)] + [
    shape([(side * u, v) for u, v in beam[::side]], OAK) for side in (-1, 1) for beam in (
        ((6.7, 3), (7.4, 3), (0, 10.2), (0, 9.5)), ((5, 0.2), (5.4, 0.2), (7.4, 3), (7, 3)))
]
STOREYS, QUARTER = np.arange(6) * 2.9 + 3.7, np.linspace(0, 1.5, 8)
BALCONIES = [
    face for u, start, colour in ((-8, 0, ORANGE), (-2.7, 1, ORANGE), (2.7, 0, TEAL), (8, 1, TEAL))
    for face in repeat(slab((4.6, 1.3, 1.1), colour), [u], STOREYS[start::2])
]
STEPS = [
    face for width, z in ((8, 11), (6.3, 12.25), (4.6, 13.5), (2.9, 14.75), (1.2, 16))
    for face in put(box((width, 0.5, 1.35), BLUE, (), (), 0.3), y=-0.1, z=z)
    + slab((width + 0.1, 0.3, 0.2), WHITE, v=z + 1.2)
]
TURRET = (
    drum([(4.1, 0), (3.7, 1.5), (3.7, 13.5), (4.2, 14.3), (4.2, 15.4)], GREY, STONE)
    + drum([(3.72, z) for z in np.arange(1.5, 14, 1)], STONE, (143, 139, 132))
    + put(ring([panel(0.3, 1.7, BLACK)], 3.72, [-0.9, 0.8]), z=9)
    + put(ring([panel(1.7, 5.4, (40, 70, 150)), *put([disc(0.5, GOLD)], z=3.5)], 3.8, [0]), z=6)
    + put(ring(box((1.1, 0.5, 1.1), STONE), 4.2, np.arange(14) * 0.449 + 3.14), z=15.4)
)
BUILDINGS: dict[str, Part] = {
    "town-hall":
        box((26, 13, 11), BRICK, slab((26, 0.3, 0.5), CREAM, v=5)
            + repeat(ARCH, [-11, -8, -5, 5, 8, 11], [0.3])
            + repeat(TALL, [-11, -8, -5, 5, 8, 11], [6.1]),
            repeat(TALL, across(13, 4), [1, 6.1]), 0.3)
        + slab((26.6, 0.5, 0.6), CREAM, v=10.6) + put(roof((26, 13, 4.6), SLATE), z=11)
        + put(box((5.4, 1, 11), BRICK, window((2.6, 4.2), ROUND, CREAM, CREAM, leaf=GREEN)
                  + put(TALL, z=6.3) + slab((4.6, 1, 0.9), CREAM, v=5), course=0.3), y=-1)
        + put(box((5.4, 5.4, 8.2), BRICK, BELFRY, BELFRY, 0.3), y=-1, z=11)
        + put(roof((5.4, 5.4, 7.5), COPPER), y=-1, z=19.2),
    "lighthouse":
        put(box((6.2, 6, 3), WHITE, repeat(SMALL, [-1.9, 1.9], [1.1])
                + window((1.1, 2.1), trim=RED, leaf=BLUE), gable=(2.4, TILES)), 6.5, 3)
        + drum([(3.1 - 0.055 * z, z) for z in np.arange(0, 19, 3.1)], WHITE, RED)
        + put(ring(SMALL, 2.9, [0]), z=4.2) + put(ring(SMALL, 2.55, [0.5]), z=10.4)
        + drum([(2.1, 18.6), (3, 19.1), (3, 20)], SLATE) + drum([(1.5, 20), (1.5, 22.2)], GREY)
        + put(ring(LANTERN, 1.52, np.arange(8) * 0.785), z=20.1)
        + drum([(1.9, 22.1), (0, 24.3)], RED),
    "red-warehouse":
        box((17, 20, 11), BRICK, repeat(VAULT, [-6.5, -3.5, 3.5, 6.5], [1.2, 4.6, 8])
            + repeat(HATCH, [0], [4.2, 7.6, 11]) + window((3, 3.4), ROUND, CREAM, leaf=GREEN)
            + slab((0.4, 1.8, 0.4), OAK, v=14.5),
            repeat(VAULT, across(19, 6), [1.2, 4.6, 8]), 0.3, (5.6, SLATE)),
    "brick-mill":
        put(drum([(1.5, 0), (1.05, 25)], BRICK) + drum([(1.3, 23.6), (1.3, 24.4)], CREAM), 5, 14)
        + box((18, 20, 11.6), BRICK, repeat(SASH, across(17, 6), [3.9, 6.7, 9.2])
              + repeat(SASH, [-7, -4.2, 7], [1.1]) + put(window((2.6, 3), leaf=GREY), 3.4)
              + put([panel(5.6, 1, CREAM)], z=11.9)
              + repeat([panel(0.4, 0.6, OAK)], across(4.8, 7), [12.1]),
              repeat(SASH, across(19, 7), [1.1, 3.9, 6.7, 9.2]), 0.3, (4.4, GREY)),
    "white-chapel":
        box((10, 17, 6), WHITE, repeat(LANCET, [-3.5, 3.5], [1.8]),
            repeat(LANCET, across(15, 5), [1.8]), gable=(5.4, SLATE))
        + put(box((4, 2.2, 9.4), WHITE, window((1.9, 3.4), ROUND, trim=STONE, leaf=RED)
                  + put([disc(1.1, SLATE), disc(0.9, TEAL), disc(0.4, RED)], z=6.6)), y=-2.2)
        + put(box((4, 4, 3.8), WHITE, LOUVRES, LOUVRES), y=-2.2, z=9.4)
        + put(roof((4, 4, 9), SLATE), y=-2.2, z=13.2)
        + put([panel(0.2, 1.8, GOLD)], z=21.8) + put([panel(1, 0.2, GOLD)], z=22.8),
    "canal-house":
        box((8, 11, 11), BLUE, repeat(DUTCH, [-2.3, 2.3], [4.3, 7.8])
            + repeat(window((1, 2.2), trim=CREAM), [0], [4.3, 7.8])
            + slab((2.4, 1, 0.2), STONE, -2.3) + repeat(SASH, [0.4, 2.4], [0.9])
            + put(window((1.5, 2.9), trim=WHITE, leaf=GOLD), -2.3, 0, 0.2),
            repeat(window((0.9, 1.5)), across(9, 3), [4.5, 7.9]), 0.3, (4.6, TILES))
        + STEPS + put(window((1.1, 1.7), ROUND, leaf=GREEN), y=-0.1, z=11.8),
    "museum":
        box((30, 14, 9.5), SANDSTONE, repeat(HIGH, [-13.3, -9.7, 9.7, 13.3], [2.6])
            + repeat([panel(1.4, 5.4, RED)], [-11.5, 11.5], [2.2])
            + repeat(window((1.9, 5), trim=CREAM, leaf=OAK), [-4, 0, 4], [1.2]),
            repeat(HIGH, across(13, 4), [2.6]), 0.75)
        + put(box((30.6, 14.6, 0.9), CREAM), y=-0.3, z=9.5) + _portico(16.4, 8, 8.4),
    "domed-library":
        box((26, 14, 8.4), SANDSTONE, repeat(TALL, [-11.3, -8.6, -5.9, 5.9, 8.6, 11.3], [2.4])
            + put(window((2.4, 4.6), ROUND, leaf=GREEN), z=1.2),
            repeat(TALL, across(13, 4), [2.4]), 0.75)
        + put(box((26.6, 14.6, 0.8), CREAM), y=-0.3, z=8.4)
        + put(drum([(5.6, 9.2), (5.6, 13.4), (6, 13.4), (6, 14)], SANDSTONE, CREAM, CREAM)
              + drum([(5.4 * np.cos(t), 14 + 6 * np.sin(t)) for t in QUARTER], COPPER)
              + put(ring(NARROW, 5.62, np.arange(18) * 0.349), z=10.4)
              + drum([(0.9, 19.8), (0.9, 21.6), (1.2, 21.6), (0, 23.4)], CREAM, CREAM, COPPER), y=7)
        + _portico(8.8, 4, 7.4),
    "balcony-flats":
        box((22, 11, 22), (222, 222, 216), repeat(WIDE, across(21.2, 8), STOREYS + 0.7)
            + repeat(SHOP, across(21.2, 4), [0.2]) + BALCONIES,
            repeat(window((1.2, 1.5), frame=GREY), [-3, 3], STOREYS + 0.7))
        + put(box((5, 5, 3), STONE), 4.5, 3, 22)
        + put(box((22.4, 11.4, 0.8), STONE), y=-0.2, z=21.6),
    "stepped-tower":
        put(roof((4.8, 4.8, 6.5), GOLD), y=6.6, z=39) + put(box((4.8, 4.8, 3), ROSE), y=6.6, z=36)
        + _tier(8.4, 26, 10) + _tier(13.2, 14, 12) + _tier(18, 0, 14)
        + [panel(4.8, 6.4, ROSE), *window((3.4, 5.4), frame=GOLD, panes=(4, 1), leaf=SLATE)],
    "timber-inn":
        box((14, 9, 3.4), STONE, repeat(LOW, [-5, -2.6, 2.6, 5], [1.1])
            + window((1.7, 2.6), ROUND, trim=GREY, leaf=GREEN),
            repeat(LOW, across(7, 3), [1.1]), 0.75)
        + put(box((1.2, 1.2, 8), BRICK), 4.2, 4, 6.2)
        + put(box((14.8, 9.9, 3), (240, 224, 186), TRUSS
                  + repeat([panel(14.8, 0.3, OAK)], [0], [0, 1.4, 2.7])
                  + repeat([panel(0.3, 3, OAK)], across(17.2, 7))
                  + repeat([panel(0.3, 6.2, OAK)], [-3.7, 3.7])
                  + put([panel(9.4, 0.3, OAK)], z=5.4) + put([panel(4.8, 0.3, OAK)], z=7.7)
                  + repeat(FLOWERED, [-3.7, -1.2, 1.2, 3.7], [0.9])
                  + repeat(FLOWERED, [-1.9, 1.9], [3.7]),
                  TIMBER, 0, (7.2, TILES)), y=-0.5, z=3.4),
    "castle-gate":
        box((10, 8, 11), STONE, window((5, 6.2), ROUND, GREY, GREY, leaf=BLACK)
            + repeat([panel(0.16, 3.4, GREY)], across(4.5, 6), [1.6])
            + repeat([panel(4.6, 0.16, GREY)], [0], [2.6, 3.4, 4.2])
            + repeat(NARROW, [-2.5, 0, 2.5], [7.6]), course=0.75)
        + repeat(box((0.9, 0.5, 1.1), STONE), across(10, 6), [11])
        + put(TURRET, -7.6, 2) + put(TURRET, 7.6, 2),
}
# fmt: on


def random_house(rng: Generator) -> Part:
    """A house of one to five floors and two to seven windows across, of no class."""
    num_floors, num_bays, kind = (int(rng.integers(*span)) for span in ((1, 6), (2, 8), (0, 3)))
    storey, depth, rise = rng.uniform(2.9, 3.4), rng.uniform(8, 13), rng.uniform(2.4, 4.8)
    width, height = num_bays * rng.uniform(2.1, 3.0), num_floors * storey + 0.6
    walls, paint, tiles = _one(WALLS, rng), _one(PAINTS, rng), _one((TILES, SLATE), rng)
    frame, is_round = _one((WHITE, OAK), rng), bool(rng.random() < 0.3)
    pane = window((1.2, rng.uniform(1.3, 1.9)), is_round, frame, _one((CREAM, walls), rng))
    rows, (first, *columns) = np.arange(num_floors) * storey + 0.9, across(width, num_bays)
    front = [*repeat(pane, columns, rows), *repeat(pane, [first], rows[1:])]
    front += put(window((1.3, 2.3), frame=frame, leaf=paint), first)
    sides, course = repeat(pane, across(depth, 2), rows), float(rng.choice([0, 0.3]))
    house = box(
        (width, depth, height), walls, front, sides, course, None if kind else (rise, tiles)
    )
    hip, cornice = roof((width, depth, rise), tiles), box((width + 0.4, depth, 0.8), frame)
    return house + put(([], hip, cornice)[kind], z=height)


def tree(rng: Generator) -> Part:
    """A tree in leaf, green or in its autumn colour."""
    height, girth, leaves = rng.uniform(4.5, 9), rng.uniform(1.3, 2.4), np.array(_one(LEAVES, rng))
    faces = box((0.35, 0.35, 0.7 * height), OAK)
    for up, side, size in sorted(rng.uniform(-1, 1, (60, 3)).tolist()):
        if side**2 + up**2 < 1:
            r, g, b = (leaves * (0.78 + 0.2 * up + 0.1 * side + 0.08 * size)).astype(int).tolist()
            middle = (0.75 * girth * side, 0.0, height * (0.68 + 0.26 * up))
            faces.append(ball(middle, girth * (0.3 + 0.1 * size), (r, g, b)))
    return faces


def car(rng: Generator) -> Part:
    """A parked car, seen from its side."""
    wheel = [ball((0, -0.05, 0.34), 0.34, BLACK), ball((0, -0.05, 0.34), 0.16, STONE)]
    body = box((4.2, 1.8, 0.6), _one(PAINTS, rng))
    cabin = box((2.3, 1.5, 0.5), SLATE) + put(box((2.1, 1.5, 0.1), CREAM), z=0.5)
    return put(body, z=0.35) + put(cabin, -0.15, 0.15, 0.95) + repeat(wheel, [-1.35, 1.35])


def lamp_post(rng: Generator) -> Part:
    """A street lamp."""
    height = rng.uniform(4.2, 5.6)
    head = [face._replace(kind="lamp") for face in box((0.5, 0.5, 0.6), (255, 232, 178))]
    return box((0.18, 0.18, height), SLATE) + put(head, z=height)


def _one(colours: tuple[Colour, ...], rng: Generator) -> Colour:
    return colours[int(rng.integers(len(colours)))]
