"""Queries and probe as indexes of the model that the night has."""

from __future__ import annotations

from dataclasses import replace

from pipelines import embed
from pipelines.embed import EmbedConfig
from retrieval.errors import MismatchError
from retrieval.index import EmbeddingSpec, is_index, open_index
from retrieval.index.table import may_hold_index
from retrieval.storage import absolute_uri, join

__all__ = ["as_index"]


def as_index(
    side: str, name: str, index: str, spec: EmbeddingSpec, config: EmbedConfig, address: str | None
) -> str:
    """The index of some photos, made or brought up to date if they are a folder.

    Args:
        side: An index, or a folder of photos.
        name: "queries" or "probe".
        index: The gallery's index; those made here lie in it, under "_" and the name.
        spec: How the embeddings of the night are made.
        config: Settings of `embed`.
        address: Ray cluster.

    Raises:
        MismatchError: it is an index of another model.
        RetrievalError: as `embed` does.
    """
    side = absolute_uri(side)
    if not (may_hold_index(side) and is_index(side)):
        made = join(absolute_uri(index), f"_{name}")
        embed.run(side, made, replace(config, rebase=True), address=address)
        return made
    found = open_index(side).spec
    if not found.makes_same(spec):
        raise MismatchError(
            f"--{name} {side}: made by {found.backbone} with fingerprint {found.fingerprint[:12]}, "
            f"but this night embeds by {spec.backbone} with {spec.fingerprint[:12]}. Embed it with "
            f"the same model, or name the folder of its photos. Nothing was committed."
        )
    return side
