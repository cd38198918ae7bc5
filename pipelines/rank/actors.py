"""Ranking by actors of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from pipelines import cluster
from pipelines.rank.folding import Folded, Task, fold, guess
from retrieval.search import Neighbours
from retrieval.vectors import Sample, VectorBlock, VectorPart

__all__ = ["Actors"]

# Nanoseconds of work that keep an actor busy for about a second, which is what starting one
# costs: little work is done by few actors.
_NS_PER_ACTOR = 1e9
_SHARES_PER_ACTOR = 4  # cut finer than actors, so that none waits long for the last
_GUESS_QUERIES = 1024  # whose floors an actor guesses at a time
_COUNTS = ("pairs", "scored", "survivors", "rescored")


@ray.remote(num_cpus=1, max_restarts=4, max_task_retries=4)
class Scorer:
    """Folds parts of the gallery. Holds no state, so a lost one is replaced."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def guess(self, queries: NDArray[Any], sample: Sample) -> NDArray[np.float64]:
        """Keys that the k nearest rows of some queries will very likely reach."""
        return guess(self._task, queries, sample, num_threads=1)

    def fold(
        self,
        queries: VectorBlock,
        basis: NDArray[np.float32] | None,
        parts: Sequence[VectorPart],
        floors: NDArray[np.float64],
    ) -> Folded:
        """The k nearest of these parts for each query."""
        return fold(self._task, queries, parts, basis, floors, num_threads=1)


class Actors:
    """Actors of a Ray cluster: one a CPU, or one a GPU."""

    def __init__(
        self, task: Task, num_actors: int | None, work_ns: float, on_part: Callable[[], None]
    ) -> None:
        """Start the actors.

        Args:
            task: What to rank.
            num_actors: How many; by default as many as have about a second to do.
            work_ns: Nanoseconds of one core that the whole job is expected to take.
            on_part: Called for each part of the gallery that a block of queries has met.
        """
        found = cluster.resources()
        is_gpu = task.device == "cuda"
        # An actor books a CPU or GPU; one more than there are would never start.
        most = int(found.num_gpus) if is_gpu else found.num_cpus
        useful = most if is_gpu else 1 + int(work_ns / _NS_PER_ACTOR)
        count = max(1, min(num_actors or useful, most))
        actor = Scorer.options(num_gpus=int(is_gpu))  # type: ignore[attr-defined]
        actors = [actor.remote(task) for _ in range(count)]
        self._task, self._num_actors, self._on_part = task, count, on_part
        self._pool = ray.util.ActorPool(actors)

    def guess(self, queries: VectorBlock, sample: Sample) -> NDArray[np.float64]:
        """See `sharing.Workers`."""
        sent = ray.put(sample)
        starts = range(0, len(queries.ids), _GUESS_QUERIES)
        found = self._pool.map(
            lambda actor, start: actor.guess.remote(
                queries.vectors[start : start + _GUESS_QUERIES], sent
            ),
            starts,
        )
        return np.concatenate(list(found))

    def rank(
        self,
        queries: VectorBlock,
        parts: Sequence[VectorPart],
        basis: NDArray[np.float32] | None,
        start: Neighbours,
    ) -> dict[str, Any]:
        """See `sharing.Workers`."""
        sent, sent_basis = ray.put(queries), ray.put(basis)
        certificates = []
        # A share is sent when an actor is free for it, with the floors of that moment: what
        # others have found by then need not be beaten twice.
        for folded in self._pool.map_unordered(
            lambda actor, share: actor.fold.remote(sent, sent_basis, share, start.floors.copy()),
            _shares(parts, _SHARES_PER_ACTOR * self._num_actors),
        ):
            # Folded as they come, so that the driver holds two answers and not all.
            start.take(folded.found, self._task.metric)
            certificates.append(folded.certificate)
            for _ in range(folded.num_parts):
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
