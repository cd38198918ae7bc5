"""A limit of time for native code: what comes to no end ends its process.

Nothing else helps: a decoder that hangs cannot be interrupted, and while it holds the
interpreter's lock no thread of Python runs either. faulthandler's watchdog is a thread in C.
"""

from __future__ import annotations

import faulthandler
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["EXIT_CODE", "ends_after", "not_counted"]

EXIT_CODE = 1  # faulthandler's own
_STDERR = 2  # the descriptor: sys.stderr may be something that is no file
_limit_s: float | None = None
_set_at = 0.0


@contextmanager
def ends_after(limit_s: float) -> Iterator[Callable[[], None]]:
    """End this process if the block takes longer; the stacks of its threads go to stderr.

    A process has one such watchdog: blocks of two threads must not overlap.

    Args:
        limit_s: Seconds > 0. What is waited within `not_counted` comes on top.

    Yields:
        A function after whose call the time begins anew. Within a hundredth of the limit it is
        left as it is: a photo would otherwise pay for the start and the end of a thread, and on a
        busy machine waits for both, 0.4 ms for 5 ms of decoding.
    """
    global _limit_s
    _limit_s = limit_s

    def begin_anew() -> None:
        if time.monotonic() - _set_at > limit_s / 100:
            _set(limit_s)

    _set(limit_s)
    try:
        yield begin_anew
    finally:
        _limit_s = None
        faulthandler.cancel_dump_traceback_later()


def _set(limit_s: float) -> None:
    global _set_at
    faulthandler.dump_traceback_later(limit_s, exit=True, file=_STDERR)
    _set_at = time.monotonic()


@contextmanager
def not_counted() -> Iterator[None]:
    """Wait for others in the middle of `ends_after`: its time begins anew behind the block."""
    if _limit_s is None:  # the watchdog, if there is one, is not ours
        yield
        return
    faulthandler.cancel_dump_traceback_later()
    try:
        yield
    finally:
        _set(_limit_s)
