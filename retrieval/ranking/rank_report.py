"""What a run says of itself: the two sides, the settings, and how the lists were found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from retrieval.format_version import FORMAT_VERSION
from retrieval.ranking.files import RANKING_FORMAT
from retrieval.ranking.plan import Plan
from retrieval.ranking.sides import describe
from retrieval.search import BlockPlan, score_rule

__all__ = ["RankReport", "RankedSides", "sides_of"]


@dataclass(frozen=True, kw_only=True)
class RankedSides:
    """What is ranked, and how.

    Attributes:
        queries, gallery: The two sides, as `describe` tells them.
        metric: How near is told.
        score_rule: The rule of the scores; see `retrieval.search.score_rule`.
        top_k: Images listed for each query.
        is_complete: Whether they are all of the gallery.
        exclude_self: Whether the image with the query's own id is left out.
        num_queries, num_gallery: Rows of the two sides.
    """

    queries: Mapping[str, Any]
    gallery: Mapping[str, Any]
    metric: str
    score_rule: int
    top_k: int
    is_complete: bool
    exclude_self: bool
    num_queries: int
    num_gallery: int


@dataclass(frozen=True, kw_only=True)
class RankReport(RankedSides):
    """What a run has ranked.

    Attributes:
        ranking: The folder.
        ids_sum: What tells the ids of other tools' files; None for an index.
        num_rows: Rows of all parts.
        created_at: When it was finished, in UTC.
        plan: Queries that were ranked at a time, and gallery rows that were read at a time.
        num_resumed_parts: Parts that an earlier run had written.
        previous: The previous ranking, if one was named.
        num_spared_queries: Queries for which that made a full scan needless.
        certificate: How each block of queries was found.
        seconds: Of each step.
    """

    ranking: str
    ids_sum: Mapping[str, str | None]
    num_rows: int
    created_at: str
    plan: BlockPlan
    num_resumed_parts: int
    previous: str | None
    num_spared_queries: int
    certificate: Sequence[Mapping[str, Any]]
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The facts of _ranking.json, in their order there."""
        found = asdict(self)
        return {FORMAT_VERSION: RANKING_FORMAT, "ranking": found.pop("ranking"), **found}


def sides_of(plan: Plan) -> dict[str, Any]:
    """The fields of `RankedSides`."""
    config = plan.config
    return {
        "queries": describe(plan.queries),
        "gallery": describe(plan.gallery),
        "metric": config.metric,
        "score_rule": score_rule(config.metric),
        "top_k": plan.k,
        # With exclude_self only "all" is: a query outside the gallery has one image more.
        "is_complete": config.top_k is None or plan.k == plan.gallery.num_rows,
        "exclude_self": config.exclude_self,
        "num_queries": plan.queries.num_rows,
        "num_gallery": plan.gallery.num_rows,
    }
