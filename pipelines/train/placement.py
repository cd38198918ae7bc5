"""How many workers train, what each of them books, and what travels to it."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.ray_runtime.cluster_options import Site
from pipelines.ray_runtime.nodes import HARDLY_ANY_CPU, Resources
from pipelines.train.config import TrainConfig
from retrieval.augmentations import Recipe
from retrieval.errors import UsageError

__all__ = ["DECODE_CPUS", "Placement", "WorkerPlan", "place_workers"]

DECODE_CPUS = 0.5  # of a task: two keep a CPU at work while one ends and the next begins

# Decoding tasks beside a training on the CPUs of a node, which takes far longer than decoding.
_DECODERS_OF_A_NODE = 2


@dataclass(frozen=True)
class Placement:
    """How many workers there are, and what each of them books.

    Attributes:
        num_workers: As many, or (least, most): elastic.
        num_threads: Threads of a worker on the CPU.
        num_cpus, num_gpus: What a worker books.
        num_decoders: Tasks that decode for a worker at a time; None for as many as there is room
            for.
    """

    num_workers: int | tuple[int, int]
    num_threads: int
    num_cpus: float
    num_gpus: int
    num_decoders: int | None = None


def place_workers(there: Resources, num_workers: int | tuple[int, int] | None) -> Placement:
    """One worker a GPU, or one a node without GPUs; CPUs are left for decoding.

    A worker on CPUs books hardly any: it keeps what it books until the training ends, and two
    trainings could book all CPUs, each waiting for ever for the other to let it decode.

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
                f"`num_workers` {least}: the cluster has {there.num_gpus} GPUs, and a worker needs "
                f"one of its own. Use at most {there.num_gpus}, or wait for more: `min_gpus`."
            )
        return Placement(num_workers or there.num_gpus, 1, there.cpus_of_a_feeder(), 1)
    nodes = len(there.node_cpus)
    most = most or nodes
    on_a_node = -(-most // nodes)
    cpus = min(there.node_cpus)
    return Placement(
        num_workers or nodes,
        num_threads=max(1, cpus // on_a_node),
        num_cpus=HARDLY_ANY_CPU,
        num_gpus=0,
        num_decoders=max(1, min(cpus, _DECODERS_OF_A_NODE) // on_a_node),
    )


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """All that a worker needs to know. Plain values: each builds its own network.

    Attributes:
        config: Settings of the job.
        recipe: The recipe that it names, read once by the driver.
        classes: Labels in the order of the head's rows.
        num_threads: Threads of a worker on the CPU.
        num_decoders: Tasks that decode for a worker at a time; None for as many as find room.
        split_uri: Parquet file with the photos, rows of SPLIT_SCHEMA.
        metrics_uri: Where the figures of the epochs are written, as JSON lines.
        site: Where photos are decoded.
    """

    config: TrainConfig
    recipe: Recipe
    classes: tuple[str, ...]
    num_threads: int
    num_decoders: int | None
    split_uri: str
    metrics_uri: str
    site: Site
