"""Counts that workers add to and the driver's progress line reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b

import ray
from ray.exceptions import GetTimeoutError

from pipelines.progress import is_shown
from pipelines.ray_runtime.nodes import beside_the_driver

__all__ = ["Tally"]

# The counter is a process of its own: 0.9 s of a core until it counts, and 60 MB. So few items are
# done before a log would be told of them, or hardly later.
_FEW_ITEMS = 256
_PATIENCE_S = 1.0


class Tally:
    """Counts what is finished; made by the driver, and sent to the workers.

    A few items are counted only for a terminal. Without its counter a tally costs nothing.
    """

    def __init__(self, num_items: int) -> None:
        """Start the counter, if there is something to tell; does not wait for it.

        Args:
            num_items: How many are to be counted.
        """
        self._counter = None
        self._seen: Counter[str] = Counter()
        if is_shown() or num_items > _FEW_ITEMS:
            self._counter = _Counter.options(**beside_the_driver()).remote()  # type: ignore[attr-defined]

    def add(self, count: int, verb: str, batch: Sequence[str]) -> None:
        """Count some more to which this was done; does not wait.

        Args:
            count: How many.
            verb: What was done.
            batch: Tells them from all others of this verb; the first of their addresses does.
                When Ray repeats the work of a lost worker or node, the same batch is told again,
                and counts once.
        """
        if self._counter is not None:
            told = "\0".join((verb, *batch)).encode(errors="surrogatepass")
            self._counter.add.remote(count, verb, blake2b(told, digest_size=8).digest())

    def counts(self) -> Counter[str] | None:
        """All so far, by verb; what was known last where the counter is slow; None without one.

        Waits a second at most, so that a progress line can always be ended.
        """
        if self._counter is None:
            return None
        with suppress(GetTimeoutError):
            self._seen = ray.get(self._counter.counts.remote(), timeout=_PATIENCE_S)
        return self._seen


@ray.remote(num_cpus=0)
class _Counter:
    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._seen: set[bytes] = set()  # some 70 bytes a batch

    def add(self, count: int, verb: str, batch: bytes) -> None:
        if batch not in self._seen:
            self._seen.add(batch)
            self._counts[verb] += count

    def counts(self) -> Counter[str]:
        return self._counts
