"""What of a training travels to its workers."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.ray_runtime.cluster_options import Site
from pipelines.train.config import TrainConfig
from retrieval.augmentations import Recipe

__all__ = ["WorkerPlan"]


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
