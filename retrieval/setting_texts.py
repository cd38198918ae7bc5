"""Values of settings, made of the texts in which people give them. Pure; errors are ValueErrors."""

from __future__ import annotations

import math
from typing import Final

from retrieval.choices import METRICS, minkowski_power
from retrieval.ranges import COUNT

__all__ = [
    "MEAN_HELP",
    "STD_HELP",
    "USUAL_CHANNELS",
    "channels",
    "deviations",
    "metric_name",
    "number_or_all",
]

# Of every job that names a network.
MEAN_HELP: Final = (
    "Mean of red, green and blue, on the scale from 0 to 1, that is taken off the network's input."
)
STD_HELP: Final = "Deviation, by which it is divided then."
USUAL_CHANNELS: Final = "the model's or the network's, or ImageNet's"

_MAX_CHANNEL: Final = 1e6  # the network computes in 32 bits, where far more has no room


def number_or_all(text: str) -> int | None:
    """A number, or None for all."""
    if text == "all":
        return None
    try:
        found = int(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a number nor 'all'.") from None
    if abs(found) > COUNT.high:
        raise ValueError(f"{text[:60]!r} is not {COUNT}.")
    return found


def metric_name(text: str) -> str:
    """The name of a metric."""
    if text in METRICS or minkowski_power(text) is not None:
        return text
    known = f"{', '.join(METRICS)}, or minkowski:P with P ≥ 1, as in minkowski:3"
    raise ValueError(f"{text!r} is none of {known}.")


def channels(text: str) -> tuple[float, ...]:
    """Three numbers, of red, green and blue."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != 3 or not all(map(math.isfinite, found)):
        raise ValueError(f"{text!r} is not three numbers R,G,B, as in 0.5,0.5,0.5.")
    if max(map(abs, found)) > _MAX_CHANNEL:
        raise ValueError(f"{text!r} has one beyond {_MAX_CHANNEL:g}, far from any photo.")
    return found


def deviations(text: str) -> tuple[float, ...]:
    """Three numbers, by which something is divided."""
    found = channels(text)
    if min(found) < 1 / _MAX_CHANNEL:
        least = "0" if min(found) <= 0 else f"{1 / _MAX_CHANNEL:g}"
        raise ValueError(f"{text!r} has one that is not above {least}; the input is divided by it.")
    return found
