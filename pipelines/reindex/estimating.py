"""What a night would do, for `--dry-run`: it lists and compares, and writes nothing."""

from __future__ import annotations

from typing import Any

from pipelines import embed
from pipelines.dry_run import connected
from pipelines.ray_runtime.cluster_options import Site
from pipelines.reindex.config import ReindexConfig
from pipelines.reindex.places import check_places
from pipelines.reindex.sides import following, index_at, index_for
from retrieval.index import EmbeddingSpec, is_index, open_index
from retrieval.index.table import may_hold_index
from retrieval.ranking.files import is_ranking
from retrieval.storage import absolute_uri

__all__ = ["estimate"]


def estimate(
    photos: str, index: str, config: ReindexConfig, *, site: Site = Site()
) -> dict[str, Any]:
    """What `run` would do, with the same arguments.

    Returns:
        The plan of `embed`; `queries` and `probe`, a plan of their own where they are folders of
        photos; `gate`, the bounds; `ranking`, how much there is to rank.

    Raises:
        RetrievalError: as `run` does before it starts Ray.
    """
    check_places(photos, index, config)
    with connected(site):
        plan = embed.estimate(photos, index, config.embed, site=site)
        spec = EmbeddingSpec(**plan["model"])
        sides = {
            name: _side(side, name, index, spec, config, site)
            for name, side in (("queries", config.queries), ("probe", config.gate.probe))
            if side is not None
        }
    report = {**plan, **sides}
    if config.gate.probe is not None or config.gate.max_removed is not None:
        report["gate"] = {**config.gate.bounds(), "max_removed": config.gate.max_removed}
    if config.queries is not None:
        report["ranking"] = _ranking(config, sides["queries"], plan["num_listed"])
    return report


def _side(
    side: str, name: str, index: str, spec: EmbeddingSpec, config: ReindexConfig, site: Site
) -> dict[str, Any]:
    if found := index_at(side, name, spec):
        return {"index": found.uri, "version": found.version, "num_rows": found.num_rows}
    is_followed = not config.embed.new_model and may_hold_index(index) and is_index(index)
    settings = following(config.embed, open_index(index) if is_followed else None)
    return embed.estimate(absolute_uri(side), index_for(name, index), settings, site=site)


def _ranking(config: ReindexConfig, queries: dict[str, Any], num_gallery: int) -> dict[str, Any]:
    """At most: rejects are not ranked, and a ranking that is there spares most of the work."""
    num_queries = queries["num_rows" if "num_rows" in queries else "num_listed"]
    top_k = min(config.rank.top_k or num_gallery, num_gallery)
    ranking = absolute_uri(str(config.rankings))
    return {
        "ranking": ranking,
        "report": absolute_uri(config.page),
        "is_incremental": is_ranking(ranking),
        "num_queries_at_most": num_queries,
        "num_gallery_at_most": num_gallery,
        "top_k": top_k,
        "num_rows_at_most": num_queries * top_k,
    }
