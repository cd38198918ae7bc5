"""The light of one picture: sun, sky and lamps, from morning to night."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from retrieval.drawn.camera import Point, dot

__all__ = ["Colour", "Light", "choose_light", "mix"]

Colour = tuple[int, int, int]
Tint = tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """What falls on the walls and what stands behind them.

    Attributes:
        sun: Unit vector towards the sun or the moon.
        sun_tint: Its red, green and blue strength, 1 = white paint stays white.
        sky_tint: Strength of the light from everywhere.
        zenith: Colour of the sky overhead; `horizon` likewise at the skyline.
        lit_fraction: Share of the windows with a lamp behind them, 0-1.
        cloud_fraction: Share of the sky that clouds cover, 0-1.
        fog_fraction: How much of the building fog hides, 0-1.
        has_snow: Snow lies on roofs and ground.
        is_sunny: Things cast shadows.
    """

    sun: Point
    sun_tint: Tint
    sky_tint: Tint
    zenith: Colour
    horizon: Colour
    lit_fraction: float
    cloud_fraction: float
    fog_fraction: float
    has_snow: bool
    is_sunny: bool

    def tint(self, normal: Point) -> Tint:
        """Light on a surface, per channel."""
        facing = max(0.0, dot(normal, self.sun))
        # A wall sees half of the sky, a roof all of it: that alone gives form when overcast.
        sky = 0.86 + 0.14 * normal[2]
        return (
            sky * self.sky_tint[0] + facing * self.sun_tint[0],
            sky * self.sky_tint[1] + facing * self.sun_tint[1],
            sky * self.sky_tint[2] + facing * self.sun_tint[2],
        )

    @property
    def is_dark(self) -> bool:
        """Lamps are on."""
        return self.lit_fraction > 0.2


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """Between two colours; share 0 is the first, 1 the second."""
    return (
        round(a[0] + share * (b[0] - a[0])),
        round(a[1] + share * (b[1] - a[1])),
        round(a[2] + share * (b[2] - a[2])),
    )


class _Hour(NamedTuple):
    height_deg: float
    sun_tint: Tint
    sky_tint: Tint
    zenith: Colour
    horizon: Colour
    lit_fraction: float
    weight: float


_MORNING = _Hour(
    17, (0.62, 0.5, 0.36), (0.57, 0.59, 0.64), (104, 152, 205), (245, 226, 196), 0.03, 0.2
)
_NOON = _Hour(
    48, (0.67, 0.64, 0.58), (0.55, 0.58, 0.62), (58, 122, 204), (188, 217, 240), 0.0, 0.28
)
_AFTERNOON = _Hour(
    30, (0.65, 0.58, 0.48), (0.55, 0.57, 0.62), (82, 140, 208), (214, 226, 234), 0.02, 0.16
)
_DUSK = _Hour(8, (0.62, 0.4, 0.26), (0.5, 0.44, 0.5), (74, 78, 140), (250, 168, 106), 0.4, 0.12)
# At night the "sun" is a floodlight on the ground before the building.
_NIGHT = _Hour(12, (0.34, 0.28, 0.2), (0.27, 0.29, 0.40), (10, 14, 36), (46, 52, 92), 0.6, 0.1)
_OVERCAST = _Hour(
    50, (0.06, 0.06, 0.06), (0.84, 0.86, 0.88), (150, 160, 170), (214, 217, 219), 0.05, 0.14
)
_HOURS = (_MORNING, _NOON, _AFTERNOON, _DUSK, _NIGHT, _OVERCAST)


def choose_light(rng: np.random.Generator) -> Light:
    """Draw an hour, where the sun stands then, and the weather.

    Args:
        rng: Draws the hour (morning, noon, afternoon, dusk, night, overcast), the side the sun
            is on, clouds, fog and snow.

    Returns:
        The light; the sun is before the front wall in most pictures, behind it in some.
    """
    hour = _HOURS[int(rng.choice(len(_HOURS), p=[hour.weight for hour in _HOURS]))]
    height = math.radians(hour.height_deg + float(rng.uniform(-4.0, 6.0)))
    side = math.radians(float(rng.uniform(-105.0, 105.0)) * (0.4 if hour is _NIGHT else 1.0))
    clouds, fog, snow = rng.random(3).tolist()
    return Light(
        sun=(
            math.cos(height) * math.sin(side),
            -math.cos(height) * math.cos(side),
            math.sin(height),
        ),
        sun_tint=hour.sun_tint,
        sky_tint=hour.sky_tint,
        zenith=hour.zenith,
        horizon=hour.horizon,
        lit_fraction=hour.lit_fraction,
        cloud_fraction=1.0 if hour is _OVERCAST else 0.65 * clouds,
        fog_fraction=0.35 * fog if hour is _OVERCAST else 0.0,
        has_snow=snow < (0.35 if hour is _OVERCAST else 0.05),
        is_sunny=hour not in (_NIGHT, _OVERCAST),
    )
