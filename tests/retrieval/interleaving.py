"""Jobs that take turns, step by step, in an order that a seed gives.

Each job runs in a thread of its own and stops at every place that `breakpoints.reached` names.
One goes on at a time, and a job may be ended at a place, as kill -9 would there.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

_PATIENCE_S = 60.0


class Killed(BaseException):
    """The end of a job at a place; no handler of errors sees it."""


@dataclass
class Job:
    """What one of them does.

    Attributes:
        name: For people.
        work: The job.
        dies_after: Steps after which it is killed; None if it is not.
        result, error: What came of it.
        places: Where it has stopped.
    """

    name: str
    work: Callable[[], Any]
    dies_after: int | None = None
    result: Any = None
    error: BaseException | None = None
    places: list[str] = field(default_factory=list)
    is_done: bool = False

    def __post_init__(self) -> None:
        self.go = threading.Semaphore(0)


class Turns:
    """Who goes on, and until where."""

    def __init__(self, jobs: list[Job], numbers: random.Random) -> None:
        self._jobs, self._numbers = jobs, numbers
        self._stopped = threading.Semaphore(0)
        self._current: Job | None = None
        self._is_over = False
        self.history: list[str] = []

    def run(self, after_step: Callable[[], None]) -> None:
        """Let all come to their end; calls `after_step` whenever one has stopped."""
        self._run_in(self._at_random(), after_step)

    def run_in(self, script: list[tuple[int, int]], after_step: Callable[[], None]) -> None:
        """The same in a given order: numbers of jobs, and steps of each; then all to their end."""
        self._run_in(
            (self._jobs[number] for number, times in script for _ in range(times)), after_step
        )

    def _at_random(self) -> Iterator[Job]:
        while waiting := [job for job in self._jobs if not job.is_done]:
            # Some go far at once: a job that meets another half-way is the rule, not all.
            steps = self._numbers.choice([1, 1, 2, 5, 20])
            yield from [self._numbers.choice(waiting)] * steps

    def _run_in(self, order: Iterator[Job], after_step: Callable[[], None]) -> None:
        threads = [threading.Thread(target=self._run, args=(job,)) for job in self._jobs]
        for thread in threads:
            thread.start()
        try:
            for job in chain(order, *([job] * 10_000 for job in self._jobs)):
                if not job.is_done:
                    self._let_go(job)
                    after_step()
        finally:
            self._is_over = True  # where the test has failed, all else ends too
            for job in self._jobs:
                job.go.release()
            for thread in threads:
                thread.join(_PATIENCE_S)

    def _let_go(self, job: Job) -> None:
        self._current = job
        job.go.release()
        assert self._stopped.acquire(timeout=_PATIENCE_S), f"{job.name} hangs: {job.places}"
        place = job.places[-1] if job.places and not job.is_done else "end"
        self.history.append(f"{job.name}: {place}")

    def _run(self, job: Job) -> None:
        job.go.acquire()
        try:
            job.result = job.work()
        except BaseException as error:  # noqa: BLE001 (the test judges it)
            job.error = error
        job.is_done = True
        self._stopped.release()

    def reached(self, name: str) -> None:
        """In the place of `breakpoints.reached`, in whatever thread of the job."""
        job = self._current
        if job is None:
            return
        if self._is_over:
            raise Killed(name)
        job.places.append(name)
        self._stopped.release()
        job.go.acquire()
        if self._is_over or (job.dies_after is not None and len(job.places) > job.dies_after):
            raise Killed(name)


def stop_at_every_place(patch, turns: Turns) -> None:
    """Have all of the index's modules stop where they say that they have reached a place."""
    for name, module in list(sys.modules.items()):
        if name.startswith("retrieval.index") and hasattr(module, "reached"):
            patch.setattr(module, "reached", turns.reached)
