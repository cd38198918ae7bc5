"""How long each step of a job took, for its report and for Prometheus."""

from __future__ import annotations

from pipelines.metrics import tell_seconds
from retrieval.step_timer import StepTimer

__all__ = ["Laps"]


class Laps(StepTimer):
    """Seconds of steps that follow each other, told to Prometheus as well."""

    def end(self, step: str) -> None:
        """End a step, or one more part of it; the next one begins."""
        super().end(step)
        tell_seconds(step, self.seconds[step])
