"""The group of commands: each is loaded when it is asked for; what it quotes is plain text."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

import click
from click.exceptions import MissingParameter, NoArgsIsHelpError

from pipelines.cli.process import for_the_report
from retrieval.one_line import one_line

__all__ = ["PlainErrors", "Verbs"]

_NAMES: Final = (
    "demo", "augment", "embed", "rank", "verify", "evaluate", "report", "train", "experiment",
    "reindex", "retry-rejects", "status", "diff", "restore", "vacuum", "submit",
)  # fmt: skip


class Verbs(MutableMapping[str, click.Command]):
    """Name → command, which lies in the module of that name. All of them take 50 ms to load."""

    def __init__(self) -> None:
        self._loaded: dict[str, click.Command | None] = dict.fromkeys(_NAMES)

    def __getitem__(self, name: str) -> click.Command:
        found = self._loaded[name]
        if found is None:
            word = name.replace("-", "_")
            command: click.Command = getattr(importlib.import_module(f"pipelines.cli.{word}"), word)
            if command.callback is not None:
                command.callback = for_the_report(command.callback)
            found = self._loaded[name] = command
        return found

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaded)

    def __len__(self) -> int:
        return len(self._loaded)


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
