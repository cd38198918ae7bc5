"""How many workers train, and what each of them books."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipelines.nodes import Resources
from retrieval.errors import UsageError

__all__ = ["Placement", "place_workers"]


@dataclass(frozen=True)
class Placement:
    """How many workers there are, and what each of them books.

    Attributes:
        num_workers: As many, or (least, most): elastic.
        num_threads: Threads of a worker on the CPU.
        num_cpus, num_gpus: What a worker books.
    """

    num_workers: int | tuple[int, int]
    num_threads: int
    num_cpus: float
    num_gpus: int


def place_workers(there: Resources, num_workers: int | tuple[int, int] | None) -> Placement:
    """One worker a GPU, or one a node without GPUs; CPUs are left for decoding.

    Args:
        there: Resources of the cluster.
        num_workers: As many as the user asks for, or (least, most), if so.

    Raises:
        UsageError: more workers at least than GPUs: two cannot share one.
    """
    least, most = num_workers if isinstance(num_workers, tuple) else (num_workers, num_workers)
    if there.num_gpus:
        if least and least > there.num_gpus:
            raise UsageError(
                f"--num-workers {least}: the cluster has {there.num_gpus} GPUs, and a worker needs "
                f"one of its own. Use at most {there.num_gpus}, or wait for more: --min-gpus."
            )
        return Placement(num_workers or there.num_gpus, 1, there.cpus_of_a_feeder(), 1)
    nodes = len(there.node_cpus)
    most = most or nodes
    on_a_node = -(-most // nodes)
    cpus = min(there.node_cpus)
    # One CPU of each node is for decoding. Ray counts CPUs, it does not pin them.
    booked = (cpus - 1) / on_a_node if cpus > 1 else 0.5 / on_a_node
    booked = int(booked) if booked >= 1 else math.floor(100 * booked) / 100
    return Placement(num_workers or nodes, max(1, cpus // on_a_node), booked, 0)
