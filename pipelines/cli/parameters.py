"""What messages call parameters, as a user of the command line gives them: by their options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import click

from retrieval.parameters import NAME

__all__ = ["as_options", "option_of", "spelled"]

_BYTES: Final = re.compile(r"`memory_bytes` (-?[0-9]+)")  # its option takes GiB


def spelled(name: str) -> str:
    """The option of a Python name."""
    return f"--{name.replace('_', '-')}"


def as_options(text: str, ctx: click.Context) -> str:
    """A text in which options stand for the parameters that it names; others stay.

    Args:
        text: As `retrieval.parameters` has it.
        ctx: Of a command; or of the group: then the command that it runs comes first, and a
            parameter that is none of its is one of another command, as where a ranking fails
            that an embedding can mend.

    Example: "`top_k` 5: ix has 3 images." becomes "--top-k 5: ix has 3 images."
    """
    text = _BYTES.sub(lambda found: f"`memory_bytes` {int(found[1]) / 2**30:.3g}", text)
    return NAME.sub(lambda found: option_of(found[1], ctx) or found[0], text)


def option_of(name: str, ctx: click.Context) -> str | None:
    """The option that gives a parameter; None where no command has one."""
    found = [
        (option, name == option.name)
        for command in _commands(ctx)
        for option in command.params
        if isinstance(option, click.Option)
        and (name == option.name or name in getattr(option, "known_as", ()))
    ]
    # An option that is called so comes before one whose field is.
    found.sort(key=lambda each: not each[1])
    return str(found[0][0].opts[0]) if found else None


def _commands(ctx: click.Context) -> Iterator[click.Command]:
    if not isinstance(ctx.command, click.Group):
        yield ctx.command
        return
    known = ctx.command.commands
    if (running := known.get(ctx.invoked_subcommand or "")) is not None:
        yield running
    yield from known.values()
