"""Queries and probe as indexes of the model that the night has."""

from __future__ import annotations

from dataclasses import replace

from pipelines import embed
from pipelines.embed import EmbedConfig
from pipelines.ray_runtime.cluster_options import Site
from retrieval.errors import MismatchError
from retrieval.index import EmbeddingSpec, Index, is_index, open_index
from retrieval.index.table import may_hold_index
from retrieval.storage import absolute_uri, join

__all__ = ["as_index", "following", "index_at", "index_for"]


def as_index(side: str, name: str, gallery: Index, config: EmbedConfig, site: Site) -> str:
    """The index of some photos, made or brought up to date if they are a folder.

    Args:
        side: An index, or a folder of photos.
        name: "queries" or "probe".
        gallery: The gallery's index, committed or not; those made here lie in it, under "_" and
            the name.
        config: Settings of `embed` for the gallery.
        site: Where they are made.

    Raises:
        MismatchError: it is an index of another model.
        RetrievalError: as `embed` does.
    """
    if found := index_at(side, name, gallery.spec):
        return found.uri
    made = index_for(name, gallery.uri)
    embed.run(absolute_uri(side), made, following(config, gallery), site=site)
    return made


def following(config: EmbedConfig, gallery: Index | None) -> EmbedConfig:
    """The settings for a side, which goes wherever the gallery goes, to another model too."""
    if gallery is not None:  # which says in its record what the command left open
        config = embed.complete(replace(config, new_model=False), gallery)
    return replace(config, rebase=True, new_model=True)


def index_for(name: str, index: str) -> str:
    """Where the photos of a side are embedded."""
    return join(absolute_uri(index), f"_{name}")


def index_at(side: str, name: str, spec: EmbeddingSpec) -> Index | None:
    """The index that a side is; None for a folder of photos.

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
