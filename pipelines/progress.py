"""One line on what a job is at: drawn on a terminal, printed now and then where stderr is a log."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from typing import Final

from pipelines import metrics
from retrieval.one_line import one_line, spelled
from retrieval.progress import Progress

__all__ = ["STDERR", "announce", "is_shown", "live_line", "progress_line", "status_line"]

_EVERY_S = 0.5
# In a log: a short job stays silent, and a night of eight hours makes a thousand lines.
_LOG_EVERY_S = 5.0
_LATER_S = 60.0
_LOG_LATER_EVERY_S = 30.0

_WRITING = threading.RLock()
_begun: list[_Reporter] = []  # one within the other; the last one has the line


def is_shown() -> bool:
    """Whether there is a terminal to draw on."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def status_line(text: str) -> Iterator[None]:
    """Show what is going on while the body runs, then wipe it away: the report follows.

    A log is told only of what takes longer: "still listing photos, 15 s".
    """
    start = time.monotonic()

    def still() -> str:
        return text if is_shown() else f"still {text}, {time.monotonic() - start:.0f} s"

    with live_line(text, still):
        yield


@contextmanager
def live_line(first: str, text: Callable[[], str]) -> Iterator[None]:
    """Show a text that changes while the body runs, then wipe it away.

    Args:
        first: What a terminal shows at the start.
        text: Gives the line; called every half second, or every 5 s where stderr is a log, from
            another thread. Should it fail, the line stops and the body goes on.
    """
    with _Reporter(first, text):
        yield


@contextmanager
def progress_line(
    verb: str, unit: str, total: int, done: Callable[[], int | Mapping[str, int] | None]
) -> Iterator[None]:
    """Show "embedded 420 of 738 photos, 24.0/s, about 13 s left" while the body runs.

    A log is told at the end, too, if it was told on the way. The figures go to `metrics` as well;
    a body that ends without an error has done all.

    Args:
        verb: What is being done, in the past tense.
        unit: What is counted, in the plural.
        total: How many there are.
        done: How many are finished; of several stages, by their verbs; None if nobody counts.
            Called as the text of `live_line`.
    """
    start, pace, items = time.monotonic(), _Pace(), metrics.Items(verb, unit, total)
    counts = {verb: 0}

    def text() -> str:
        found, seconds = done(), time.monotonic() - start
        if found is None:
            return f"{total} {unit} being {verb}, {seconds:.0f} s"
        counts.update(found if isinstance(found, Mapping) else {verb: found})
        items.tell({stage: min(count, total) for stage, count in counts.items()})
        return describe(unit, total, counts, seconds, pace.add(seconds, counts[verb]))

    with _Reporter(describe(unit, total, counts, 0), text) as reporter:
        yield
    items.tell(dict.fromkeys(counts, total))
    seconds = time.monotonic() - start
    if reporter.has_logged:
        _log(f"{verb} {total} {unit} in {_duration(seconds)}, {total / seconds:.1f}/s")


def announce(text: str) -> None:
    """Print a line that stays, also in a log; a line that is being drawn gives way to it.

    Control characters in it are spelled, and credentials left out.
    """
    with _WRITING:
        _wipe()
        _write(f"{one_line(text)}\n")


class _Stderr:
    """What functions of the library that take a `retrieval.progress.Progress` are handed here."""

    def status(self, text: str) -> AbstractContextManager[None]:
        return status_line(text)

    def line(
        self, verb: str, unit: str, total: int, done: Callable[[], int | Mapping[str, int] | None]
    ) -> AbstractContextManager[None]:
        return progress_line(verb, unit, total, done)

    def say(self, text: str) -> None:
        announce(text)


STDERR: Final[Progress] = _Stderr()


def describe(
    unit: str,
    total: int,
    counts: Mapping[str, int],
    seconds: float,
    recent: tuple[float, float] | None = None,
) -> str:
    """The text of a progress line.

    Args:
        unit: What is counted, in the plural.
        total: How many there are.
        counts: How many are done: first by the verb of the step, then of the stages before it.
        seconds: Since the start.
        recent: Items a second of late, and the seconds that this is about.

    Example:
        >>> describe("photos", 738, {"embedded": 420}, 17.5)
        'embedded 420 of 738 photos, 24.0/s, about 13 s left'
        >>> describe("photos", 9, {"embedded": 4, "decoded": 6}, 8.0, (0.6, 5.0))
        'embedded 4 of 9 photos (6 decoded, 2 waiting), 0.5/s (last 5 s: 0.6/s), about 10 s left'
    """
    (verb, num_done), *stages = counts.items()
    text = f"{verb} {num_done} of {total} {unit}"
    if stages and any(counts.values()):
        seen = [f"{count} {stage}, {max(0, count - num_done)} waiting" for stage, count in stages]
        text += f" ({'; '.join(seen)})"
    if not num_done:
        return text
    rate = num_done / seconds
    text += f", {rate:.1f}/s"
    if recent is not None:
        text += f" (last {recent[1]:.0f} s: {recent[0]:.1f}/s)"
    return f"{text}, about {_duration(max(0, total - num_done) / rate)} left"


def _duration(seconds: float) -> str:
    """A time that a person can take in.

    Example:
        >>> [_duration(seconds) for seconds in (13.2, 700, 25_000)]
        ['13 s', '12 min', '6.9 h']
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _log_every_s(seconds: float) -> float:
    """Seconds between two lines of a log, so long after the first."""
    return _LOG_EVERY_S if seconds < _LATER_S else _LOG_LATER_EVERY_S


class _Pace:
    """How fast it goes of late: over as long as a log waits from line to line."""

    def __init__(self) -> None:
        self._seen = deque([(0.0, 0)])

    def add(self, seconds: float, num_done: int) -> tuple[float, float] | None:
        """Items a second of late, and of how many seconds; None if that is since the start."""
        self._seen.append((seconds, num_done))
        # Not quite as long, since no thread wakes on time.
        while seconds - self._seen[1][0] > 0.9 * _log_every_s(seconds):
            self._seen.popleft()
        then, before = self._seen[0]
        return ((num_done - before) / (seconds - then), seconds - then) if then else None


class _Reporter:
    """A thread that shows a text while a body runs.

    Attributes:
        has_logged: Whether a log was told.
    """

    def __init__(self, first: str, text: Callable[[], str]) -> None:
        self.has_logged = False
        self._first, self._text = first, text
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Reporter:
        _begun.append(self)
        _draw(self._first)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        _begun.remove(self)
        _draw("")

    def _run(self) -> None:
        start = due = time.monotonic()
        while not self._stop.wait(_EVERY_S if is_shown() else _LOG_EVERY_S):
            if _begun[-1] is not self:
                continue
            try:
                text = self._text()
                metrics.tell_again()
            except Exception:  # noqa: BLE001 - a lost connection, say: the job itself will tell
                return
            now = time.monotonic()
            if is_shown():
                _draw(text)
            elif now >= due:
                _log(text)
                self.has_logged = True
                due = now + 0.9 * _log_every_s(now - start)


def _log(text: str) -> None:
    announce(f"{datetime.now():%H:%M:%S} {text}")


def _draw(text: str) -> None:
    """Replace the line, on a terminal; a longer one than fits could not be wiped away."""
    if is_shown():
        with _WRITING:
            _wipe()
            _write(spelled(text)[: shutil.get_terminal_size().columns - 1])


def _wipe() -> None:
    if is_shown():
        _write("\r\033[K")


def _write(text: str) -> None:
    """Say it, if it can be said: a full log, or one whose reader has gone, ends no job."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()
