"""Where the time of a run went, stage by stage, and what bounds it.

Every worker measures its own work, and the figures travel with the rows to whoever writes them.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ray_runtime.nodes import Resources

__all__ = ["STAGES", "Budget", "BusyTime", "Stopwatch", "budget", "seconds_of"]

# read       files fetched, until the last one of a batch is there
# decode     hashed, decoded, resized
# hand_over  Arrow tables made and taken apart; what Ray does with them is not in here
# forward    the network
# write      shards and rejects
STAGES = ("read", "decode", "hand_over", "forward", "write")


class Stopwatch:
    """Seconds of each stage for a batch, kept as columns of its rows."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def measure(self, stage: str, *, is_waiting: bool = False) -> Iterator[None]:
        """Add to a stage: seconds of this thread's CPU, or of the clock where it waits."""
        now = time.perf_counter if is_waiting else time.thread_time
        started = now()
        yield
        self.add(stage, now() - started)

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds that were measured in another way."""
        self._seconds[stage] += seconds

    def add_to(self, table: pa.Table) -> pa.Table:
        """The table with a column of seconds a row for each stage, added to what it has."""
        for stage, seconds in self._seconds.items():
            share = pa.array([seconds / max(1, table.num_rows)] * table.num_rows, pa.float64())
            name = f"{stage}_s"
            if name in table.column_names:
                place = table.column_names.index(name)
                table = table.set_column(place, name, pc.add(table[name], share))
            else:
                table = table.append_column(name, share)
        return table


class BusyTime:
    """Seconds in which at least one thread is inside: calls that share a GPU overlap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._since = 0.0
        self._seconds = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._num_inside:
                self._since = time.perf_counter()
            self._num_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            now = time.perf_counter()
            self._seconds += now - self._since
            self._since = now
            self._num_inside -= 1

    def take(self) -> float:
        """What came together since the last take: all takes add up to the whole."""
        with self._lock:
            seconds, self._seconds = self._seconds, 0.0
            return seconds


def seconds_of(table: pa.Table) -> Counter[str]:
    """Seconds of each stage, of all rows of a table."""
    names = {stage: f"{stage}_s" for stage in STAGES if f"{stage}_s" in table.column_names}
    return Counter({stage: pc.sum(table[name]).as_py() or 0.0 for stage, name in names.items()})


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Where the time went. What is of one image has no value where none was embedded.

    Attributes:
        start_s: Until the first network was ready.
        ms_per_photo: Of each stage on one core (the network's on one GPU, where there is one)
            for each photo embedded.
        num_cpus, num_gpus: Of the cluster.
        ceiling_photos_per_s: Photos embedded if all cores (or GPUs) did nothing but this work.
        share_of_ceiling: That was reached since the first network was ready (before that some
            photos are decoded already).
        bound_by: The stage that costs most, or "waiting" where less than half of the ceiling was
            reached.
    """

    start_s: float
    ms_per_photo: Mapping[str, float | None]
    num_cpus: int
    num_gpus: int
    ceiling_photos_per_s: float | None
    share_of_ceiling: float | None
    bound_by: str


def budget(
    parts: Iterable[Counter[str]],
    num_embedded: int,
    *,
    seconds: float,
    start_s: float,
    there: Resources,
) -> Budget:
    """The part of a report that tells a user what bounds the job.

    Args:
        parts: Seconds of each stage, of each write task.
        num_embedded: Photos that have an embedding now. What rejects cost is shared among them.
        seconds: From the start of the actors to the last shard.
        start_s: Of which until the first network was ready.
        there: Resources of the cluster.
    """
    total: Counter[str] = sum(parts, Counter())
    # Reading is no work of a core: many files are awaited at a time.
    on_cpu = ["decode", "hand_over", "write"] + ["forward"] * (not there.num_gpus)
    cpu_s = sum(total[stage] for stage in on_cpu) / there.num_cpus
    gpu_s = total["forward"] / there.num_gpus if there.num_gpus else 0.0
    least_s = max(cpu_s, gpu_s, 1e-9)  # of all the work, if nothing waited
    share = least_s / max(seconds - start_s, 1e-9)
    if share < 0.5:
        bound_by = "waiting"
    elif gpu_s > cpu_s:
        bound_by = "forward"
    else:
        bound_by = max(on_cpu, key=total.__getitem__)

    def per_photo(seconds: float) -> float | None:
        return round(1000 * seconds / num_embedded, 3) if num_embedded else None

    return Budget(
        start_s=round(start_s, 3),
        ms_per_photo={stage: per_photo(total[stage]) for stage in STAGES},
        num_cpus=there.num_cpus,
        num_gpus=there.num_gpus,
        ceiling_photos_per_s=round(num_embedded / least_s, 1) if num_embedded else None,
        share_of_ceiling=round(share, 3) if num_embedded else None,
        bound_by=bound_by,
    )
