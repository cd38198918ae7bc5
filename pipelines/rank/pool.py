"""Actors that take work as soon as they have started."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray
from ray.actor import ActorHandle

__all__ = ["Pool"]

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
