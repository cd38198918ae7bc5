"""The commands by their names; each module is loaded when its command is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from typing import Final

import click

from pipelines.cli.streams import for_the_report

__all__ = ["Verbs"]

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
