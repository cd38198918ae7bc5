"""A limit of time for native code: what comes to no end ends its process.

Nothing else helps: a decoder that hangs cannot be interrupted, and while it holds the
interpreter's lock no thread of Python runs either. faulthandler's watchdog is a thread in C.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["EXIT_CODE", "ends_after", "not_counted"]

EXIT_CODE = 1  # faulthandler's own
_STDERR = 2  # the descriptor: sys.stderr may be something that is no file
_limit_s: float | None = None


@contextmanager
def ends_after(limit_s: float) -> Iterator[None]:
    """End this process if the block takes longer; the stacks of its threads go to stderr.

    A process has one such watchdog: blocks of two threads must not overlap.

    Args:
        limit_s: Seconds > 0. What is waited within `not_counted` comes on top.

    Cost: 30 µs, for a thread that starts and ends.
    """
    global _limit_s
    _limit_s = limit_s
    faulthandler.dump_traceback_later(limit_s, exit=True, file=_STDERR)
    try:
        yield
    finally:
        _limit_s = None
        faulthandler.cancel_dump_traceback_later()


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
        faulthandler.dump_traceback_later(_limit_s, exit=True, file=_STDERR)
