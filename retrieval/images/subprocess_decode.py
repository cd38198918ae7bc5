"""Photos opened in a process of their own, so that one that ends or stops it costs one photo.

multiprocessing's Process and Pipe, and not ProcessPoolExecutor: that has no public way to end a
worker that hangs, and its worker lives on when the process above it is killed.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Final, TypeAlias

from retrieval.errors import ImageError, RetrievalError
from retrieval.images import Preprocessing, Reason, watchdog
from retrieval.images.fetch import OpenedPhoto, open_photo

__all__ = ["IsolatedOpener", "Opener"]

Opener: TypeAlias = Callable[[bytes | ImageError, Preprocessing], OpenedPhoto]

# Never fork: threads of the process above may hold locks, of which the copy is never opened.
_SPAWN: Final = multiprocessing.get_context("spawn")
_START_S: Final = 120.0  # a second is usual; imports from a slow network drive take longer
# Beyond the child's own watchdog, which does not count its wait for other large photos.
_SLACK_S: Final = 600.0
_DYING_S: Final = 10.0  # a core dump may be written first
_READY: Final = "ready"
_starting: Final = threading.Lock()  # the environment is of the whole process


class IsolatedOpener:
    """Opens photos in a child process; after one that ended it a new child serves the next.

    A context manager: leaving it ends the child. The child starts with the first photo, which
    takes about a second. If this process is killed the child ends by itself: when it waits for
    the next photo at once, else when its time is up.
    """

    def __init__(self, timeout_s: float, opener: Opener = open_photo) -> None:
        """Remember what to run.

        Args:
            timeout_s: Seconds that one photo may take.
            opener: What opens a photo; a function of a module, which the child imports.
        """
        self._timeout_s = timeout_s
        self._opener = opener
        self._child: _Child | None = None

    def __enter__(self) -> IsolatedOpener:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_child()

    def open(self, content: bytes | ImageError, preprocessing: Preprocessing) -> OpenedPhoto:
        """Open one photo, as `open_photo` does.

        Returns:
            The photo. Where the decoder brought its process down the reason is `crashed`,
            and where it did not come to an end within the time, `timed_out`.

        Raises:
            RetrievalError: the child does not start, which is no photo's fault.
            Exception: what the opener raised.

        Cost: beside the opening 0.3 ms and 4 ms a MB, for the way to the child.
        """
        if isinstance(content, ImageError):
            return open_photo(content, preprocessing)
        if self._child is not None and not self._child.process.is_alive():
            self._end_child()  # killed between two photos: not by the next one
        self._child = self._child or _Child(self._opener, self._timeout_s)
        begun = time.monotonic()
        answer = self._child.ask((content, preprocessing), self._timeout_s + _SLACK_S)
        if isinstance(answer, OpenedPhoto):
            return answer
        if isinstance(answer, Exception):
            raise answer
        return self._refuse(content, waited_s=time.monotonic() - begun)

    def _refuse(self, content: bytes, waited_s: float) -> OpenedPhoto:
        """What becomes of a photo that the child did not answer; ends the child."""
        exit_code = self._end_child()
        sha256 = hashlib.sha256(content).hexdigest()
        if waited_s >= self._timeout_s and exit_code in (watchdog.EXIT_CODE, None):
            message = f"the decoder did not come to an end in {self._timeout_s:g} s"
            return OpenedPhoto(sha256, reason=Reason.TIMED_OUT, message=message)
        message = f"the decoder ended its process ({_in_words(exit_code)})"
        return OpenedPhoto(sha256, reason=Reason.CRASHED, message=message)

    def _end_child(self) -> int | None:
        child, self._child = self._child, None
        return child.end() if child else None


class _Child:
    """A process that opens photos, and our end of the pipe to it."""

    def __init__(self, opener: Opener, timeout_s: float) -> None:
        self._pipe, theirs = _SPAWN.Pipe()
        arguments = (theirs, opener, timeout_s)
        self.process: SpawnProcess = _SPAWN.Process(target=_serve, args=arguments, daemon=True)
        try:
            with _safe_path():
                self.process.start()
        finally:
            theirs.close()  # with the child's own copy the last one goes, and we read its end
        # Waited for, or else a child that cannot even start would cost one photo after another.
        if self._receive(_START_S) is not None:
            return
        exit_code = self.end()
        raise RetrievalError(
            f"A process to decode photos in did not start ({_in_words(exit_code)}). "
            f"Its own words are on stderr, or in the worker's log."
        )

    def ask(self, request: tuple[bytes, Preprocessing], limit_s: float) -> object:
        """The child's answer, or None where there is none."""
        try:
            self._pipe.send(request)
        except OSError:
            return None
        return self._receive(limit_s)

    def _receive(self, limit_s: float) -> object:
        try:
            return self._pipe.recv() if self._pipe.poll(limit_s) else None
        except (EOFError, OSError):  # it ended, before or in the middle of its answer
            return None

    def end(self) -> int | None:
        """Make sure that the process is gone.

        Returns:
            The exit code of one that had ended by itself: -N for signal N. None if it had not.
        """
        is_ending = self._pipe.poll()  # all answers are read: only the pipe's end is left to read
        self.process.join(_DYING_S if is_ending else 0)  # the pipe closes a moment before
        exit_code = self.process.exitcode
        self.process.kill()
        self.process.join()
        self.process.close()
        self._pipe.close()
        return exit_code


@contextmanager
def _safe_path() -> Iterator[None]:
    """Keep the current folder from the path of a child that begins in here.

    It begins by `python -c`, which would look there first for all that multiprocessing imports:
    a random.py beside somebody's photos would be run.
    """
    with _starting:
        before = os.environ.get("PYTHONSAFEPATH")
        os.environ["PYTHONSAFEPATH"] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONSAFEPATH"]
            else:
                os.environ["PYTHONSAFEPATH"] = before


def _serve(pipe: Connection, opener: Opener, timeout_s: float) -> None:
    """What the child does until the pipe's other end is closed, or goes with its process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the process above ends this one
    try:
        pipe.send(_READY)
        while True:
            content, preprocessing = pipe.recv()
            try:
                with watchdog.ends_after(timeout_s):
                    answer: OpenedPhoto | Exception = opener(content, preprocessing)
            except Exception as error:  # noqa: BLE001 - to be raised in the process above
                answer = error
            pipe.send(answer)
    except (EOFError, OSError):
        return


def _in_words(exit_code: int | None) -> str:
    if exit_code is None:
        return "it had to be killed"
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:  # a signal without a name of its own
        return f"signal {-exit_code}"
