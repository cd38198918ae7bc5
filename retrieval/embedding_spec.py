"""How embeddings were made: what models, indexes and rankings say of their vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from retrieval.choices import STORED_TYPES
from retrieval.errors import IndexFormatError

__all__ = ["EmbeddingSpec"]

_METADATA = ("fingerprint", "backbone", "weights", "dim", "dtype", "normalised")


@dataclass(frozen=True, kw_only=True)
class EmbeddingSpec:
    """How the vectors of an index were made; stored with the embedding column.

    Attributes:
        fingerprint: Hash of weights, preprocessing and pooling. Only vectors of equal
            fingerprint may be compared.
        backbone: Name of the network, for people.
        weights: Where its weights came from ("imagenet", "none", a file), for people.
        dim: Dimensions D of a vector.
        dtype: "float16" or "float32", as stored.
        normalised: Whether vectors have Euclidean length 1 (before rounding to dtype).
    """

    fingerprint: str
    backbone: str
    weights: str
    dim: int
    dtype: str = "float16"
    normalised: bool = True

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored vector."""
        return self.dim * np.dtype(self.dtype).itemsize

    def makes_same(self, other: EmbeddingSpec) -> bool:
        """Whether its vectors may stand beside the other's; names for people may differ."""
        return (self.fingerprint, self.dim, self.dtype, self.normalised) == (
            other.fingerprint,
            other.dim,
            other.dtype,
            other.normalised,
        )

    def to_metadata(self) -> dict[str, str]:
        """As field metadata, whose values are strings.

        These names alone, whatever attributes come later: a new one would redefine the table at
        the next commit, and on a store add every shard again. The version of an index's form
        stands in the commit's record.
        """
        return {name: str(getattr(self, name)) for name in _METADATA}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, object], where: str) -> EmbeddingSpec:
        """Back from field metadata.

        Args:
            metadata: Names and values, as `to_metadata` gives them.
            where: The index, for the error.

        Raises:
            IndexFormatError: an entry is missing or makes no sense.
        """
        try:
            spec = cls(
                fingerprint=str(metadata["fingerprint"]),
                backbone=str(metadata["backbone"]),
                weights=str(metadata["weights"]),
                dim=int(str(metadata["dim"])),
                dtype=str(metadata["dtype"]),
                normalised=str(metadata["normalised"]) == "True",
            )
        except (KeyError, ValueError) as error:
            raise IndexFormatError(
                f"{where}: the embedding column does not say how it was made ({error!r}). "
                f"Only tables written by `retrieval-cli embed` are indexes."
            ) from error
        if spec.dim < 1 or spec.dtype not in STORED_TYPES:
            raise IndexFormatError(
                f"{where}: embeddings of {spec.dim} × {spec.dtype}; float16 or float32 and at "
                f"least one dimension are needed. Embed the photos again."
            )
        return spec
