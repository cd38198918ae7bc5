"""How long each step of some work took, for its report."""

from __future__ import annotations

import time

__all__ = ["StepTimer"]


class StepTimer:
    """Seconds of steps that follow each other.

    Attributes:
        seconds: Of each step that has ended, by its name.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def end(self, step: str) -> None:
        """End a step, or one more part of it; the next one begins."""
        now = time.monotonic()
        self.seconds[step] = round(self.seconds.get(step, 0.0) + now - self._last, 3)
        self._last = now
