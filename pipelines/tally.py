"""A count that workers add to and the driver's progress line reads."""

from __future__ import annotations

import ray

from pipelines.progress import is_shown

__all__ = ["Tally"]


class Tally:
    """Counts what is finished; made by the driver, and sent to the workers.

    Where nobody looks at the progress it counts nothing: the count is kept by a process of its
    own, which takes a second or more to start.
    """

    def __init__(self) -> None:
        self._counter = _Counter.remote() if is_shown() else None  # type: ignore[attr-defined]

    def add(self, count: int) -> None:
        """Count some more; does not wait."""
        if self._counter is not None:
            self._counter.add.remote(count)

    def total(self) -> int:
        """All so far."""
        return 0 if self._counter is None else int(ray.get(self._counter.total.remote()))


@ray.remote(num_cpus=0)
class _Counter:
    def __init__(self) -> None:
        self._total = 0

    def add(self, count: int) -> None:
        self._total += count

    def total(self) -> int:
        return self._total
