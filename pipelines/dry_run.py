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

__all__ = ["Capacity", "Estimate", "ResourceRequest", "connected", "look_around"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a job would do.

    Attributes:
        facts: What this job alone has to say, counts above all, by the names of its report.
        read_bytes, write_bytes: How many, by what for.
        work: What `Capacity.plan` gives, and what a job adds; None where there is nothing to do:
            then the facts are all.
        expected_seconds: Where an earlier run has measured a rate; else None.
    """

    facts: Mapping[str, Any]
    read_bytes: Mapping[str, Any] = field(default_factory=dict)
    write_bytes: Mapping[str, Any] = field(default_factory=dict)
    work: Mapping[str, Any] | None = None
    expected_seconds: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The estimate as it is printed."""
        report = {"dry_run": True, **self.facts}
        if self.work is None:
            return report
        return {
            **report,
            "read_bytes": dict(self.read_bytes),
            "write_bytes": dict(self.write_bytes),
            **self.work,
            "expected_seconds": self.expected_seconds,
        }


@dataclass(frozen=True)
class ResourceRequest:
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
class Capacity:
    """Where a job would run.

    Attributes:
        there: The nodes that it may use.
        found_on: "this machine" or "the cluster"; "what is asked for" where the cluster has no
            node yet that it may use: then the plan is for one node of --min-cpus and --min-gpus.
    """

    there: Resources
    found_on: str

    def plan(self, requests: Sequence[ResourceRequest]) -> dict[str, Any]:
        """The plan's `work` and `nodes`.

        Returns:
            `work`: for each request what it books, and how many there are of it in all; `nodes`:
            nodes that are alike together, with what each would hold and need; `are_enough`:
            whether all find room, in memory too, where that is known.
        """
        capacities = [NodeCapacity(node) for node in self.there.nodes]
        lacking = [request.name for request in requests if not all(_place(request, capacities))]
        alike = Counter(tuple(capacity.as_json(requests).items()) for capacity in capacities)
        nodes = [{"num_nodes": num, **dict(facts)} for facts, num in alike.items()]
        short = [node for node in nodes if node["lacks_memory_bytes"]]
        return {
            "work": {request.name: _as_json(request, capacities) for request in requests},
            "planned_for": self.found_on,
            "nodes": [{**node, "holds": dict(node["holds"])} for node in nodes],
            "are_enough": not lacking and not short and self.found_on != "what is asked for",
            **({"no_room_for": lacking} if lacking else {}),
        }


@dataclass
class NodeCapacity:
    """What is left of a node, and what it holds."""

    node: Node
    holds: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.cpus, self.gpus = float(self.node.num_cpus), float(self.node.num_gpus)
        self.memory_bytes = self.node.memory_bytes or math.inf

    def has_room(self, request: ResourceRequest) -> bool:
        # Memory holds nobody back whose number is given: what lacks is told instead.
        needed = 0 if request.num else request.memory_bytes
        return (
            self.cpus >= request.num_cpus - 1e-9
            and self.gpus >= request.num_gpus - 1e-9
            and self.memory_bytes >= needed
        )

    def take(self, request: ResourceRequest) -> None:
        self.cpus -= request.num_cpus
        self.gpus -= request.num_gpus
        self.memory_bytes -= request.memory_bytes
        self.holds[request.name] += 1

    def as_json(self, requests: Sequence[ResourceRequest]) -> dict[str, Any]:
        """Hashable values, so that nodes that are alike can be counted."""
        needed = sum(request.memory_bytes * self.holds[request.name] for request in requests)
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


def _place(request: ResourceRequest, capacities: Sequence[NodeCapacity]) -> list[bool]:
    """Put a request where most room is left, as Ray spreads it; whether each has found some."""
    if request.num is None:
        for capacity in capacities:
            while capacity.has_room(request):
                capacity.take(request)
        return [any(capacity.holds[request.name] for capacity in capacities)]
    found = []
    for _ in range(request.num):
        fitting = [capacity for capacity in capacities if capacity.has_room(request)]
        found.append(bool(fitting))
        if fitting:
            max(fitting, key=lambda capacity: (capacity.gpus, capacity.cpus)).take(request)
    return found


def _as_json(request: ResourceRequest, capacities: Sequence[NodeCapacity]) -> Mapping[str, Any]:
    num = request.num
    if num is None:
        num = sum(capacity.holds[request.name] for capacity in capacities)
    return {
        "num": num,
        "num_cpus": request.num_cpus,
        "num_gpus": request.num_gpus,
        "memory_bytes": request.memory_bytes,
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


def look_around(site: Site) -> Capacity:
    """The nodes that a job may use.

    Raises:
        ClusterError: the cluster cannot be reached.
    """
    if not site.has_cluster:
        return Capacity(this_machine(), "this machine")
    with connected(site):
        found = usable(site, present())
    if found.nodes:
        return Capacity(found, "the cluster")
    return Capacity(Resources((Node(site.min_cpus, site.min_gpus),)), "what is asked for")
