"""Reading vectors a bounded number of rows at a time, each checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError, RetrievalError
from retrieval.storage import (
    DAMAGED_PARQUET,
    first_line,
    is_local,
    is_no_answer,
    not_read,
    open_input,
    parquet_file,
)
from retrieval.vectors.arrays import ArrayFile, read_array, read_array_ids
from retrieval.vectors.checks import check_vectors
from retrieval.vectors.columns import vector_array
from retrieval.vectors.ids import id_text, short_ids
from retrieval.vectors.npy import npy_header
from retrieval.vectors.parts import changed, find_row_groups, whole
from retrieval.vectors.source import VectorFile, VectorPart, VectorSource

__all__ = ["VectorBlock", "read_blocks", "read_id_text", "read_ids"]

# One request to an object store; from a disk, what fits a core's cache beside the block.
_REMOTE_BYTES = 4 * 2**20
_LOCAL_BYTES = 2**20
_MOST_ID_BYTES = 2**24  # of the ids that are read at a time

_Reader = Callable[
    [VectorSource, VectorPart, int], Iterator[tuple[NDArray[np.bytes_], NDArray[Any]]]
]


@dataclass(frozen=True)
class VectorBlock:
    """Some consecutive rows of one file.

    Attributes:
        ids: bytes (N,), UTF-8; for long ones what `VectorSource.long_ids` has.
        vectors: float16, float32 or float64 (N, D), as stored; finite, none of them zero.
    """

    ids: NDArray[np.bytes_]
    vectors: NDArray[Any]


def read_blocks(
    source: VectorSource, part: VectorPart | VectorFile, max_rows: int
) -> Iterator[VectorBlock]:
    """Read a part of a source or one of its files, in the order of its rows.

    Args:
        source: The source, for names of columns, dimensions and type.
        part: One of `split(source)`, or one of `source.files`.
        max_rows: The largest block to yield. Blocks of 1 to 2 MiB are the fastest: they stay
            in the cache.

    Raises:
        IndexFormatError: the file is damaged, has gone or has changed its number of rows or
            its row groups, or a vector is of another width, not finite, or zero. The message
            names file and row of the file.
        LongIdError: an id is of more than MOST_BYTES bytes, and `source.long_ids` is None or
            does not have it.

    Cost: memory of one block; each byte is read once. The vectors are Arrow's own buffers,
        without a copy. benchmarks/scan.py measures each layout.
    """
    part = whole(part)
    where, row = part.file.uri, part.first_row
    with _damage_named(where):
        read = _reader(part.file)
        for ids, vectors in read(source, part, max_rows):
            check_vectors(vectors, where, row)
            row += len(ids)
            yield VectorBlock(ids, vectors)
    _check_count(part, row)


def read_ids(
    source: VectorSource, part: VectorPart | VectorFile, max_rows: int
) -> Iterator[NDArray[np.bytes_]]:
    """Read the ids of a part of a source or of one of its files, without the vectors.

    Args:
        source: The source, for the column's name.
        part: One of `split(source)`, or one of `source.files`.
        max_rows: The largest array to yield.

    Returns:
        Arrays of bytes (N,), in the order of the rows.

    Raises:
        IndexFormatError, LongIdError: as `read_blocks` does for the ids.

    Cost: reads the column of ids alone.
    """
    for text in read_id_text(source, part, max_rows):
        yield short_ids(text, source.long_ids)


def read_id_text(
    source: VectorSource, part: VectorPart | VectorFile, max_rows: int
) -> Iterator[pa.Array]:
    """`read_ids`, as large_string arrays of ids of any length."""
    part = whole(part)
    if isinstance(part.file, ArrayFile):
        yield from read_array_ids(part, max_rows)
        return
    where, row = part.file.ids_uri or part.file.uri, part.first_row
    with _damage_named(part.file.uri):
        for batch in _batches(source, part, [source.id_column], max_rows):
            text = id_text(batch.column(source.id_column), where, row)
            row += len(text)
            yield text
    _check_count(part, row)


def _reader(file: VectorFile) -> _Reader:
    if isinstance(file, ArrayFile):
        return read_array
    return _read_npy if file.ids_uri else _read_parquet


@contextmanager
def _damage_named(where: str) -> Iterator[None]:
    try:
        yield
    except RetrievalError:  # has its line already; some are ValueErrors, too
        raise
    except (*DAMAGED_PARQUET, ValueError, TypeError, MemoryError, OverflowError) as error:
        if is_no_answer(error):
            raise not_read(where, error) from error
        raise IndexFormatError(
            f"{where}: this shard cannot be read ({first_line(error)}). "
            f"Write it again, or rank another version."
        ) from error


def _check_count(part: VectorPart, next_row: int) -> None:
    if next_row != part.first_row + part.num_rows:
        raise changed(part.file.uri, f"{next_row - part.first_row} rows", f"{part.num_rows}")


def _batches(
    source: VectorSource, part: VectorPart, columns: list[str], max_rows: int
) -> Iterator[pa.RecordBatch]:
    """The rows of a part from its Parquet file, or from the one of its ids."""
    uri = part.file.ids_uri or part.file.uri
    is_ours = source.spec is not None  # other tools' checksums, if any, are not known to be right
    with (
        open_input(uri) as stream,
        parquet_file(
            stream,
            page_checksum_verification=is_ours,
            # pyarrow's defaults, and reading row group by row group, keep a whole column chunk
            # in memory. With bytes this is 1.5 times faster (1.1 with checksums), since each
            # page is decoded while in the cache; with lists the defaults are no faster.
            buffer_size=_LOCAL_BYTES if is_local(uri) else _REMOTE_BYTES,
            pre_buffer=False,
        ) as table,
    ):
        groups, row = find_row_groups(table.metadata, part)
        stop = part.first_row + part.num_rows
        # Threads share out columns, and all but one are small: they gain nothing here, and a
        # worker books one core.
        rows = min(max_rows, _rows_of_ids(table.metadata, groups, source.id_column))
        for batch in table.iter_batches(rows, groups, columns, use_threads=False):
            start = max(part.first_row - row, 0)
            wanted = batch.slice(start, max(stop - row - start, 0))
            row += len(batch)
            if len(wanted):
                yield wanted


def _rows_of_ids(metadata: pq.FileMetaData, groups: Sequence[int], column: str) -> int:
    """Rows of which the ids take some MiB, if they are as long as in the mean of a row group."""
    rows = _MOST_ID_BYTES
    for number in groups:
        group = metadata.row_group(number)
        sizes = [
            chunk.total_uncompressed_size
            for chunk in map(group.column, range(group.num_columns))
            if chunk.path_in_schema == column
        ]
        rows = min(rows, _MOST_ID_BYTES * group.num_rows // max(1, sum(sizes)))
    return max(1, rows)


def _read_parquet(
    source: VectorSource, part: VectorPart, max_rows: int
) -> Iterator[tuple[NDArray[np.bytes_], NDArray[Any]]]:
    columns, uri = [source.id_column, source.vector_column], part.file.uri
    row = part.first_row
    for batch in _batches(source, part, columns, max_rows):
        ids = short_ids(id_text(batch.column(columns[0]), uri, row), source.long_ids)
        vectors = batch.column(columns[1])
        yield ids, vector_array(vectors, source.dim, source.dtype, uri, row)
        row += len(ids)


def _read_npy(
    source: VectorSource, part: VectorPart, max_rows: int
) -> Iterator[tuple[NDArray[np.bytes_], NDArray[Any]]]:
    file = part.file
    if not file.num_rows:  # of any shape and type: nothing is read of it
        return
    with open_input(file.uri) as stream:
        shape, dtype, start = npy_header(stream, file.uri)
        if (*shape, dtype.name) != (file.num_rows, source.dim, source.dtype):
            found = f"{shape[0]} × {shape[1]} × {dtype.name}"
            raise changed(file.uri, found, f"{file.num_rows} × {source.dim} × {source.dtype}")
        row_bytes = source.dim * dtype.itemsize
        stream.seek(start + part.first_row * row_bytes)
        for ids in read_ids(source, part, max_rows):
            data = stream.read(len(ids) * row_bytes)
            if len(data) < len(ids) * row_bytes:
                raise OSError("the file ends early")
            vectors = np.frombuffer(data, dtype).reshape(-1, source.dim)
            yield ids, vectors.astype(source.dtype, copy=False)  # NumPy may store either order
