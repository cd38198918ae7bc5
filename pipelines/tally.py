"""A count that workers add to and the driver's progress line reads."""

from __future__ import annotations

import ray

__all__ = ["Tally"]


@ray.remote(num_cpus=0)
class Tally:
    """Counts finished photos, for the progress line."""

    def __init__(self) -> None:
        self._total = 0

    def add(self, count: int) -> None:
        """Count some more."""
        self._total += count

    def total(self) -> int:
        """All so far."""
        return self._total
