"""Types of options that are numbers: no option takes NaN, infinity, or more than 64 bits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from retrieval.settings import Range

__all__ = ["number"]


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
