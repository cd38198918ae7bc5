"""Settings of a ranking. Pure data: the command line reads it at once."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.choices import DEVICES, METRICS
from retrieval.settings import (
    COUNT,
    GIBIBYTES,
    MANY,
    Unit,
    check_settings,
    metric_name,
    number_or_all,
    setting,
)
from retrieval.vector_columns import VectorColumns

__all__ = ["RankConfig"]


@dataclass(frozen=True, kw_only=True)
class RankConfig:
    """Settings of a ranking.

    Attributes:
        top_k: Neighbours of each query; None ranks the whole gallery.
        metric: "cosine", "ip", "l2", "l1", or "minkowski:P" with P ≥ 1.
        exclude_self: Leave out the gallery image with the query's own id.
        num_threads: Threads of this process, where no cluster is used; by default all cores.
            Naming a number asks for this process alone.
        num_actors: Actors of a cluster that share the gallery, at most one per CPU or GPU; by
            default as many as there is work for. Naming a number asks for Ray.
        memory_bytes: What one process may hold; by default 1 GiB, and 32 MiB a thread.
        columns: Where other tools' files keep ids and vectors.
        device: "cpu", "cuda", or "auto": a GPU if there is one and the metric is a product.
        allow_duplicates: Rank a gallery that has an id more than once.
        previous: A ranking of earlier versions of the same indexes: only what has changed
            since is ranked.
    """

    top_k: int | None = setting(10, "Images to list for each query, or all.", parse=number_or_all)
    metric: str = setting(
        "cosine",
        "How near two vectors are; of l2, l1 and minkowski:P smaller is nearer.",
        shape="|".join((*METRICS, "minkowski:P")),
        parse=metric_name,
    )
    exclude_self: bool = setting(False, "Leave out the image with the query's own id.")
    memory_bytes: int | None = setting(
        None,
        "What one process may hold. [default: 1, and 1/32 a thread]",
        numbers=COUNT,
        unit=Unit(name="memory_gib", size=2**30, numbers=GIBIBYTES),
    )
    num_threads: int | None = setting(
        None,
        "Threads; asks for this machine alone. [default: without a cluster, one a core]",
        numbers=MANY,
    )
    num_actors: int | None = setting(
        None,
        "Ray actors, at most one a CPU or GPU; asks for Ray. [default: on a cluster, as many as "
        "have work]",
        numbers=MANY,
    )
    device: str = setting(
        "cpu",
        "cuda: a GPU; auto: where there is one. That engine has run on one kind of GPU alone so "
        "far, and so it has to be asked for: check what it ranks by `verify`.",
        choices=DEVICES,
    )
    previous: str | None = setting(
        None,
        "Ranking of earlier versions of the same indexes: rank only what has changed since.",
        shape="RANKING",
    )
    allow_duplicates: bool = setting(False, "Rank a gallery with equal ids.")
    columns: VectorColumns | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    def memory_for(self, num_threads: int) -> int:
        """Bytes that a process with so many threads may hold."""
        return self.memory_bytes or 2**30 + num_threads * 32 * 2**20
