"""The list of buildings; each is one class, and looks the same in every picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from retrieval.drawn import civic, dwellings
from retrieval.drawn.camera import Extent
from retrieval.drawn.houses import draw_house, plan_house
from retrieval.drawn.stage import Stage

__all__ = ["DESIGNS", "Design", "design_of"]


@dataclass(frozen=True)
class Design:
    """A building.

    Attributes:
        name: Its class, fit for a folder name.
        extent: Its size, metres.
        draw: Draws it, front wall on y = 0, centred on x = 0.
    """

    name: str
    extent: Extent
    draw: Callable[[Stage], None]


# Two pairs are alike on purpose: red-warehouse and brick-mill, museum and domed-library.
DESIGNS: tuple[Design, ...] = (
    Design("town-hall", Extent(26, 13, 26), civic.draw_town_hall),
    Design("lighthouse", Extent(14, 9, 24), civic.draw_lighthouse),
    Design("red-warehouse", Extent(18, 12, 16.6), dwellings.draw_warehouse),
    Design("brick-mill", Extent(18, 12, 18), dwellings.draw_mill),
    Design("white-chapel", Extent(11, 10, 23), civic.draw_chapel),
    Design("canal-house", Extent(8.5, 8, 17), dwellings.draw_canal_house),
    Design("museum", Extent(31, 10, 12.5), civic.draw_museum),
    Design("domed-library", Extent(27, 12, 23), civic.draw_library),
    Design("balcony-flats", Extent(22, 11, 25), dwellings.draw_flats),
    Design("stepped-tower", Extent(18, 16, 46), dwellings.draw_tower),
    Design("timber-inn", Extent(15, 9, 14), dwellings.draw_inn),
    Design("castle-gate", Extent(23, 7, 17), civic.draw_castle_gate),
)


def design_of(building: int) -> Design:
    """The building of this number; beyond the designs, a house from its own random plan."""
    if building < len(DESIGNS):
        return DESIGNS[building]
    plan = plan_house(np.random.default_rng(building))
    return Design(f"house-{building}", plan.extent, partial(draw_house, plan=plan))
