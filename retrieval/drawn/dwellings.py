"""Six buildings to live and work in: warehouse, mill, canal house, flats, tower, inn."""

from __future__ import annotations

from retrieval.drawn.light import Colour
from retrieval.drawn.openings import Opening, openings, place, spread
from retrieval.drawn.solids import (
    Block,
    drum,
    front_gable_roof,
    gable_wall,
    hip_roof,
    raise_block,
)
from retrieval.drawn.stage import Stage, Wall, rectangle

__all__ = [
    "draw_canal_house",
    "draw_flats",
    "draw_inn",
    "draw_mill",
    "draw_tower",
    "draw_warehouse",
]

BRICK: Colour = (164, 84, 64)
TILES: Colour = (150, 74, 54)
BEAM: Colour = (82, 54, 38)
OAK: Colour = (96, 66, 46)
FLOWERED = Opening(1.2, 1.5, frame=OAK, flowers=(206, 48, 66), has_sill=False)


def draw_warehouse(stage: Stage) -> None:
    """Red brick gable with green loading doors over each other under a hoist beam."""
    green: Colour = (52, 96, 72)
    window = Opening(1.5, 1.9, "round", frame=(70, 84, 76), surround=(136, 62, 48), panes=(3, 2))

    def sides(wall: Wall) -> None:
        openings(wall, window, spread(1, wall.width - 1, 6), [1.2, 4.6, 8.0])

    body = Block(-8.5, 8.5, 0, 20, 0, 11)
    raise_block(stage, body, BRICK, material="brick", sides=sides)
    front_gable_roof(stage, body, 5.6, (92, 84, 84))
    wall = gable_wall(stage, body, 5.6, BRICK, "brick")
    openings(wall, window, [2.0, 5.0, 12.0, 15.0], [1.2, 4.6, 8.0])
    for v in (4.2, 7.6, 11.0):
        door = Opening(2.0, 2.6, frame=(210, 200, 180), leaf=green, panes=(2, 1), has_sill=False)
        place(wall, door, 8.5, v)
        wall.slab(rectangle(7.3, v - 0.3, 2.4, 0.25), 0.5, (90, 82, 74))
    gate = Opening(3.0, 3.4, "round", frame=(210, 200, 180), leaf=green, panes=(2, 1))
    place(wall, gate, 8.5, 0)
    wall.slab(rectangle(8.3, 14.3, 0.4, 0.4), 1.8, (70, 56, 44))


def draw_mill(stage: Stage) -> None:
    """Red brick gable like the warehouse, but a grid of white flat windows and a chimney."""
    window = Opening(1.4, 1.9, frame=(236, 234, 228), panes=(2, 3))

    def sides(wall: Wall) -> None:
        openings(wall, window, spread(1, wall.width - 1, 7), [1.1, 3.9, 6.7, 9.2])

    drum(stage, (5.0, 14.0), (0, 25), (1.5, 1.05), (150, 76, 58), 18)
    drum(stage, (5.0, 14.0), (23.6, 24.4), (1.25, 1.25), (226, 218, 200), 18)
    body = Block(-9, 9, 0, 20, 0, 11.6)
    raise_block(stage, body, BRICK, material="brick", sides=sides)
    front_gable_roof(stage, body, 4.4, (104, 88, 84))
    wall = gable_wall(stage, body, 4.4, BRICK, "brick")
    openings(wall, window, spread(0.6, 17.4, 6), [3.9, 6.7, 9.2])
    openings(wall, window, [2.0, 4.8, 16.0], [1.1])
    place(wall, Opening(2.6, 3.0, leaf=(120, 128, 134), panes=(4, 3), has_sill=False), 12.4, 0)
    wall.shape(rectangle(6.2, 11.9, 5.6, 1.0), (238, 228, 200))
    for u in spread(6.6, 11.4, 7):  # the painted name of the firm
        wall.shape(rectangle(u - 0.2, 12.1, 0.4, 0.6), (60, 48, 44))


def draw_canal_house(stage: Stage) -> None:
    """A narrow front with a stepped gable, white frames and black shutters."""
    brick: Colour = (84, 116, 140)
    white: Colour = (240, 236, 224)
    tall = Opening(
        1.2, 2.3, frame=white, surround=(206, 190, 160), panes=(2, 3), shutters=(38, 62, 56)
    )
    body = Block(-4, 4, 0, 11, 0, 11)

    def sides(wall: Wall) -> None:
        openings(wall, Opening(0.9, 1.5, frame=white), spread(1, wall.width - 1, 3), [4.5, 7.9])

    raise_block(stage, body, brick, material="brick", sides=sides)
    front_gable_roof(stage, Block(-3.7, 3.7, 0.6, 11, 0, 10.8), 5.0, TILES)
    wall = Wall(stage, (-4, 0), (4, 0))
    outline = [(0.0, 0.0), (8.0, 0.0), (8.0, 11.6)]
    for step in range(1, 5):
        u = 8.0 - 0.85 * step
        outline += [(u, 11.6 + 1.25 * (step - 1)), (u, 11.6 + 1.25 * step)]
    outline += [(8.0 - u, v) for u, v in reversed(outline[1:])]
    wall.paint(outline[:-1], brick, "brick")
    for step in range(5):
        u, v = 0.85 * step, 11.5 + 1.25 * step
        ends = (u, 8.0 - u - 0.85) if step < 4 else (3.4,)
        for left in ends:
            wall.slab(rectangle(left - 0.05, v, 0.95 if step < 4 else 1.2, 0.22), 0.25, white)
    openings(wall, tall, [1.7, 6.3], [4.3, 7.8])
    openings(wall, Opening(1.0, 2.2, frame=white, surround=(206, 190, 160)), [4.0], [4.3, 7.8])
    place(wall, Opening(1.1, 1.7, "round", frame=white, leaf=(38, 62, 56)), 4, 11.8)
    place(wall, Opening(1.5, 2.9, frame=white, leaf=(176, 130, 40), surround=white), 1.7, 0.2)
    openings(wall, Opening(1.3, 2.2, frame=white, panes=(2, 3)), [4.4, 6.4], [0.9])
    wall.slab(rectangle(0.5, 0, 2.4, 0.2), 1.0, (150, 146, 140))


def draw_flats(stage: Stage) -> None:
    """Seven white storeys with orange and teal balconies, shops below."""
    white: Colour = (222, 222, 216)
    orange, teal = (222, 122, 48), (46, 140, 146)
    window = Opening(2.1, 1.7, frame=(90, 94, 98), panes=(3, 1), has_sill=False)

    def front(wall: Wall) -> None:
        for u in spread(0.4, 21.6, 4):
            shop = Opening(4.2, 2.7, frame=(70, 72, 76), panes=(3, 1), has_sill=False)
            place(wall, shop, u, 0.2)
            wall.slab(rectangle(u - 2.3, 2.9, 4.6, 0.3), 1.0, orange if u < 11 else teal)
        for floor in range(6):
            v = 4.0 + 2.9 * floor
            openings(wall, window, spread(0.4, 21.6, 8), [v + 0.4])
            for bay, u in enumerate(spread(0.4, 21.6, 4)):
                if (bay + floor) % 2 == 0:
                    colour = orange if bay < 2 else teal
                    wall.slab(rectangle(u - 2.3, v - 0.3, 4.6, 1.1), 1.3, colour)
            wall.shade(rectangle(0, v - 0.55, 22, 0.12), 40)

    def sides(wall: Wall) -> None:
        openings(
            wall,
            Opening(1.2, 1.5, frame=(90, 94, 98), panes=(1, 1)),
            [2.5, wall.width - 2.5],
            [4.4 + 2.9 * floor for floor in range(6)],
        )

    body = Block(-11, 11, 0, 11, 0, 22)
    raise_block(stage, body, white, front=front, sides=sides)
    raise_block(stage, Block(2, 7, 3, 8, 22, 25), (190, 190, 186))
    raise_block(stage, Block(-11.2, 11.2, -0.2, 11.2, 21.6, 22.4), (150, 152, 152))


def draw_tower(stage: Stage) -> None:
    """A pale tower in three setbacks, with dark upright bands and a golden crown."""
    stone: Colour = (204, 164, 146)
    gold: Colour = (206, 164, 70)
    setbacks = ((9.0, 0.0, 14.0), (6.6, 14.0, 26.0), (4.2, 26.0, 36.0))

    def bands(wall: Wall) -> None:
        tier_height = {18.0: 14.0, 13.2: 12.0, 8.4: 10.0}[round(wall.width, 1)]
        count = round(wall.width / 1.9)
        for u in spread(0.7, wall.width - 0.7, count):
            wall.shape(rectangle(u - 0.55, 0.6, 1.1, tier_height - 1.8), (98, 90, 88))
            slit = Opening(0.9, 1.5, frame=(74, 72, 76), panes=(1, 1), has_sill=False)
            openings(wall, slit, [u], [0.9 + 2.05 * row for row in range(int(tier_height / 2.3))])
        wall.slab(rectangle(0, tier_height - 0.8, wall.width, 0.5), 0.25, gold)

    def entrance(wall: Wall) -> None:
        bands(wall)
        if wall.width > 15:
            wall.shape(rectangle(6.6, 0, 4.8, 6.4), stone)
            place(wall, Opening(3.4, 5.4, frame=gold, leaf=(48, 44, 46), panes=(4, 3)), 9, 0)

    for half, low, high in setbacks:
        tier = Block(-half, half, 9 - half, 9 + half, low, high)
        raise_block(stage, tier, stone, material="stone", front=entrance, sides=bands)
    crown = Block(-2.4, 2.4, 6.6, 11.4, 36, 39)
    raise_block(stage, crown, stone, material="plain")
    hip_roof(stage, crown, 6.5, gold)


def draw_inn(stage: Stage) -> None:
    """Half-timbered over a stone ground floor, a steep roof, flower boxes, a chimney."""

    def ground(wall: Wall) -> None:
        openings(wall, Opening(1.3, 1.5, frame=OAK), spread(1, wall.width - 1, 3), [1.1])

    def front(wall: Wall) -> None:
        place(wall, Opening(1.7, 2.6, "round", leaf=(70, 96, 60), surround=(120, 112, 102)), 7, 0)
        openings(wall, Opening(1.5, 1.4, frame=OAK), [2, 4.4, 9.6, 12], [1.1])

    def upper(wall: Wall) -> None:
        _timber(wall, 4, 3.0)
        openings(wall, FLOWERED, spread(0, wall.width, 4)[1:3], [0.9])

    stone: Colour = (158, 148, 134)
    plaster: Colour = (240, 224, 186)
    base = Block(-7, 7, 0, 9, 0, 3.4)
    raise_block(stage, base, stone, material="stone", front=front, sides=ground)
    loft = Block(-7.4, 7.4, -0.5, 9.4, 3.4, 6.4)
    raise_block(stage, loft, plaster, sides=upper)
    raise_block(stage, Block(3.6, 4.8, 4, 5.2, 6, 14.2), (140, 84, 66), material="brick")
    front_gable_roof(stage, loft, 7.2, TILES)
    _timber_gable(gable_wall(stage, loft, 7.2, plaster, "plaster"))


def _timber(wall: Wall, num_bays: int, height: float) -> None:
    """Beams of one storey: sill, rail and plate, posts, and a brace in each end bay."""
    wide = wall.width
    for v in (0.0, height / 2, height - 0.3):
        wall.shape(rectangle(0, v, wide, 0.3), BEAM)
    for step in range(num_bays + 1):
        u = min(wide - 0.3, max(0.0, wide * step / num_bays - 0.15))
        wall.shape(rectangle(u, 0, 0.3, height), BEAM)
    run = wide / num_bays
    for foot, head in ((0.0, run), (wide, wide - run)):
        wall.shape([(foot, 0), (foot, 0.4), (head, height), (head, height - 0.4)], BEAM)


def _timber_gable(wall: Wall) -> None:
    _timber(wall, 6, 3.0)
    for v in (3.0, 5.4, 7.6):
        half = 7.4 * (10.2 - v) / 7.2
        wall.shape(rectangle(7.4 - half, v, 2 * half, 0.28), BEAM)
    for u, top in ((3.7, 6.2), (7.4, 10.0), (11.1, 6.2)):
        wall.shape(rectangle(u - 0.15, 3.0, 0.3, top - 3.0), BEAM)
    for side in (-1, 1):
        rafter = [(7.4 + 7.6 * side, 3.0), (7.4 + 6.9 * side, 3.0), (7.4, 9.8), (7.4, 10.5)]
        wall.shape(rafter, BEAM)
    openings(wall, FLOWERED, [3.7, 6.2, 8.7, 11.1], [0.9])
    openings(wall, FLOWERED, [5.5, 9.3], [3.7])
