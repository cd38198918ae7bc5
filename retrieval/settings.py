"""Settings: the fields of a config dataclass, each with all that is to be said of it; their ranges.

    top_k: int | None = setting(10, "Images to list for each query, or all.", parse=number_or_all)

The field is the one place of the default, of the help, and of the range or the choices. Whoever
takes settings from people, as a command line does, builds its questions from them. A help names
another setting in backquotes, as `retrieval.parameters` says.

No option takes a number that is in no range. No range holds NaN or infinity, and a whole number
fits into the 64 bits of the libraries that get it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, Final

from retrieval.choices import METRICS, minkowski_power
from retrieval.errors import UsageError

__all__ = [
    "COUNT",
    "DECAY",
    "EPOCHS",
    "FRACTION",
    "GIBIBYTES",
    "MANY",
    "MEAN_HELP",
    "NOT_NEGATIVE",
    "POSITIVE",
    "SEED",
    "SHARE",
    "SIDE",
    "STD_HELP",
    "USUAL_CHANNELS",
    "Range",
    "Setting",
    "Unit",
    "channels",
    "check_settings",
    "deviations",
    "metric_name",
    "number_or_all",
    "setting",
    "settings_of",
]

_KEY: Final = "setting"

# Of every job that names a network.
MEAN_HELP: Final = (
    "Mean of red, green and blue, on the scale from 0 to 1, that is taken off the network's input."
)
STD_HELP: Final = "Deviation, by which it is divided then."
USUAL_CHANNELS: Final = "the model's or the network's, or ImageNet's"

_MAX_CHANNEL: Final = 1e6  # the network computes in 32 bits, where far more has no room


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from low to high.

    Attributes:
        low, high: The ends.
        low_open, high_open: Whether an end itself is left out.
        is_whole: Whether the numbers are whole.
    """

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False
    is_whole: bool = False

    def holds(self, value: Any) -> bool:  # noqa: ANN401
        """Whether a value is one of the numbers."""
        if isinstance(value, bool) or not isinstance(value, Integral if self.is_whole else Real):
            return False
        found: Any = value  # not narrowed to Real, which mypy cannot compare
        is_above = self.low < found if self.low_open else self.low <= found
        return is_above and (found < self.high if self.high_open else found <= self.high)

    def __str__(self) -> str:
        kind = "a whole number" if self.is_whole else "a number"
        low = f"above {self.low:g}" if self.low_open else f"from {_short(self.low)}"
        return f"{kind} {low} to {'below ' if self.high_open else ''}{_short(self.high)}"


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


# Rates, decays, epochs, days: beyond a million none is meant.
POSITIVE: Final = Range(low=0, low_open=True, high=10**6)
NOT_NEGATIVE: Final = Range(low=0, high=10**6)
FRACTION: Final = Range(low=0, high=1)
SHARE: Final = Range(low=0, high=1, high_open=True)
GIBIBYTES: Final = Range(low=0, low_open=True, high=2**33 - 1)
DECAY: Final = Range(low=0, low_open=True, high=1)
COUNT: Final = Range(low=1, high=2**63 - 1, is_whole=True)
# Workers, threads, CPUs, photos of a batch: what is made all at once.
MANY: Final = Range(low=1, high=2**20, is_whole=True)
EPOCHS: Final = Range(low=1, high=2**20, is_whole=True)
SIDE: Final = Range(low=1, high=2**13, is_whole=True)  # of a network's input: 0.8 GB a photo
SEED: Final = Range(low=-(2**63), high=2**64 - 1, is_whole=True)  # as torch takes them


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Another unit, by which people give a number.

    Attributes:
        name: The setting's name with that unit.
        size: The unit, in that of the field.
        numbers: The range in that unit.
    """

    name: str
    size: int
    numbers: Range


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is said of a setting.

    Attributes:
        help: What it means.
        numbers: Its range; `check_settings` refuses others.
        least: The least that makes sense to a person; the range may have less, for small tests.
        choices: Its values.
        parse: Makes a value of a text, or of several texts where there may be several; a
            ValueError says what is wrong.
        is_many: Whether there may be several texts.
        shape: How a text is written, as in R,G,B.
        unset: What holds where it is None, if the help does not say it.
        name: The name by which people give it, if not that of the field.
        opposite: The name of not having it, if it is on by default.
        unit: Another unit, by which people give it.
    """

    help: str = ""
    numbers: Range | None = None
    least: int | None = None
    choices: Sequence[str] = ()
    parse: Callable[[Any], Any] | None = None
    is_many: bool = False
    shape: str | None = None
    unset: str | None = None
    name: str | None = None
    opposite: str | None = None
    unit: Unit | None = None


def setting(default: Any, help: str = "", **facts: Any) -> Any:  # noqa: ANN401 - as `field`
    """A field of a config dataclass; of a default that is a function, each gets its own result.

    Args:
        default: Its default.
        help: What it means.
        facts: More of `Setting`.
    """
    said = {_KEY: Setting(help=help, **facts)}
    if callable(default):
        return field(default_factory=default, metadata=said)
    return field(default=default, metadata=said)


def settings_of(config: Any) -> Mapping[str, tuple[Any, Setting]]:  # noqa: ANN401 - any dataclass
    """Default and setting of each field that has one, in their order."""
    return {
        one.name: (
            one.default_factory() if one.default_factory is not MISSING else one.default,
            one.metadata[_KEY],
        )
        for one in fields(config)
        if _KEY in one.metadata
    }


def check_settings(config: Any) -> None:  # noqa: ANN401 - any dataclass
    """Refuse settings outside their ranges; one that is None is left open.

    Raises:
        UsageError: names the setting, what was found and what is needed.
    """
    for name, (_, said) in settings_of(config).items():
        value = getattr(config, name)
        if said.numbers and value is not None and not said.numbers.holds(value):
            raise UsageError(f"`{name}` {value}: {said.numbers} is needed.")


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
