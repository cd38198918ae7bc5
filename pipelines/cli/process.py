"""What a command's process may lack: streams that take what is written, and a home.

The report alone goes to stdout, and no stream ends a job.

Whoever started the command may have closed them, and a log may be full or have lost its reader.
What cannot be said on stderr is dropped, since the result counts. What a network of the user's or
a library prints to stdout, be it C, goes to stderr.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TextIO

from retrieval.private_folder import private_folder

__all__ = ["ensure_home", "flush_stdout", "for_the_report", "report_stream", "take_over"]

_report: TextIO | None = None  # where the report goes while a command runs


def take_over() -> bool:
    """Make the standard streams of this process safe to use; once, before anything is opened.

    Returns:
        Whether they are the process's own; those that a caller has put in place stay as they are.
    """
    is_own = sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__
    if not is_own:
        return False
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # else the next file that is opened would get what is printed
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it stays open
    encoding = sys.stderr.encoding if sys.stderr is not None and sys.stderr.isatty() else "utf-8"
    sys.stderr = io.TextIOWrapper(
        # Unbuffered: what a signal interrupts would be said again.
        _Dropping(2, "wb", closefd=False),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=True,
    )
    return True


class _Dropping(io.FileIO):
    """A file that loses what cannot be written to it."""

    def write(self, data: Any) -> int:  # noqa: ANN401 - whatever has a buffer
        rest = memoryview(data).cast("B")
        num_bytes = rest.nbytes
        with suppress(OSError):
            while rest:
                rest = rest[super().write(rest) or rest.nbytes :]
        return num_bytes


def for_the_report(command: Callable[..., Any]) -> Callable[..., Any]:
    """Keep stdout for the report while a command runs; what others print goes to stderr."""

    @wraps(command)
    def run(*args: Any, **settings: Any) -> Any:  # noqa: ANN401
        with _kept_for_the_report():
            return command(*args, **settings)

    return run


@contextmanager
def _kept_for_the_report() -> Iterator[None]:
    global _report
    stdout = sys.stdout
    if stdout is not sys.__stdout__:  # of a caller, who gets it back
        _report, sys.stdout = stdout, sys.stderr
        try:
            yield
        finally:
            sys.stdout = stdout
        return
    _report = None
    if stdout is not None:
        encoding = stdout.encoding if stdout.isatty() else "utf-8"
        stdout.flush()
        _report = io.TextIOWrapper(
            io.FileIO(os.dup(1), "w"), encoding=encoding, errors="backslashreplace"
        )
    # For good: what C has printed comes when this process ends.
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    yield


def report_stream() -> TextIO:
    """Where the report of the command that runs goes.

    Raises:
        OSError: stdout is closed.
    """
    stream = _report or sys.stdout
    if _report is None and stream is sys.stderr:
        raise OSError("it is closed")
    return stream


def flush_stdout() -> None:
    """Pass on what stdout holds back, or drop it: Python would tell of it when it ends."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        if sys.stdout is sys.__stdout__:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.close(nowhere)


def ensure_home() -> None:
    """Where there is no home, take a folder of this user's own for one, in Ray's workers too.

    Ray Train, Torch, Matplotlib and others look for theirs in it; some fail without, and some
    make a folder called "~" in the current one. A home that is there stays, though it may not be
    written: it can hold tokens and weights.
    """
    try:
        has_home = os.environ.get("HOME") != "" and Path.home().is_dir()
    except (RuntimeError, OSError):  # this user has no entry, or it may not be looked at
        has_home = False
    if not has_home and (folder := private_folder("retrieval-home")):
        os.environ["HOME"] = str(folder)
    if "USER" not in os.environ and not _has_name():
        os.environ["USER"] = f"user{os.geteuid()}"  # Torch names its caches by it


def _has_name() -> bool:
    import pwd

    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True
