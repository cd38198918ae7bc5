"""Whether the nodes there are can do a job, and what each of them needs; for --dry-run.

Nothing runs for it. A cluster is asked for its nodes, if one is named; otherwise the plan is for
this machine, and Ray is not started.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipelines.ray_runtime.cluster_options import Site
from pipelines.ray_runtime.nodes import Node, Resources, present, this_machine, usable

__all__ = ["Crew", "Ground", "connected", "look_around"]


@dataclass(frozen=True)
class Crew:
    """Processes of one kind: actors, or tasks at a time.

    Attributes:
        name: In the plural.
        num: How many; None for as many as find room.
        num_cpus, num_gpus: What each books.
        memory_bytes: What each needs, about.
    """

    name: str
    num: int | None
    num_cpus: float
    num_gpus: float = 0
    memory_bytes: int = 0


@dataclass(frozen=True)
class Ground:
    """Where a job would run.

    Attributes:
        there: The nodes that it may use.
        found_on: "this machine" or "the cluster"; "what is asked for" where the cluster has no
            node yet that it may use: then the plan is for one node of --min-cpus and --min-gpus.
    """

    there: Resources
    found_on: str

    def plan(self, crews: Sequence[Crew]) -> dict[str, Any]:
        """The plan's `work` and `nodes`.

        Returns:
            `work`: for each crew what it books, and how many there are of it in all; `nodes`:
            nodes that are alike together, with what each would hold and need; `are_enough`:
            whether all find room, in memory too, where that is known.
        """
        rooms = [_Room(node) for node in self.there.nodes]
        lacking = [crew.name for crew in crews if not all(_place(crew, rooms))]
        alike = Counter(tuple(room.as_json(crews).items()) for room in rooms)
        nodes = [{"num_nodes": num, **dict(facts)} for facts, num in alike.items()]
        short = [node for node in nodes if node["lacks_memory_bytes"]]
        return {
            "work": {crew.name: _as_json(crew, rooms) for crew in crews},
            "planned_for": self.found_on,
            "nodes": [{**node, "holds": dict(node["holds"])} for node in nodes],
            "are_enough": not lacking and not short and self.found_on != "what is asked for",
            **({"no_room_for": lacking} if lacking else {}),
        }


@dataclass
class _Room:
    """What is left of a node, and what it holds."""

    node: Node
    holds: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.cpus, self.gpus = float(self.node.num_cpus), float(self.node.num_gpus)
        self.memory_bytes = self.node.memory_bytes or math.inf

    def has_room(self, crew: Crew) -> bool:
        # Memory holds nobody back whose number is given: what lacks is told instead.
        needed = 0 if crew.num else crew.memory_bytes
        return (
            self.cpus >= crew.num_cpus - 1e-9
            and self.gpus >= crew.num_gpus - 1e-9
            and self.memory_bytes >= needed
        )

    def take(self, crew: Crew) -> None:
        self.cpus -= crew.num_cpus
        self.gpus -= crew.num_gpus
        self.memory_bytes -= crew.memory_bytes
        self.holds[crew.name] += 1

    def as_json(self, crews: Sequence[Crew]) -> dict[str, Any]:
        """Hashable values, so that nodes that are alike can be counted."""
        needed = sum(crew.memory_bytes * self.holds[crew.name] for crew in crews)
        there = self.node.memory_bytes
        return {
            "num_cpus": self.node.num_cpus,
            "num_gpus": self.node.num_gpus,
            "memory_bytes": there or None,
            "object_store_bytes": self.node.store_bytes or None,
            "holds": tuple(self.holds.items()),
            "needs_memory_bytes": needed,
            "lacks_memory_bytes": max(0, needed - there) if there else 0,
        }


def _place(crew: Crew, rooms: Sequence[_Room]) -> list[bool]:
    """Put a crew where most room is left, as Ray spreads it; whether each has found some."""
    if crew.num is None:
        for room in rooms:
            while room.has_room(crew):
                room.take(crew)
        return [any(room.holds[crew.name] for room in rooms)]
    found = []
    for _ in range(crew.num):
        fitting = [room for room in rooms if room.has_room(crew)]
        found.append(bool(fitting))
        if fitting:
            max(fitting, key=lambda room: (room.gpus, room.cpus)).take(crew)
    return found


def _as_json(crew: Crew, rooms: Sequence[_Room]) -> Mapping[str, Any]:
    return {
        "num": sum(room.holds[crew.name] for room in rooms) if crew.num is None else crew.num,
        "num_cpus": crew.num_cpus,
        "num_gpus": crew.num_gpus,
        "memory_bytes": crew.memory_bytes,
    }


@contextmanager
def connected(site: Site) -> Iterator[None]:
    """Hold the connection to a cluster, if one is named, for several looks around it."""
    if not site.has_cluster:
        yield
        return
    from pipelines.ray_runtime.session import session  # only here: it takes a second to load

    with session(site, waits=False):
        yield


def look_around(site: Site) -> Ground:
    """The nodes that a job may use.

    Raises:
        ClusterError: the cluster cannot be reached.
    """
    if not site.has_cluster:
        return Ground(this_machine(), "this machine")
    with connected(site):
        found = usable(site, present())
    if found.nodes:
        return Ground(found, "the cluster")
    return Ground(Resources((Node(site.min_cpus, site.min_gpus),)), "what is asked for")
