"""The job: where it runs, and the library's ranking there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pipelines.metrics import Laps
from pipelines.progress import STDERR
from pipelines.rank.executor import choose_executor
from pipelines.ray_runtime.cluster_options import Site
from retrieval.ranking.estimate import estimate_ranking
from retrieval.ranking.files import check_ranking_place
from retrieval.ranking.folder import check_places
from retrieval.ranking.plan import choose_k
from retrieval.ranking.settings import RankConfig
from retrieval.ranking.sides import open_side
from retrieval.ranking.write import write_ranking

__all__ = ["estimate", "run"]


def run(
    queries: str,
    gallery: str,
    ranking: str,
    config: RankConfig,
    *,
    site: Site = Site(),
    is_kept_inside: bool = False,
) -> dict[str, Any]:
    """Rank the gallery for each query and write the ranking.

    Args:
        queries: Index or vectors of the queries.
        gallery: Index or vectors of the gallery.
        ranking: Folder of the ranking; one that is there is replaced at the end. Parts of a
            killed run of the same inputs and settings are kept and not ranked again.
        config: Settings.
        site: Where it runs. Without an address or a wish for nodes, and without a Ray that is
            already running here, this process ranks alone.
        is_kept_inside: Whether the ranking may lie inside the gallery's index, which then knows
            its place.

    Returns:
        The report, which is also in _ranking.json.
    """
    if not is_kept_inside:
        check_places(queries, gallery, ranking, config.previous)
    laps = Laps()
    with STDERR.status("opening the two sides"):
        sides = open_side(queries, config.columns), open_side(gallery, config.columns)
        choose_k(*sides, config)  # before a cluster is asked
        executor = choose_executor(*sides, config, site)
    report = write_ranking(*sides, ranking, config, executor=executor, progress=STDERR, timer=laps)
    return report.to_json()


def estimate(
    queries: str,
    gallery: str,
    config: RankConfig,
    *,
    ranking: str | None = None,
    site: Site = Site(),
) -> dict[str, Any]:
    """What a run would read and write, and about how long it would take; writes nothing.

    The time is that of the arithmetic, from a sample of the gallery, on the CPUs of this
    machine; reading from a slow store comes on top.
    """
    if ranking is not None:
        check_places(queries, gallery, ranking, config.previous)
        check_ranking_place(ranking)
    sides = open_side(queries, config.columns), open_side(gallery, config.columns)
    choose_k(*sides, config)
    executor = choose_executor(*sides, config, site)
    return {"dry_run": True, **asdict(estimate_ranking(*sides, config, executor=executor))}
