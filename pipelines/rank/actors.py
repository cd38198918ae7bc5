"""Ranking by actors of a Ray cluster."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import ray
from numpy.typing import NDArray
from ray.actor import ActorHandle

from pipelines.progress import live_line
from pipelines.rank.placement import Placement
from pipelines.ray_runtime.cluster_options import Site
from pipelines.ray_runtime.nodes import no_gpu_found
from pipelines.ray_runtime.wait import start_text
from retrieval.ranking.search_parts import (
    PartialTopK,
    SearchTask,
    initial_thresholds,
    search_parts,
    this_machine_has_gpu,
)
from retrieval.search import Neighbours
from retrieval.vectors import Sample, VectorBlock, VectorPart

__all__ = ["Actors", "Pool"]

_SHARES_PER_ACTOR = 4  # cut finer than actors, so that none waits long for the last
_SAMPLE_QUERIES = 1024  # that an actor compares with the sample at a time
_COUNTS = ("pairs", "scored", "survivors", "rescored")


@ray.remote(max_restarts=4, max_task_retries=4)
class Scorer:
    """Searches parts of the gallery. Holds no state, so a lost one is replaced."""

    def __init__(self, task: SearchTask) -> None:
        self._task = task

    def is_ready(self) -> None:
        """Answers as soon as the actor has started."""

    def initial_thresholds(self, queries: NDArray[Any], sample: Sample) -> NDArray[np.float64]:
        """Keys that the k nearest rows of some queries will very likely reach."""
        return initial_thresholds(self._task, queries, sample, num_threads=1)

    def search(
        self,
        queries: VectorBlock,
        basis: NDArray[np.float32] | None,
        parts: Sequence[VectorPart],
        floors: NDArray[np.float64],
    ) -> PartialTopK:
        """The k nearest of these parts for each query.

        Raises:
            ClusterError: the node has GPUs to book, but CUDA finds none.
        """
        if self._task.device == "cuda" and not this_machine_has_gpu():
            raise no_gpu_found(", or rank with `device` cpu")
        return search_parts(self._task, queries, parts, basis, floors, num_threads=1)


class Actors:
    """Actors of a Ray cluster: one a CPU, or one a GPU."""

    def __init__(
        self, task: SearchTask, place: Placement, site: Site, on_part: Callable[[], None]
    ) -> None:
        """Start the actors.

        Args:
            task: What to rank.
            place: How many there are, and what each of them books.
            site: Where they are.
            on_part: Called for each part of the gallery that a block of queries has met.
        """
        actor = Scorer.options(  # type: ignore[attr-defined]
            num_cpus=place.num_cpus, num_gpus=place.num_gpus, **site.label_options
        )
        actors = [actor.remote(task) for _ in range(place.num_actors)]
        self._task, self._num_actors, self._on_part = task, place.num_actors, on_part
        self._pool = Pool(actors)
        start, on_gpus = time.monotonic(), bool(place.num_gpus)
        with live_line("starting", lambda: start_text("the actors", start, on_gpus=on_gpus)):
            self._pool.wait_for_one()

    def initial_thresholds(self, queries: VectorBlock, sample: Sample) -> NDArray[np.float64]:
        """See `retrieval.ranking.executor.Workers`."""
        sent = ray.put(sample)
        starts = range(0, len(queries.ids), _SAMPLE_QUERIES)
        found = dict(
            self._pool.map(
                lambda actor, start: actor.initial_thresholds.remote(
                    queries.vectors[start : start + _SAMPLE_QUERIES], sent
                ),
                starts,
            )
        )
        return np.concatenate([found[number] for number in sorted(found)])

    def search(
        self,
        queries: VectorBlock,
        parts: Sequence[VectorPart],
        basis: NDArray[np.float32] | None,
        nearest: Neighbours,
    ) -> dict[str, Any]:
        """See `retrieval.ranking.executor.Workers`."""
        sent, sent_basis = ray.put(queries), ray.put(basis)
        certificates = []
        # A share is sent when an actor is free for it, with the floors of that moment: what
        # others have found by then need not be beaten twice.
        for _, partial in self._pool.map(
            lambda actor, share: actor.search.remote(
                sent, sent_basis, share, nearest.floors.copy()
            ),
            _shares(parts, _SHARES_PER_ACTOR * self._num_actors),
        ):
            # Merged as they come, so that the driver holds two answers and not all.
            nearest.take(partial.found, self._task.metric)
            certificates.append(partial.certificate)
            for _part in range(partial.num_parts):
                self._on_part()
        return _combined(certificates)


def _combined(certificates: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One for all shares: counts are summed, of all else the first stands for all."""
    first = certificates[0]
    sums = {name: sum(other[name] for other in certificates) for name in _COUNTS if name in first}
    return {**first, **sums, "shares": len(certificates)}


def _shares(parts: Sequence[VectorPart], num_shares: int) -> list[list[VectorPart]]:
    """Deal parts out so that the shares have about equally many rows: the largest first."""
    shares: list[list[VectorPart]] = [[] for _ in range(min(num_shares, len(parts)))]
    rows = [0] * len(shares)
    for part in sorted(parts, key=lambda part: (-part.num_rows, part.file.uri, part.first_row)):
        smallest = rows.index(min(rows))
        shares[smallest].append(part)
        rows[smallest] += part.num_rows
    return shares


_Task = TypeVar("_Task")


class Pool:
    """Actors of one class, of which some may never start.

    `ray.util.ActorPool` sends work to all of them at once. On a full cluster that locks: each of
    several jobs has one actor at work and waits for the answer of another one that has no room,
    while its own room is what the others wait for. Here work goes to who is there.
    """

    def __init__(self, actors: Sequence[ActorHandle]) -> None:
        """Nothing is waited for.

        Args:
            actors: Of a class with a method `is_ready`.
        """
        self._starting = {actor.is_ready.remote(): actor for actor in actors}
        self._idle: list[ActorHandle] = []

    def wait_for_one(self) -> None:
        """Return when an actor has started; raises what its start has raised."""
        if not self._idle:
            (started,), _ = ray.wait([*self._starting], num_returns=1)
            self._welcome(started)

    def map(
        self, send: Callable[[ActorHandle, _Task], ray.ObjectRef[Any]], tasks: Sequence[_Task]
    ) -> Iterator[tuple[int, Any]]:
        """Give each task to an actor that is free for it.

        Args:
            send: Calls a method of an actor for a task; called when the actor is free.
            tasks: In the order in which they are begun.

        Yields:
            Number and result of each task, in the order in which they end.
        """
        todo = deque(enumerate(tasks))
        at_work: dict[ray.ObjectRef[Any], tuple[int, ActorHandle]] = {}
        while todo or at_work:
            while todo and self._idle:
                number, task = todo.popleft()
                actor = self._idle.pop()
                at_work[send(actor, task)] = number, actor
            # Who starts is of use only while something is left to do.
            wanted = [*at_work, *(self._starting if todo else ())]
            (ended,), _ = ray.wait(wanted, num_returns=1)
            if ended in at_work:
                number, actor = at_work.pop(ended)
                self._idle.append(actor)
                yield number, ray.get(ended)
            else:
                self._welcome(ended)

    def _welcome(self, started: ray.ObjectRef[Any]) -> None:
        self._idle.append(self._starting.pop(started))
        ray.get(started)  # what its start has raised
