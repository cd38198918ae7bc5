"""The whole index as arrays, for notebooks and for what fits in memory.

Ids and labels are read first and sorted; each vector then goes straight to its place in the
result, so that memory holds the embeddings once. Pages are checked against their checksums:
0.25 ns a byte, some 60 % of the time that the vectors of one sorted shard take (2.5 million
rows/s of 512 × float16 on one core, from the page cache; 6 without; benchmarks/scan.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError, RetrievalError
from retrieval.index.history import split_version
from retrieval.index.schema import as_index_columns, index_schema
from retrieval.index.shards import Shard
from retrieval.index.table import Index, open_index
from retrieval.storage import (
    DAMAGED_PARQUET,
    first_line,
    is_no_answer,
    join,
    not_read,
    open_input,
    parquet_file,
    read_buffer,
)

__all__ = [
    "DAMAGED_SHARD",
    "IndexRows",
    "read_columns",
    "read_index",
    "read_rows",
    "read_shard",
    "read_whole_shard",
    "strange_shard",
    "vectors_of",
]

# What pyarrow raises for any byte of a shard that is another one; no text of an index is a number
# that a caller has got wrong.
DAMAGED_SHARD = (*DAMAGED_PARQUET, ValueError, TypeError, MemoryError, OverflowError)
# One request, and one batch on its way to its place: it stays in a core's cache.
_READ_BYTES = 2**20


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
        uri: Folder or address of the index; INDEX@12 is its version 12.
        version: A version to read, of an index that `uri` names alone; the newest by default.

    Raises:
        StorageError: there is no index, or a shard could not be read, be it whole.
        IndexFormatError: a shard is missing, damaged or not of this index.

    Cost: reads each column of every shard once. Memory is the embeddings' size, the ids and
        labels as Python text, and one batch; the embeddings are never copied if there is one
        shard, sorted by id. Time a row: some 0.4 µs (512 × float16) and 0.4 µs for its texts.
    """
    if version is None:
        uri, version = split_version(uri)
    return read_rows(open_index(uri, version))


def read_rows(index: Index) -> IndexRows:
    """Read an open version into memory; see `read_index`."""
    texts = read_columns(index, ["image_id", "label"])
    order = _sorting(texts["image_id"])
    if order is None and len(index.shards) == 1:
        column = read_columns(index, ["embedding"])["embedding"]
        # Arrow gives its new buffers away to be written; should it ever not, this copies.
        embeddings = np.require(
            vectors_of(column, index.spec.dim, index.spec.dtype), requirements="W"
        )
    else:
        embeddings = _placed(index, order)
    if order is not None:
        texts = texts.take(order)
    return IndexRows(
        ids=texts["image_id"].to_pylist(),
        embeddings=embeddings,
        labels=_as_list(texts["label"]),
        index=index,
    )


def _sorting(ids: pa.ChunkedArray) -> NDArray[np.uint64] | None:
    """The rows in the order of their ids' bytes, equal ones as they lie; None if they are."""
    keys = ids.cast(pa.large_binary()).combine_chunks()
    if pc.all(pc.less_equal(keys[:-1], keys[1:])).as_py():
        return None
    return pc.sort_indices(keys).to_numpy()


def _as_list(labels: pa.ChunkedArray) -> list[str | None]:
    """Labels as Python text, one object a label and not one a photo."""
    coded = labels.combine_chunks().dictionary_encode()
    texts = np.array([*coded.dictionary.to_pylist(), None], dtype=object)
    return texts[coded.indices.fill_null(len(texts) - 1).to_numpy()].tolist()


def _placed(index: Index, order: NDArray[np.uint64] | None) -> NDArray[Any]:
    """The vectors of all shards, each read straight into its row of the result.

    Args:
        index: The index.
        order: Row of the shards, one after another, that each row of the result is; None if
            they are the same.
    """
    dim, num_rows = index.spec.dim, index.num_rows
    embeddings = np.empty((num_rows, dim), np.dtype(index.spec.dtype).newbyteorder("<"))
    places = np.arange(num_rows)
    if order is not None:
        places[order] = np.arange(num_rows)
    start = 0
    for shard in index.shards:
        for batch in _embedding_batches(index, shard):
            rows = vectors_of(pa.chunked_array([batch]), dim, index.spec.dtype)
            to = places[start : start + len(rows)]
            start += len(rows)
            if (np.diff(to) == 1).all():
                embeddings[to[0] : to[0] + len(to)] = rows  # faster than row by row
            else:
                embeddings[to] = rows
    return embeddings


def _embedding_batches(index: Index, shard: Shard) -> Iterator[pa.Array]:
    """The embedding column of a shard, about 1 MiB at a time."""
    schema = pa.schema([index_schema(index.spec).field("embedding")])
    batch_rows = max(1, _READ_BYTES // index.spec.row_bytes)
    with _open_shard(index.uri, shard) as file:
        is_same = file.schema_arrow.field("embedding") == schema.field("embedding")
        if (shard.sha256 and not is_same) or file.metadata.num_rows != shard.num_rows:
            raise strange_shard(index.uri, shard)
        for batch in file.iter_batches(batch_rows, columns=["embedding"], use_threads=False):
            yield as_index_columns(batch, schema, is_ours=is_same).column(0)


def read_columns(index: Index, columns: list[str]) -> pa.Table:
    """Some columns of all shards of an index, in the order of the shards.

    Raises:
        IndexFormatError: a shard is missing, damaged or not of this index; the message names
            it.
        StorageError: the disk or the store does not answer.
    """
    schema = index_schema(index.spec)
    schema = pa.schema([schema.field(name) for name in columns])
    tables = [read_shard(index.uri, shard, schema) for shard in index.shards]
    return pa.concat_tables(tables or [schema.empty_table()])


def read_shard(index_uri: str, shard: Shard, schema: pa.Schema) -> pa.Table:
    """Columns of one shard, which must be those of `schema`; errors as `read_columns`."""
    with _open_shard(index_uri, shard) as file:
        return _rows_of(index_uri, shard, file, schema)


def _rows_of(index_uri: str, shard: Shard, file: pq.ParquetFile, schema: pa.Schema) -> pa.Table:
    table = file.read(columns=schema.names).select(schema.names)
    if (shard.sha256 and table.schema != schema) or table.num_rows != shard.num_rows:
        raise strange_shard(index_uri, shard)
    return as_index_columns(table, schema, is_ours=bool(shard.sha256))


def read_whole_shard(index_uri: str, shard: Shard, schema: pa.Schema) -> pa.Table:
    """All columns of a shard, whose bytes must be those that its run has written.

    The checksums of the pages vouch for what they hold, but not for the footer, which says where
    they lie and what they mean; and shards that other tools have rewritten have none. So the hash
    that the commit or the receipt has recorded is compared first. A commit of another tool records
    none: then checksums, columns and rows are what can be checked, as in `read_shard`.

    Raises:
        IndexFormatError: it is gone, or not what was written.
        StorageError: the disk or the store does not answer.

    Cost: twice the memory of the file.
    """
    uri = join(index_uri, shard.path)
    try:
        data = read_buffer(uri)
        found = hashlib.sha256(data).hexdigest()
        if shard.sha256 and found != shard.sha256:
            raise IndexFormatError(
                f"{uri}: not the bytes that were written: their SHA-256 is {found[:12]}…, but "
                f"{shard.sha256[:12]}… was recorded. Embed the photos again with `heal`."
            )
        with parquet_file(pa.BufferReader(data), page_checksum_verification=True) as file:
            return _rows_of(index_uri, shard, file, schema)
    except DAMAGED_SHARD as error:
        raise _unreadable(uri, error) from error


@contextmanager
def _open_shard(index_uri: str, shard: Shard) -> Iterator[pq.ParquetFile]:
    uri = join(index_uri, shard.path)
    try:
        with (
            open_input(uri) as source,
            parquet_file(
                source,
                page_checksum_verification=True,
                # A page that is read through a small buffer is decoded while in the cache.
                buffer_size=_READ_BYTES,
                pre_buffer=False,
            ) as file,
        ):
            yield file
    except DAMAGED_SHARD as error:
        raise _unreadable(uri, error) from error


def _unreadable(uri: str, error: BaseException) -> RetrievalError:
    if is_no_answer(error):
        return not_read(uri, error)
    return IndexFormatError(
        f"{uri}: this shard cannot be read ({first_line(error)}). Embed the photos again with "
        f"`heal`."
    )


def strange_shard(index_uri: str, shard: Shard) -> IndexFormatError:
    """The error for a file that is no shard of the index, or not the one that it names."""
    return IndexFormatError(
        f"{join(index_uri, shard.path)}: not the shard that the index names; its columns or its "
        f"number of rows differ. Embed the photos again with `heal`."
    )


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
