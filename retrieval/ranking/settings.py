"""Settings of a ranking. Pure data: the command line reads it at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrieval.ranges import COUNT, MANY, check_settings

if TYPE_CHECKING:
    from retrieval.vectors import VectorColumns

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

    top_k: int | None = 10
    metric: str = "cosine"
    exclude_self: bool = False
    num_threads: int | None = None
    num_actors: int | None = None
    memory_bytes: int | None = None
    columns: VectorColumns | None = None
    device: str = "cpu"
    allow_duplicates: bool = False
    previous: str | None = None

    def __post_init__(self) -> None:
        check_settings(self, {"num_threads": MANY, "num_actors": MANY, "memory_bytes": COUNT})

    def memory_for(self, num_threads: int) -> int:
        """Bytes that a process with so many threads may hold."""
        return self.memory_bytes or 2**30 + num_threads * 32 * 2**20
