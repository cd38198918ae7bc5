"""ctrl-C and a scheduler's kill: one line and a shell's exit code, whenever they come."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

__all__ = ["Interrupted", "handled", "is_interrupted"]

_CODE_OF_SIGNALS = 128  # a shell's exit code of what a signal has ended is above it
_state = {"signal": 0, "is_ending": 0}


class Interrupted(click.ClickException):
    """Ended by a signal: 130 after ctrl-C, 143 after SIGTERM."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        code = _CODE_OF_SIGNALS + (_state["signal"] or signal.SIGINT)
        self.exit_code = code  # type: ignore[misc]


def is_interrupted() -> bool:
    """Whether a signal has come, whatever became of the KeyboardInterrupt that it raised."""
    return bool(_state["signal"])


@contextmanager
def handled(*, ends_after: bool) -> Iterator[None]:
    """Have both signals raise KeyboardInterrupt while the body runs.

    Args:
        ends_after: Whether this process ends after the body. A signal that comes then ends it at
            once: Python would show where it was.
    """
    _state.update(signal=0, is_ending=0)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as of what a shell runs in the background
            signal.signal(number, _on_signal)
    if ends_after:
        sys.unraisablehook = _tell_no_interrupt
    try:
        yield
    finally:
        _state["is_ending"] = 1
        if not ends_after:
            for number, handler in before.items():
                signal.signal(number, handler)


def _on_signal(number: int, frame: FrameType | None) -> None:
    _state["signal"] = number
    if _state["is_ending"]:
        os._exit(_CODE_OF_SIGNALS + number)
    raise KeyboardInterrupt


def _tell_no_interrupt(found: sys.UnraisableHookArgs) -> None:
    """Pass over a KeyboardInterrupt that came where none can be raised, as in a destructor."""
    if not isinstance(found.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(found)
