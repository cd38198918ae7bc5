"""The options of a command, built from the config dataclasses that it fills.

    @click.command()
    @click.argument("queries")
    @options(config=RankConfig)
    def rank(queries: str, config: RankConfig) -> None: ...

Each field that is a `retrieval.settings.setting` becomes an option, in the order of the fields,
with the default, the range or choices and the help that the field has. The command gets the
config, and the type checker sees what it does with it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import click

from pipelines.cli.parameters import as_options, spelled
from retrieval.parameters import NAME
from retrieval.settings import Range, Setting, settings_of

__all__ = ["SettingOption", "number", "options"]

_Command = Callable[..., None]


class SettingOption(click.Option):
    """An option that gives a setting.

    Attributes:
        field: Name of the config's field.
        known_as: Names by which messages call it.
    """

    def __init__(self, argument: str, field: str, said: Setting, default: Any) -> None:  # noqa: ANN401
        self.field, self._size = field, said.unit.size if said.unit else None
        given = said.name or (said.unit.name if said.unit else field)
        self.known_as = (field, f"{argument}.{field}")
        opposite = f"/{spelled(said.opposite)}" if said.opposite else ""
        is_flag = isinstance(default, bool)
        super().__init__(
            [f"{spelled(given)}{opposite}", given],
            default=None if said.is_many else default,
            show_default=said.unset or (default is not None and (not is_flag or bool(opposite))),
            is_flag=is_flag,
            type=None if is_flag else _type_of(said),
            multiple=said.is_many,
            callback=_of_many(said.parse) if said.is_many and said.parse else None,
            metavar=said.shape,
            help=said.help or None,
        )

    def value_of(self, given: Any) -> Any:  # noqa: ANN401
        """The value of the field, in its unit."""
        return given if given is None or self._size is None else int(given * self._size)


class _Text(click.ParamType[Any]):
    """A text of which a value is made."""

    name = "text"

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """The value; wrong usage, in the words of what makes it, if it is none."""
        if not isinstance(value, str):
            return value  # a default
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(_in_options(error, ctx), param, ctx)


def options(only: Collection[str] = (), /, **configs: object) -> Callable[[_Command], _Command]:
    """A decorator that gives a command the options of one config.

    Args:
        only: Names of the fields, if not all get an option.
        configs: The command's argument, and the dataclass that it gets there; or an object of
            it, which has the defaults.

    Wrong usage is also what the config itself refuses.
    """
    ((argument, config),) = configs.items()
    base: Any = config() if isinstance(config, type) else config
    known = settings_of(base)
    made = [
        SettingOption(argument, field, _in_help(said, known), getattr(config, field, default))
        for field, (default, said) in known.items()
        if not only or field in only
    ]

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def filled(*args: Any, **given: Any) -> None:  # noqa: ANN401
            values = {one.field: one.value_of(given.pop(str(one.name))) for one in made}
            try:
                found = replace(base, **values)
            except ValueError as error:
                ctx = click.get_current_context()
                raise click.UsageError(_in_options(error, ctx), ctx) from error
            command(*args, **given, **{argument: found})

        others: list[click.Parameter] = getattr(command, "__click_params__", [])
        filled.__click_params__ = [*others, *reversed(made)]  # type: ignore[attr-defined]
        return filled

    return decorate


def _type_of(said: Setting) -> click.ParamType[Any] | None:
    if said.choices:
        return click.Choice(said.choices)
    if said.unit:
        return number(said.unit.numbers)
    if said.numbers:
        return number(said.numbers, low=said.least)
    return _Text(said.parse) if said.parse and not said.is_many else None


def _of_many(parse: Callable[[Any], Any]) -> Callable[..., Any]:
    def parse_all(ctx: click.Context, option: click.Parameter, given: Any) -> Any:  # noqa: ANN401
        try:
            return parse(given)
        except ValueError as error:
            raise click.BadParameter(_in_options(error, ctx), ctx, option) from error

    return parse_all


def _in_help(said: Setting, settings: Collection[str]) -> Setting:
    """With options for the settings of the same config that the help names."""
    text = NAME.sub(
        lambda found: spelled(found[1]) if found[1] in settings else found[0], said.help
    )
    return replace(said, help=text)


def _in_options(error: ValueError, ctx: click.Context | None) -> str:
    return as_options(str(error), ctx) if ctx else str(error)


def number(numbers: Range, *, low: int | None = None) -> click.ParamType[Any]:
    """The type of an option with these numbers, or with those of them from `low` on."""
    return _Number(numbers if low is None else replace(numbers, low=low))


class _Number(click.ParamType[Any]):
    """A number of a range; wrong usage otherwise, in a line that says the range."""

    def __init__(self, numbers: Range) -> None:
        self.name = "integer" if numbers.is_whole else "float"
        self._numbers = numbers

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        """The number that a text is."""
        try:
            found = int(value) if self._numbers.is_whole else float(value)
        except (ValueError, TypeError, OverflowError):
            found = None
        if found is None or not self._numbers.holds(found):
            self.fail(f"{str(value)[:60]!r} is not {self._numbers}.", param, ctx)
        return found
