"""Photos that take much memory are decoded one at a time on a machine.

A worker decodes one photo at a time, but a machine has a worker per CPU. 16 photos of 120
megapixels with transparency take 16 GiB side by side, and WebP twice that; one takes 1-2 GiB.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from retrieval.images.watchdog import not_counted

__all__ = ["LARGE_PIXELS", "one_at_a_time"]

# Up to here the peak is 0.1 GiB (RGB) to 0.4 GiB (WebP), which a CPU's share of memory holds.
# Photos from cameras are above it, but as JPEG: that is reduced while it is decoded.
LARGE_PIXELS: Final = 24_000_000
# The largest photo takes 3 s. Whoever holds the lock for so long that others wait for this is
# stopped or hangs: better much memory than a job that stands still.
_WAIT_S: Final = 300.0
_LOOK_EVERY_S: Final = 0.05


@contextmanager
def one_at_a_time(num_pixels: int) -> Iterator[None]:
    """Run the block alone on this machine if it holds more than LARGE_PIXELS.

    Among the processes and threads of one user. Where there can be no lock, the block runs
    without. A process that dies gives the lock back.

    Args:
        num_pixels: Pixels that are in memory at once.
    """
    descriptor = _open_lock() if num_pixels > LARGE_PIXELS else None
    if descriptor is None:
        yield
        return
    try:
        with not_counted():
            _wait_for(descriptor)
        yield
    finally:
        # Closing alone would not do: a process forked meanwhile has a copy of the descriptor.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _lock_path() -> Path:
    return Path(tempfile.gettempdir(), f"retrieval-large-photo-{os.getuid()}.lock")


def _open_lock() -> int | None:
    """A description of the lock's file of its own, so that threads exclude each other too."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(_lock_path(), flags, 0o600)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid():
        return descriptor
    os.close(descriptor)  # another user's, who could hold it for ever
    return None


def _wait_for(descriptor: int) -> None:
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOOK_EVERY_S)
        except OSError:  # a file system without locks
            return
        else:
            return
