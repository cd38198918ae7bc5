"""Settings: the fields of a config dataclass, each with all that is to be said of it.

    top_k: int | None = setting(10, "Images to list for each query, or all.", parse=number_or_all)

The field is the one place of the default, of the help, and of the range or the choices. Whoever
takes settings from people, as a command line does, builds its questions from them. A help names
another setting in backquotes, as `retrieval.parameters` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final

from retrieval.errors import UsageError
from retrieval.ranges import Range

__all__ = ["Setting", "Unit", "check_settings", "setting", "settings_of"]

_KEY: Final = "setting"


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
