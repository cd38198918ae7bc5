"""Who ranks: the threads of this process, or actors of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from pipelines.rank.placement import place_scorers
from pipelines.ray_runtime.cluster_options import Site, check_port
from retrieval.errors import UsageError
from retrieval.progress import Progress
from retrieval.ranking.executor import Executor, ThreadExecutor, Workers
from retrieval.ranking.search_parts import PRODUCTS, SearchTask
from retrieval.ranking.settings import RankConfig
from retrieval.search import available_cpus, whole_product_ns
from retrieval.storage import is_local
from retrieval.vectors import VectorSource

__all__ = ["RayExecutor", "choose_executor"]

# Connecting to a cluster and starting actors takes some five seconds. Work that this machine
# does in so many by the whole product, and mostly several times faster, is not sent there.
_SMALL_S = 10.0


class RayExecutor:
    """Actors of a cluster, of one CPU or one GPU each.

    Attributes:
        num_threads: Of each.
    """

    num_threads = 1

    def __init__(self, site: Site, num_actors: int | None) -> None:
        self._site, self._num_actors = site, num_actors

    def session(self) -> AbstractContextManager[None]:
        """See `Executor`: a connection to Ray."""
        # Ray is loaded only where it is used: that alone takes as long as ranking a small gallery.
        from pipelines.ray_runtime.session import session

        return session(self._site)

    def start(
        self, task: SearchTask, work_ns: float, on_part: Callable[[], None], progress: Progress
    ) -> Workers:
        """See `Executor`; returns when an actor has started."""
        from pipelines.rank.actors import Actors
        from pipelines.ray_runtime.nodes import resources

        there = resources(self._site)
        task = task.on_device(has_gpu=there.num_gpus > 0)
        place = place_scorers(there, self._num_actors, work_ns, on_gpu=task.device == "cuda")
        return Actors(task, place, self._site, on_part)


def choose_executor(
    queries: VectorSource, gallery: VectorSource, config: RankConfig, site: Site
) -> Executor:
    """Actors where they are asked for, or on a cluster what is not small; else threads.

    Raises:
        UsageError: this machine alone is asked for, and a cluster as well.
        ClusterError: nobody answers at the address.
    """
    if config.num_threads and (site.address or site.asks_for_nodes):
        other = "`min_cpus`, `min_gpus` or `site.labels`"
        other = f"`address` {site.address}" if site.address else other
        raise UsageError(
            f"`num_threads` {config.num_threads}: asks for this machine alone, but {other} "
            f"for a cluster. Leave one of them out."
        )
    if _uses_ray(queries, gallery, config, site):
        return RayExecutor(site, config.num_actors)
    return ThreadExecutor(config.num_threads)


def _uses_ray(queries: VectorSource, gallery: VectorSource, config: RankConfig, site: Site) -> bool:
    if config.num_actors or site.asks_for_nodes:
        return True
    if config.num_threads or not site.has_cluster:
        return False
    if not _is_small(queries, gallery, config):
        return True
    if site.address:
        check_port(site.address)  # a wrong address is an error, used or not
    return False


def _is_small(queries: VectorSource, gallery: VectorSource, config: RankConfig) -> bool:
    """Whether it is done here before a cluster has begun; all else is reason to ask that."""
    if config.metric not in PRODUCTS or config.device != "cpu":
        return False
    if not (is_local(queries.uri) and is_local(gallery.uri)):
        return False
    core_ns = gallery.num_rows * whole_product_ns(queries.num_rows, gallery.dim)
    return core_ns * 1e-9 <= _SMALL_S * available_cpus()
