"""What a run tells Prometheus, by way of the Ray that is connected; nothing without one.

Ray puts `ray_` before each name. The driver alone tells: of items where their progress line is
drawn, of seconds where a step ends, of rejects where they are counted. `verb` is the command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, Final

from retrieval.step_timer import StepTimer

__all__ = [
    "EXPECTED",
    "ITEMS",
    "REJECTS",
    "STEP_SECONDS",
    "Items",
    "Laps",
    "of_verb",
    "tell_again",
    "tell_rejects",
    "tell_seconds",
]

ITEMS: Final = "retrieval_items_total"
EXPECTED: Final = "retrieval_items_expected"
REJECTS: Final = "retrieval_rejects_total"
STEP_SECONDS: Final = "retrieval_step_seconds"

_LABELS: Final[Mapping[str, tuple[str, ...]]] = {
    ITEMS: ("verb", "step", "unit"),
    EXPECTED: ("verb", "step", "unit"),
    REJECTS: ("reason",),
    STEP_SECONDS: ("verb", "step"),
}
_COUNTERS: Final = (ITEMS, REJECTS)

_verb: ContextVar[str] = ContextVar("verb", default="")
_gauges: dict[tuple[str, tuple[str, ...]], float] = {}


@contextmanager
def of_verb(verb: str) -> Iterator[None]:
    """Name the command whose figures those of the body are."""
    before = _verb.set(verb)
    try:
        yield
    finally:
        _verb.reset(before)
        _gauges.clear()


class Items:
    """What a step counts, for the driver's thread that draws its progress."""

    def __init__(self, step: str, unit: str, expected: int) -> None:
        """Tell how many there will be.

        Args:
            step: What is done to them, in the past tense.
            unit: What is counted, in the plural.
            expected: How many there are.
        """
        self._verb, self._unit = _verb.get(), unit
        self._told: dict[str, int] = {}
        _gauges[EXPECTED, (self._verb, step, unit)] = expected
        tell_again()

    def tell(self, counts: Mapping[str, int]) -> None:
        """Tell how many are done by now, of this step and of those before it."""
        for step, count in counts.items():
            more = count - self._told.get(step, 0)
            if more > 0:
                _tell(ITEMS, (self._verb, step, self._unit), more)
                self._told[step] = count


def tell_rejects(reasons: Mapping[str, int]) -> None:
    """Tell of photos that were refused just now, by reason."""
    for reason, count in reasons.items():
        if count:
            _tell(REJECTS, (reason,), count)


def tell_seconds(step: str, seconds: float) -> None:
    """Tell how long a step took; if Ray starts later, then."""
    _gauges[STEP_SECONDS, (_verb.get(), step)] = seconds
    tell_again()


def tell_again() -> None:
    """Repeat all gauges: Ray forgets one that is not told for some 20 seconds."""
    for (name, labels), value in list(_gauges.items()):
        _tell(name, labels, value)


def _tell(name: str, labels: tuple[str, ...], value: float) -> None:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    metric, tags = _metric(name), dict(zip(_LABELS[name], labels, strict=True))
    if name in _COUNTERS:
        metric.inc(value, tags)
    else:
        metric.set(value, tags)


@cache
def _metric(name: str) -> Any:  # noqa: ANN401 - Ray, which is not loaded here, has its types
    from ray.util import metrics

    kind = metrics.Counter if name in _COUNTERS else metrics.Gauge
    return kind(name, tag_keys=_LABELS[name])


class Laps(StepTimer):
    """Seconds of steps that follow each other, told to Prometheus as well."""

    def end(self, step: str) -> None:
        """End a step, or one more part of it; the next one begins."""
        super().end(step)
        tell_seconds(step, self.seconds[step])
