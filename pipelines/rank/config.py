"""Settings of the job, and whether they fit the two sides."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.errors import MismatchError, UsageError
from retrieval.ranges import COUNT, MANY, check_settings
from retrieval.search import METRICS, minkowski_power
from retrieval.vectors import VectorColumns, VectorSource

__all__ = ["RankConfig", "choose_k"]


@dataclass(frozen=True, kw_only=True)
class RankConfig:
    """Settings of the job.

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


def choose_k(queries: VectorSource, gallery: VectorSource, config: RankConfig) -> int:
    """The k to rank; refuses sides that do not belong together.

    Raises:
        UsageError: no such metric, or k is outside the gallery.
        MismatchError: the sides are of different dimensions or models.
    """
    if config.metric not in METRICS and minkowski_power(config.metric) is None:
        raise UsageError(
            f"--metric {config.metric}: unknown. Use one of {', '.join(METRICS)}, or minkowski:P "
            f"with P ≥ 1, as in minkowski:3."
        )
    if queries.dim != gallery.dim:
        raise MismatchError(
            f"{gallery.uri}: embeddings of {gallery.dim} dimensions, but those of {queries.uri} "
            f"have {queries.dim}. Embed both with the same model."
        )
    ours, theirs = queries.spec, gallery.spec
    if ours and theirs and ours.fingerprint != theirs.fingerprint:
        raise MismatchError(
            f"{gallery.uri}: made by {theirs.backbone} with fingerprint "
            f"{theirs.fingerprint[:12]}, but {queries.uri} by {ours.backbone} with "
            f"{ours.fingerprint[:12]}. Embed both with the same model, weights and preprocessing."
        )
    most = gallery.num_rows - config.exclude_self
    k = gallery.num_rows if config.top_k is None else config.top_k
    if config.top_k is not None and not 1 <= k <= most:
        without = " other than the query itself" if config.exclude_self else ""
        raise UsageError(
            f"--top-k {k}: {gallery.uri} has {most} images{without}. Use 1 to {most}, or all."
        )
    return k
