"""The whole index as arrays, for notebooks and for what fits in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError
from retrieval.index.schema import index_schema
from retrieval.index.shards import Shard
from retrieval.index.table import Index, open_index
from retrieval.storage import DAMAGED_PARQUET, first_line, join, open_input

__all__ = ["IndexRows", "read_columns", "read_index", "vectors_of"]


@dataclass(frozen=True)
class IndexRows:
    """An index in memory; rows are sorted by id, bytewise.

    Attributes:
        ids: Image ids, length N.
        embeddings: float16 or float32 (N, D), as stored.
        labels: Labels, length N; None where a photo has none.
        index: The version that was read.
    """

    ids: list[str]
    embeddings: NDArray[Any]
    labels: list[str | None]
    index: Index


def read_index(uri: str, version: int | None = None) -> IndexRows:
    """Read an index into memory.

    Args:
        uri: Folder or address of the index.
        version: A version to read; the newest by default.

    Raises:
        StorageError: there is no index.
        IndexFormatError: a shard is missing, damaged or not of this index.

    Cost: reads every shard once; memory is the embeddings' size and about 100 bytes a row.
    """
    index = open_index(uri, version)
    table = read_columns(index, ["image_id", "label", "embedding"])
    ids = np.array(table["image_id"].to_pylist(), dtype=object)
    order = np.argsort(np.array([image_id.encode() for image_id in ids], dtype="S"), kind="stable")
    labels = table["label"].to_pylist()
    embeddings = vectors_of(table["embedding"], index.spec.dim, index.spec.dtype)
    return IndexRows(
        ids=ids[order].tolist(),
        embeddings=embeddings[order],
        labels=[labels[row] for row in order],
        index=index,
    )


def read_columns(index: Index, columns: list[str]) -> pa.Table:
    """Some columns of all shards of an index, in the order of the shards.

    Raises:
        IndexFormatError: a shard is missing, damaged or not of this index; the message names
            it.
    """
    schema = index_schema(index.spec)
    schema = pa.schema([schema.field(name) for name in columns])
    tables = [_read_shard(index.uri, shard, schema) for shard in index.shards]
    return pa.concat_tables([schema.empty_table(), *tables])


def _read_shard(index_uri: str, shard: Shard, schema: pa.Schema) -> pa.Table:
    uri = join(index_uri, shard.path)
    try:
        with open_input(uri) as source:
            file = pq.ParquetFile(source, page_checksum_verification=True)
            table = file.read(columns=schema.names).select(schema.names)
    except DAMAGED_PARQUET as error:
        raise IndexFormatError(
            f"{uri}: this shard cannot be read ({first_line(error)}). Embed the photos again."
        ) from error
    if table.schema != schema or table.num_rows != shard.num_rows:
        raise IndexFormatError(
            f"{uri}: not the shard that the index names; its columns or its number of rows "
            f"differ. Embed the photos again."
        )
    return table


def vectors_of(column: pa.ChunkedArray, dim: int, dtype: str) -> NDArray[Any]:
    """Vectors of a fixed-size binary column, without a copy where it is one chunk.

    Args:
        column: fixed_size_binary[dim × itemsize], no nulls.
        dim: Dimensions D.
        dtype: Stored type of a component; little-endian.

    Returns:
        (N, D) of `dtype`.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    parts = []
    for chunk in column.chunks:
        data = np.frombuffer(chunk.buffers()[1], dtype=kind)
        parts.append(data[chunk.offset * dim : (chunk.offset + len(chunk)) * dim])
    if len(parts) == 1:
        return parts[0].reshape(-1, dim)
    return np.concatenate([np.empty(0, kind), *parts]).reshape(-1, dim)
