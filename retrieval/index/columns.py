"""The columns of a shard as the index has them, whoever has written the file.

What this program has written must have them as they are. Tools that care for Delta tables write
shards anew, and only the values stay: deltalake's OPTIMIZE and DELETE make each embedding bytes of
any length, and texts of other Arrow types.
"""

from __future__ import annotations

from typing import TypeVar

import pyarrow as pa

__all__ = ["as_index_columns"]

_Rows = TypeVar("_Rows", pa.Table, pa.RecordBatch)


def as_index_columns(rows: _Rows, schema: pa.Schema, *, is_ours: bool) -> _Rows:
    """Columns of a shard in the types of the index.

    Args:
        rows: As they were read; other columns are passed over.
        schema: The columns that are needed.
        is_ours: Whether this program has written the shard.

    Raises:
        ValueError, pa.ArrowInvalid: of ours, a column is of another type; of others, a value does
            not fit: an empty cell, or an embedding of another length. Or a text is no UTF-8.
        KeyError: a column is missing.

    Cost: no copy of ours; of others, one.
    """
    rows = rows.select(schema.names)
    if is_ours and rows.schema != schema:
        raise ValueError(f"columns {', '.join(map(str, rows.schema))}")
    for column in schema:
        if not column.nullable and rows[column.name].null_count:
            raise ValueError(f"empty cells in {column.name}")
    rows = rows.cast(schema)
    rows.validate(full=True)  # Parquet does not promise that text is UTF-8
    return rows
