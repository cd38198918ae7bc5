"""The ranking of the night's queries, brought up to date with the version that was committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipelines import rank
from pipelines.metrics import Laps
from pipelines.progress import STDERR, announce
from pipelines.ray_runtime.cluster_options import Site
from pipelines.reindex.config import ReindexConfig
from retrieval.errors import RetrievalError, StorageError, UsageError
from retrieval.evaluation import evaluate
from retrieval.index import open_index
from retrieval.ranking.files import Ranking, open_ranking
from retrieval.ranking.sides import holds_ranked
from retrieval.report_page import write_report
from retrieval.search import score_rule
from retrieval.storage import absolute_uri, file_exists

__all__ = ["NightRanking", "rank_version"]


@dataclass(frozen=True, kw_only=True)
class NightRanking:
    """The ranking of a version.

    Attributes:
        ranking, report: Addresses of its folder and of its page.
        num_queries, num_gallery: Ranked ones.
        num_spared_queries: Of whose lists the ranking before was enough; None if none was used.
        is_anew: Whether anything was ranked.
        figures: Accuracy, where the queries have labels.
    """

    ranking: str
    report: str
    num_queries: int
    num_gallery: int
    num_spared_queries: int | None
    is_anew: bool
    figures: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """As the record of the night has it."""
        return {
            "ranking": self.ranking,
            "report": self.report,
            "num_queries": self.num_queries,
            "num_gallery": self.num_gallery,
            "num_spared_queries": self.num_spared_queries,
            "is_anew": self.is_anew,
            **self.figures,
        }


def rank_version(
    queries: str, index: str, version: int, config: ReindexConfig, laps: Laps, site: Site
) -> NightRanking:
    """Bring the ranking and its page up to date.

    Args:
        queries: Index of the queries.
        index: Of the gallery.
        version: The version that is ranked.
        config: Settings of the night.
        laps: Where the time of the steps is told.
        site: Where it is ranked.

    Raises:
        RetrievalError: as `rank` and `report` do; says that the version is committed.
    """
    rankings = absolute_uri(str(config.rankings))
    try:
        is_anew = _rank(queries, index, version, rankings, config.rank, site)
        laps.end("rank")
        if is_anew or not file_exists(config.page):
            write_report(rankings, config.page, progress=STDERR)
        laps.end("report")
        figures = _figures(rankings, queries, index)
    except RetrievalError as error:
        raise type(error)(
            f"{error} Version {version} of {index} is committed; the same command again "
            f"goes on with its ranking."
        ) from error
    facts = open_ranking(rankings).facts
    return NightRanking(
        ranking=rankings,
        report=absolute_uri(config.page),
        num_queries=facts["num_queries"],
        num_gallery=facts["num_gallery"],
        num_spared_queries=facts.get("num_spared_queries"),
        is_anew=is_anew,
        figures=figures,
    )


def _rank(
    queries: str, index: str, version: int, rankings: str, config: rank.RankConfig, site: Site
) -> bool:
    """Rank what has changed; false if the ranking is of these very versions."""
    settings = _fitting(config, open_index(index, version).num_rows)
    before = _finished(rankings)
    if before is not None:
        if _is_current(before, queries, index, version, settings):
            return False
        try:
            incremental = replace(settings, previous=rankings)
            rank.run(queries, index, rankings, incremental, site=site)
            return True
        except UsageError as error:
            announce(f"Ranking all anew: {error}")
    rank.run(queries, index, rankings, settings, site=site)
    return True


def _fitting(settings: rank.RankConfig, num_rows: int) -> rank.RankConfig:
    """The settings; a gallery smaller than top_k is ranked whole."""
    if settings.top_k is not None and settings.top_k > num_rows:
        return replace(settings, top_k=num_rows)
    return settings


def _finished(rankings: str) -> Ranking | None:
    try:
        return open_ranking(rankings)
    except StorageError:
        return None


def _is_current(
    ranking: Ranking, queries: str, gallery: str, version: int, settings: rank.RankConfig
) -> bool:
    """Whether a ranking is of what these versions hold, by these settings."""
    facts = ranking.facts
    top_k = facts.get("num_gallery") if settings.top_k is None else settings.top_k
    is_alike = (
        facts.get("metric"),
        ranking.score_rule,
        facts.get("top_k"),
        facts.get("exclude_self"),
    ) == (settings.metric, score_rule(settings.metric), top_k, settings.exclude_self)
    sides = {"queries": open_index(queries), "gallery": open_index(gallery, version)}
    return is_alike and all(
        holds_ranked(facts.get(name) or {}, index) for name, index in sides.items()
    )


def _figures(rankings: str, queries: str, gallery: str) -> dict[str, float]:
    """Accuracy, where the queries have labels."""
    try:
        found = evaluate(rankings, queries, gallery).to_json()
    except UsageError:
        return {}
    shown: dict[str, float] = {
        name: found[name] for name in ("top_1", "top_3", "top_10") if name in found
    }
    # Of a ranking that stops early it is cut, which `evaluate` says beside it: see docs/metrics.md.
    return {
        **shown,
        f"map_cut_{found['depth']}" if found["map_is_lower_bound"] else "map": found["map"],
    }
