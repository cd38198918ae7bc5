"""How long work says what it is at, to whoever is handed in: a terminal, a log, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol

__all__ = ["QUIET", "Progress"]


class Progress(Protocol):
    """Where a function says how far it is."""

    def status(self, text: str) -> AbstractContextManager[None]:
        """Show what is going on while the body runs."""

    def line(
        self, verb: str, unit: str, total: int, done: Callable[[], int | Mapping[str, int] | None]
    ) -> AbstractContextManager[None]:
        """Show "ranked 4 of 16 parts" while the body runs.

        Args:
            verb: What is being done, in the past tense.
            unit: What is counted, in the plural.
            total: How many there are.
            done: How many are finished; of several stages, by their verbs. Called from another
                thread.
        """

    def say(self, text: str) -> None:
        """Say what stays to be read."""


class _Quiet:
    """Says nothing."""

    def status(self, text: str) -> AbstractContextManager[None]:
        return nullcontext()

    def line(
        self, verb: str, unit: str, total: int, done: Callable[[], int | Mapping[str, int] | None]
    ) -> AbstractContextManager[None]:
        return nullcontext()

    def say(self, text: str) -> None:
        pass


QUIET: Final[Progress] = _Quiet()
