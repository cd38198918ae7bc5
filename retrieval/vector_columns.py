"""Which columns of other tools' tables hold ids and vectors. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.choices import COMPONENT_TYPES
from retrieval.settings import setting

__all__ = ["VectorColumns"]


@dataclass(frozen=True)
class VectorColumns:
    """Which columns to read; None means to find them by name and type.

    Attributes:
        id_column: Column of the ids: text, integers or UUIDs, plain or in a dictionary; bytes
            that are UTF-8.
        vector_column: Column of the vectors.
        binary_dtype: Type of a component where vectors are bare bytes: "float16", "float32"
            or "float64". Our own index says it itself.
    """

    id_column: str | None = setting(None, "Column of the ids in other tools' Parquet.")
    vector_column: str | None = setting(None, "Column of the vectors in other tools' Parquet.")
    binary_dtype: str | None = setting(
        None,
        "Type of a component where the vectors are bare bytes.",
        choices=COMPONENT_TYPES,
        name="vector_dtype",
    )
