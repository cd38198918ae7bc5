"""What a night would do, for `--dry-run`: it lists and compares, and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines import embed
from pipelines.dry_run import connected
from pipelines.embed import EmbedEstimate
from pipelines.ray_runtime.cluster_options import Site
from pipelines.reindex.config import ReindexConfig
from pipelines.reindex.sides import (
    check_places,
    following,
    index_at,
    index_for,
    is_probed_by_queries,
)
from retrieval.index import is_index, open_index
from retrieval.index.table import may_hold_index
from retrieval.ranking.files import is_ranking
from retrieval.storage import absolute_uri

__all__ = ["NightEstimate", "estimate"]


@dataclass(frozen=True, kw_only=True)
class KnownSide:
    """A side that is an index already."""

    index: str
    version: int
    num_rows: int

    def to_json(self) -> dict[str, Any]:
        """As it is printed."""
        return asdict(self)

    @property
    def most_rows(self) -> int:
        """How many there are to rank."""
        return self.num_rows


@dataclass(frozen=True, kw_only=True)
class NewSide:
    """A side that is a folder of images, which would be embedded."""

    plan: EmbedEstimate

    def to_json(self) -> dict[str, Any]:
        """As it is printed."""
        return self.plan.to_json()

    @property
    def most_rows(self) -> int:
        """How many there are to rank, if none is refused."""
        return self.plan.update.num_listed


@dataclass(frozen=True, kw_only=True)
class RankingEstimate:
    """How much there would be to rank, at most.

    Rejects are not ranked, and a ranking that is there spares most of the work.
    """

    ranking: str
    report: str
    is_incremental: bool
    num_queries_at_most: int
    num_gallery_at_most: int
    top_k: int
    num_rows_at_most: int


@dataclass(frozen=True, kw_only=True)
class NightEstimate:
    """What a night would do.

    Attributes:
        gallery: The plan of `embed`.
        sides: Queries and probe, by name, where the night has them.
        gate: The bounds; None where there is none.
        ranking: None where there are no queries.
    """

    gallery: EmbedEstimate
    sides: Mapping[str, KnownSide | NewSide]
    gate: Mapping[str, float | None] | None
    ranking: RankingEstimate | None

    def to_json(self) -> dict[str, Any]:
        """The estimate as it is printed."""
        report = self.gallery.to_json()
        report |= {name: side.to_json() for name, side in self.sides.items()}
        if self.gate is not None:
            report["gate"] = dict(self.gate)
        if self.ranking is not None:
            report["ranking"] = asdict(self.ranking)
        return report


def estimate(
    photos: str, index: str, config: ReindexConfig, *, site: Site = Site()
) -> NightEstimate:
    """What `run` would do, with the same arguments.

    Raises:
        RetrievalError: as `run` does before it starts Ray.
    """
    check_places(photos, index, config)
    with connected(site):
        gallery = embed.estimate(photos, index, config.embed, site=site)
        sides: dict[str, KnownSide | NewSide] = {}
        if config.queries is not None:
            sides["queries"] = _side(config.queries, "queries", gallery, config, site)
        if config.gate.probe is not None:
            probe = config.gate.probe
            is_same = is_probed_by_queries(config)
            sides["probe"] = (
                sides["queries"] if is_same else _side(probe, "probe", gallery, config, site)
            )
    gate = None
    if config.gate.probe is not None or config.gate.max_removed is not None:
        gate = {**config.gate.bounds(), "max_removed": config.gate.max_removed}
    ranking = None
    if config.queries is not None:
        ranking = _ranking(config, sides["queries"].most_rows, gallery.update.num_listed)
    return NightEstimate(gallery=gallery, sides=sides, gate=gate, ranking=ranking)


def _side(
    side: str, name: str, gallery: EmbedEstimate, config: ReindexConfig, site: Site
) -> KnownSide | NewSide:
    index = gallery.index
    if found := index_at(side, name, gallery.spec):
        return KnownSide(index=found.uri, version=found.version, num_rows=found.num_rows)
    is_followed = not config.embed.new_model and may_hold_index(index) and is_index(index)
    settings = following(config.embed, open_index(index) if is_followed else None)
    made = index_for(name, index)
    return NewSide(
        plan=embed.estimate(absolute_uri(side), made, settings, site=site, network=gallery.network)
    )


def _ranking(config: ReindexConfig, num_queries: int, num_gallery: int) -> RankingEstimate:
    top_k = min(config.rank.top_k or num_gallery, num_gallery)
    ranking = absolute_uri(str(config.rankings))
    return RankingEstimate(
        ranking=ranking,
        report=absolute_uri(config.page),
        is_incremental=is_ranking(ranking),
        num_queries_at_most=num_queries,
        num_gallery_at_most=num_gallery,
        top_k=top_k,
        num_rows_at_most=num_queries * top_k,
    )
