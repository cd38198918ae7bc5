"""One line on a terminal while a job runs; nothing where stderr is a log."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["announce", "is_shown", "live_line", "progress_line", "status_line"]

_EVERY_S = 0.5


def is_shown() -> bool:
    """Whether there is a terminal to draw on."""
    return sys.stderr.isatty()


@contextmanager
def status_line(text: str) -> Iterator[None]:
    """Show what is going on while the body runs, then wipe it away: the report follows."""
    _write(text)
    try:
        yield
    finally:
        _write("")


@contextmanager
def live_line(first: str, text: Callable[[], str]) -> Iterator[None]:
    """Show a text that changes while the body runs, then wipe it away.

    Args:
        first: What is shown at the start.
        text: Gives the line; called twice a second from another thread.
    """
    stop = threading.Event()

    def draw() -> None:
        while not stop.wait(_EVERY_S):
            _write(text())

    with status_line(first):
        thread = threading.Thread(target=draw, daemon=True)
        if is_shown():
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if thread.ident:
                thread.join()


@contextmanager
def progress_line(verb: str, unit: str, total: int, done: Callable[[], int]) -> Iterator[None]:
    """Draw "embedded 420 of 738 photos, 24/s, about 13 s left" while the body runs.

    Args:
        verb: What is being done, in the past tense.
        unit: What is counted, in the plural.
        total: How many there are.
        done: How many are finished; called twice a second from another thread.
    """
    start = time.monotonic()

    def text() -> str:
        return describe(verb, unit, total, done(), time.monotonic() - start)

    with live_line(describe(verb, unit, total, 0, 0), text):
        yield


def announce(text: str) -> None:
    """Print a line that stays, also in a log; a line that is being drawn gives way to it."""
    _write("")
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is where people are told


def _write(text: str) -> None:
    """Replace the line, on a terminal."""
    if is_shown():
        sys.stderr.write("\r\033[K" + text)
        sys.stderr.flush()


def describe(verb: str, unit: str, total: int, num_done: int, seconds: float) -> str:
    """The line's text.

    Example:
        >>> describe("embedded", "photos", 738, 420, 17.5)
        'embedded 420 of 738 photos, 24.0/s, about 13 s left'
    """
    text = f"{verb} {num_done} of {total} {unit}"
    if not num_done:
        return text
    rate = num_done / seconds
    return f"{text}, {rate:.1f}/s, about {(total - num_done) / rate:.0f} s left"
