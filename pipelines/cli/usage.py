"""Wrong usage, told as all errors are: what was given is shown in one line, without credentials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from click.exceptions import MissingParameter, NoArgsIsHelpError

from retrieval.one_line import one_line

__all__ = ["PlainErrors"]


class PlainErrors(click.Group):
    """A group whose errors quote no credentials and no control characters of the command line."""

    def make_context(self, *args: Any, **settings: Any) -> click.Context:  # noqa: ANN401
        """Parse the options of the group."""
        with _plain():
            return super().make_context(*args, **settings)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        """Parse the rest and run the command."""
        with _plain():
            return super().invoke(ctx)


@contextmanager
def _plain() -> Iterator[None]:
    try:
        yield
    except (MissingParameter, NoArgsIsHelpError):  # quote nothing, and have lines of their own
        raise
    except click.ClickException as error:
        for part in ("message", "option_name", "param_hint"):
            if isinstance(text := getattr(error, part, None), str):
                setattr(error, part, one_line(text))
        raise
