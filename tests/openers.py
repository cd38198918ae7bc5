"""Openers of photos that really die and really hang, importable in worker processes."""

from __future__ import annotations

import ctypes
import os
import signal
import time

from retrieval.images.fetch import open_photo

CRASHES = b"this photo crashes the decoder"
HANGS = b"this photo hangs the decoder"
HOLDS_LOCK = b"this photo hangs the decoder, which holds the interpreter's lock"
EXITS = b"this photo makes the decoder call exit"
RAISES = b"this photo meets a bug"
STOPS = b"this photo stops the process, its watchdog too"
PROCESS_ID = b"this photo tells who opens it"


class Told(Exception):  # noqa: N818 - no error: how an opener tells something
    pass


def deadly(content, preprocessing):
    """As `open_photo`, but for the contents above."""
    if content == CRASHES:
        os.kill(os.getpid(), signal.SIGSEGV)
    elif content == HANGS:
        time.sleep(1000)
    elif content == HOLDS_LOCK:
        ctypes.PyDLL(None).sleep(1000)
    elif content == EXITS:
        os._exit(1)
    elif content == RAISES:
        raise ZeroDivisionError("a bug")
    elif content == STOPS:
        os.kill(os.getpid(), signal.SIGSTOP)
    elif content == PROCESS_ID:
        raise Told(os.getpid())
    return open_photo(content, preprocessing)


def _only_above(process_id):
    """An opener that cannot be loaded in any process but the one it was made in."""
    if os.getpid() != process_id:
        raise ImportError("no such module here")
    return deadly


class NotThere:
    """An opener that the child cannot load."""

    def __call__(self, content, preprocessing):
        return open_photo(content, preprocessing)

    def __reduce__(self):
        return _only_above, (os.getpid(),)
