"""Houses from a random plan: the neighbours, the distractors, and classes beyond the designs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.drawn.camera import Extent
from retrieval.drawn.light import Colour
from retrieval.drawn.openings import Opening, openings, place, spread
from retrieval.drawn.solids import (
    Block,
    front_gable_roof,
    gable_wall,
    hip_roof,
    raise_block,
    side_gable_roof,
)
from retrieval.drawn.stage import Material, Stage, Wall, rectangle

__all__ = ["HousePlan", "draw_house", "plan_house"]

_WALLS: tuple[Colour, ...] = (
    (214, 200, 172), (196, 170, 140), (176, 104, 84), (224, 220, 210), (170, 164, 154),
    (218, 186, 120), (186, 128, 112), (152, 166, 172), (206, 178, 168), (168, 178, 150),
)  # fmt: skip
_ROOFS: tuple[Colour, ...] = ((146, 80, 60), (88, 86, 92), (112, 92, 80), (104, 66, 58))
_TRIMS: tuple[Colour, ...] = ((238, 234, 224), (84, 66, 54), (70, 84, 92), (206, 190, 160))
_DOORS: tuple[Colour, ...] = ((112, 52, 46), (52, 74, 100), (60, 84, 62), (96, 72, 52))


@dataclass(frozen=True)
class HousePlan:
    """What a house looks like in every picture.

    Attributes:
        extent: Its size with roof, metres.
        eaves: Height of its walls.
        roof: "flat", "hip", "front" or "side" gable.
        walls: Their colour; `tiles`, `door` likewise.
        material: Of the walls.
        window: Its windows.
        num_columns: Windows across the front.
        num_floors: Rows of windows.
        has_cornice: A band under the roof and between the floors.
    """

    extent: Extent
    eaves: float
    roof: str
    walls: Colour
    tiles: Colour
    door: Colour
    material: Material
    window: Opening
    num_columns: int
    num_floors: int
    has_cornice: bool


def plan_house(rng: np.random.Generator) -> HousePlan:
    """Draw the plan of a house.

    Args:
        rng: Decides everything.

    Returns:
        A plan of one to five floors and two to seven windows across.
    """
    num_floors = int(rng.integers(1, 6))
    num_columns = int(rng.integers(2, 8))
    bay = float(rng.uniform(2.1, 3.0))
    eaves = num_floors * float(rng.uniform(2.9, 3.4)) + 0.6
    roof = str(rng.choice(["flat", "hip", "front", "side"]))
    rise = 0.8 if roof == "flat" else float(rng.uniform(2.4, 4.8))
    trim = _TRIMS[int(rng.integers(len(_TRIMS)))]
    height = float(rng.uniform(1.3, 1.9))
    window = Opening(
        width=float(rng.uniform(0.9, 1.4)),
        height=height,
        head="round" if rng.random() < 0.2 else "flat",
        frame=trim,
        surround=trim if rng.random() < 0.35 else None,
        panes=(int(rng.integers(1, 4)), int(rng.integers(1, 4))),
        shutters=_DOORS[int(rng.integers(len(_DOORS)))] if bay > 2.6 else None,
    )
    return HousePlan(
        extent=Extent(num_columns * bay + 0.8, float(rng.uniform(8.0, 13.0)), eaves + rise),
        eaves=eaves,
        roof=roof,
        walls=_WALLS[int(rng.integers(len(_WALLS)))],
        tiles=_ROOFS[int(rng.integers(len(_ROOFS)))],
        door=_DOORS[int(rng.integers(len(_DOORS)))],
        material="brick" if rng.random() < 0.4 else "plaster",
        window=window,
        num_columns=num_columns,
        num_floors=num_floors,
        has_cornice=bool(rng.random() < 0.5),
    )


def draw_house(stage: Stage, plan: HousePlan) -> None:
    """Draw a house with its front wall on y = 0, centred on x = 0."""
    width, depth, height = plan.extent
    storey = plan.eaves / plan.num_floors
    rows = [storey * floor + 0.3 * storey for floor in range(plan.num_floors)]

    def front(wall: Wall) -> None:
        columns = spread(0.4, wall.width - 0.4, plan.num_columns)
        door_at = columns[plan.num_columns // 2]
        openings(wall, plan.window, [u for u in columns if u != door_at], rows[:1])
        openings(wall, plan.window, columns, rows[1:])
        place(wall, Opening(1.3, 2.3, leaf=plan.door, frame=plan.window.frame), door_at, 0.0)
        if plan.has_cornice:
            for floor in range(1, plan.num_floors + 1):
                wall.slab(
                    rectangle(0, storey * floor - 0.3, wall.width, 0.25), 0.2, plan.window.frame
                )

    def sides(wall: Wall) -> None:
        openings(wall, plan.window, spread(0.4, wall.width - 0.4, 2), rows)

    block = Block(-width / 2, width / 2, 0, depth, 0, plan.eaves)
    rise = height - plan.eaves
    if plan.roof == "front":
        raise_block(stage, block, plan.walls, material=plan.material, sides=sides)
        front_gable_roof(stage, block, rise, plan.tiles)
        front(gable_wall(stage, block, rise, plan.walls, plan.material))
        return
    raise_block(stage, block, plan.walls, material=plan.material, front=front, sides=sides)
    if plan.roof == "hip":
        hip_roof(stage, block, rise, plan.tiles, ridge=max(0.0, width - depth))
    elif plan.roof == "side":
        side_gable_roof(stage, block, rise, plan.tiles, plan.walls)
    else:
        parapet = Block(block.x0 - 0.1, block.x1 + 0.1, -0.1, depth, plan.eaves, height)
        raise_block(stage, parapet, plan.window.frame, material="plain")
