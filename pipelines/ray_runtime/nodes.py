"""The machines that a job may work on, as Ray counts them; plans are made of these numbers.

Loads neither Ray nor torch by itself: a plan can be made where neither runs.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.ray_runtime.cluster_options import Site
from retrieval.errors import ClusterError

__all__ = [
    "HARDLY_ANY_CPU",
    "LOCAL_CPUS",
    "Node",
    "Resources",
    "beside_the_driver",
    "local_store_bytes",
    "no_gpu_found",
    "present",
    "resources",
    "this_machine",
    "usable",
]

# CPUs are Ray's units of booking: decoding and the network need one each.
LOCAL_CPUS = max(2, len(os.sched_getaffinity(0)))

# Booked by what would else keep a CPU until its job ends, and by what hardly counts; with none at
# all it would go to a head node that runs no work.
HARDLY_ANY_CPU = 0.001

# Decoded photos wait here between the stages of `embed`. A fixed size keeps memory flat
# whatever the number of photos; Ray's own default is 30 % of the machine. Ray Data lets its
# stages fill half of it: each CPU decodes 20 MB in a task, and as much waits for the network.
_LOCAL_STORE_BYTES = 768 * 2**20
_STORE_BYTES_A_CPU = 192 * 2**20

_HEAD = "node:__internal_head__"  # a resource that Ray gives the head alone


@dataclass(frozen=True)
class Node:
    """A machine.

    Attributes:
        num_cpus, num_gpus: What it offers for booking.
        memory_bytes: For work; the object store is beside it.
        store_bytes: Of the object store, where what tasks hand to each other lies.
        labels: Of Ray.
        is_head: Whether the cluster's control processes run there.
    """

    num_cpus: int
    num_gpus: int = 0
    memory_bytes: int = 0
    store_bytes: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    is_head: bool = False


@dataclass(frozen=True)
class Resources:
    """The machines that a job may work on: those with a CPU, and with the labels asked for."""

    nodes: tuple[Node, ...]

    @property
    def node_cpus(self) -> tuple[int, ...]:
        """CPUs of each node."""
        return tuple(node.num_cpus for node in self.nodes)

    @property
    def num_cpus(self) -> int:
        """CPUs of all nodes."""
        return sum(node.num_cpus for node in self.nodes)

    @property
    def num_gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(node.num_gpus for node in self.nodes)

    def cpus_of_a_feeder(self, actors_a_gpu: int = 1) -> float:
        """CPUs that an actor books beside its GPU, or beside its part of one.

        One, so that no other work takes the core that feeds the GPU. Where a node has fewer than
        two for each actor, they share one half of its CPUs: the other half is for decoding, which
        would else have no room on a cluster of such nodes alone.

        Raises:
            ValueError: there is no GPU.
        """
        scarcest = min(
            node.num_cpus / (node.num_gpus * actors_a_gpu) for node in self.nodes if node.num_gpus
        )
        return min(1.0, math.floor(50 * scarcest) / 100)


def present() -> list[Node]:
    """All nodes of the cluster that is connected, also those that have nothing to offer."""
    import ray

    return [_node(found) for found in ray.nodes() if found["Alive"]]


def _node(found: Mapping[str, Any]) -> Node:
    offered = found["Resources"]
    return Node(
        num_cpus=int(offered.get("CPU", 0)),
        num_gpus=int(offered.get("GPU", 0)),
        memory_bytes=int(offered.get("memory", 0)),
        store_bytes=int(offered.get("object_store_memory", 0)),
        labels=dict(found.get("Labels") or {}),
        is_head=_HEAD in offered,
    )


def resources(site: Site, nodes: list[Node] | None = None) -> Resources:
    """What a job may use of the cluster that is connected.

    Args:
        site: Only nodes that carry its labels count.
        nodes: Those to choose from; by default all that are there.

    Raises:
        ClusterError: none of them has a CPU. (`session` has waited for one; it has gone
            since.)
    """
    found = usable(site, present() if nodes is None else nodes)
    if not found.nodes:
        raise ClusterError(
            f"Ray: no node of the cluster{_with(site.labels)} has a CPU to work with. Add workers."
        )
    return found


def usable(site: Site, nodes: list[Node]) -> Resources:
    """Those of some nodes that have a CPU and the labels; perhaps none."""
    wanted = site.labels.items()
    return Resources(
        tuple(node for node in nodes if node.num_cpus >= 1 and wanted <= node.labels.items())
    )


def _with(labels: Mapping[str, str]) -> str:
    return "".join(f" with {key}={value}" for key, value in labels.items())


def this_machine() -> Resources:
    """What a Ray of this process alone would have; asked without starting one.

    Cost: loads torch, which takes seconds, where there is a driver of a GPU.
    """
    store_bytes = local_store_bytes()
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") - store_bytes
    node = Node(LOCAL_CPUS, _num_local_gpus(), max(0, memory_bytes), store_bytes, is_head=True)
    return Resources((node,))


def _num_local_gpus() -> int:
    if not Path("/dev/nvidiactl").exists():
        return 0
    import torch

    return torch.cuda.device_count()


def no_gpu_found(otherwise: str = "") -> ClusterError:
    """What a worker tells whose node offers GPUs, but torch finds none; and what else to do."""
    return ClusterError(
        f"Ray: node {socket.gethostname()} offers GPUs, but torch finds none there. Mend its "
        f"driver or its torch{otherwise}."
    )


def local_store_bytes() -> int:
    """Size of the object store of a Ray of this process alone."""
    return max(_LOCAL_STORE_BYTES, LOCAL_CPUS * _STORE_BYTES_A_CPU)


def beside_the_driver() -> dict[str, Any]:
    """Options that keep a small actor without a CPU on the driver's node.

    What books no CPU may land on any node. One that the driver looks at all the time belongs to
    the driver: it ends with it, and not with a spot machine; on the head of a cluster it weighs
    no more there than the driver itself.
    """
    import ray

    # Not by NodeAffinitySchedulingStrategy(soft=True): a node that is there was missed half the
    # time.
    return {"label_selector": {"ray.io/node-id": ray.get_runtime_context().get_node_id()}}
