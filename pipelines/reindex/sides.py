"""Queries and probe as indexes of the model that the night has."""

from __future__ import annotations

from dataclasses import replace

from pipelines import embed
from pipelines.cluster.site import Site
from pipelines.embed import EmbedConfig
from retrieval.errors import MismatchError
from retrieval.index import EmbeddingSpec, Index, is_index, open_index
from retrieval.index.table import may_hold_index
from retrieval.storage import absolute_uri, join

__all__ = ["as_index", "index_at", "index_for"]


def as_index(
    side: str, name: str, index: str, spec: EmbeddingSpec, config: EmbedConfig, site: Site
) -> str:
    """The index of some photos, made or brought up to date if they are a folder.

    Args:
        side: An index, or a folder of photos.
        name: "queries" or "probe".
        index: The gallery's index; those made here lie in it, under "_" and the name.
        spec: How the embeddings of the night are made.
        config: Settings of `embed`.
        site: Where they are made.

    Raises:
        MismatchError: it is an index of another model.
        RetrievalError: as `embed` does.
    """
    if found := index_at(side, name, spec):
        return found.uri
    made = index_for(name, index)
    embed.run(absolute_uri(side), made, replace(config, rebase=True), site=site)
    return made


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
            f"--{name} {side}: made by {found.backbone} with fingerprint {found.fingerprint[:12]}, "
            f"but this night embeds by {spec.backbone} with {spec.fingerprint[:12]}. Embed it with "
            f"the same model, or name the folder of its photos. Nothing was committed."
        )
    return index
