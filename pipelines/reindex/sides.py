"""Queries and probe as indexes of the model that the night has."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipelines import embed
from pipelines.embed import EmbedConfig
from pipelines.reindex.config import ReindexConfig
from retrieval.errors import MismatchError
from retrieval.index import EmbeddingSpec, Index, is_index, open_index
from retrieval.index.table import may_hold_index
from retrieval.storage import absolute_uri, is_same_place, join

__all__ = ["Sides", "embed_sides", "following", "index_at", "index_for", "is_probed_by_queries"]


@dataclass(frozen=True)
class Sides:
    """Addresses of the indexes of queries and probe; None for one that the night has not."""

    queries: str | None
    probe: str | None


def embed_sides(config: ReindexConfig, prepared: embed.Prepared, executor: embed.Executor) -> Sides:
    """Bring queries and probe up to date by the gallery's network, if they are folders of images.

    Their indexes lie in that of the gallery, under "_queries" and "_probe". A probe that is the
    queries is embedded once, as these; one that nothing is measured on, not at all.

    Args:
        config: Settings of the night.
        prepared: The gallery's next version.
        executor: Who embeds them.

    Raises:
        MismatchError: one is an index of another model.
        RetrievalError: as `embed` does.
    """
    probe = None if prepared.candidate.is_unchanged else config.gate.probe
    queries_index = probe_index = None
    if config.queries is not None:
        queries_index = _as_index(config.queries, "queries", config.embed, prepared, executor)
    if probe is not None and is_probed_by_queries(config):
        probe_index = queries_index
    elif probe is not None:
        probe_index = _as_index(probe, "probe", config.embed, prepared, executor)
    return Sides(queries_index, probe_index)


def is_probed_by_queries(config: ReindexConfig) -> bool:
    """Whether queries and probe are the same place."""
    queries, probe = config.queries, config.gate.probe
    return queries is not None and probe is not None and is_same_place(queries, probe)


def _as_index(
    side: str, name: str, config: EmbedConfig, prepared: embed.Prepared, executor: embed.Executor
) -> str:
    gallery = prepared.candidate.index
    if found := index_at(side, name, gallery.spec):
        return found.uri
    made = index_for(name, gallery.uri)
    embed.run(
        absolute_uri(side),
        made,
        following(config, gallery),
        network=prepared.update.network,
        executor=executor,
    )
    return made


def following(config: EmbedConfig, gallery: Index | None) -> EmbedConfig:
    """The settings for a side, which goes wherever the gallery goes, to another model too."""
    if gallery is not None:  # which says in its record what the command left open
        config = embed.complete(replace(config, new_model=False), gallery)
    return replace(config, rebase=True, new_model=True)


def index_for(name: str, index: str) -> str:
    """Where the images of a side are embedded."""
    return join(absolute_uri(index), f"_{name}")


def index_at(side: str, name: str, spec: EmbeddingSpec) -> Index | None:
    """The index that a side is; None for a folder of images.

    Raises:
        MismatchError: it is of another model.
    """
    side = absolute_uri(side)
    if not (may_hold_index(side) and is_index(side)):
        return None
    index = open_index(side)
    found = index.spec
    if not found.makes_same(spec):
        raise MismatchError(
            f"`{name}` {side}: made by {found.backbone} with fingerprint {found.fingerprint[:12]}, "
            f"but this night embeds by {spec.backbone} with {spec.fingerprint[:12]}. Embed it with "
            f"the same model, or name the folder of its photos. Nothing was committed."
        )
    return index
