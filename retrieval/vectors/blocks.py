"""Reading vectors a bounded number of rows at a time, each checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError
from retrieval.storage import DAMAGED_PARQUET, first_line, open_input
from retrieval.vectors.columns import id_array, vector_array
from retrieval.vectors.npy import npy_header
from retrieval.vectors.source import VectorFile, VectorSource

__all__ = ["VectorBlock", "read_blocks"]

_READ_BYTES = 4 * 2**20  # one request to an object store


@dataclass(frozen=True)
class VectorBlock:
    """Some consecutive rows of one file.

    Attributes:
        ids: bytes (N,), UTF-8.
        vectors: float16, float32 or float64 (N, D), as stored; finite, none of them zero.
    """

    ids: NDArray[np.bytes_]
    vectors: NDArray[Any]


def read_blocks(source: VectorSource, file: VectorFile, max_rows: int) -> Iterator[VectorBlock]:
    """Read one file of a source, in the order of its rows.

    Args:
        source: The source, for names of columns, dimensions and type.
        file: One of `source.files`.
        max_rows: The largest block to yield.

    Raises:
        IndexFormatError: the file is damaged, has gone or has changed its number of rows, or
            a vector is of another width, not finite, or zero. The message names file and row.

    Cost: memory of one block; each byte is read once.
    """
    where = file.uri
    first_row = 0
    try:
        read = _read_npy if file.ids_uri else _read_parquet
        for ids, vectors in read(source, file, max_rows):
            _check(vectors, where, first_row)
            first_row += len(ids)
            yield VectorBlock(ids, vectors)
    except DAMAGED_PARQUET as error:
        raise IndexFormatError(
            f"{where}: this shard cannot be read ({first_line(error)}). "
            f"Write it again, or rank another version."
        ) from error
    if first_row != file.num_rows:
        raise _changed(where, f"{first_row} rows", f"{file.num_rows}")


def _changed(where: str, found: str, before: str) -> IndexFormatError:
    return IndexFormatError(
        f"{where}: {found}, but {before} when the job began. A shard must not change while it is "
        f"ranked: run the job again."
    )


def _read_parquet(
    source: VectorSource, file: VectorFile, max_rows: int
) -> Iterator[tuple[NDArray[np.bytes_], NDArray[Any]]]:
    columns = [source.id_column, source.vector_column]
    is_ours = source.spec is not None  # other tools' checksums, if any, are not known to be right
    row = 0
    with (
        open_input(file.uri) as stream,
        pq.ParquetFile(
            stream,
            page_checksum_verification=is_ours,
            # pyarrow's default keeps the whole file in memory; this is as fast.
            buffer_size=_READ_BYTES,
            pre_buffer=False,
        ) as table,
    ):
        for batch in table.iter_batches(batch_size=max_rows, columns=columns):
            ids = id_array(batch.column(columns[0]), file.uri, row)
            vectors = batch.column(columns[1])
            yield ids, vector_array(vectors, source.dim, source.dtype, file.uri, row)
            row += len(ids)


def _read_npy(
    source: VectorSource, file: VectorFile, max_rows: int
) -> Iterator[tuple[NDArray[np.bytes_], NDArray[Any]]]:
    with open_input(file.uri) as stream, open_input(file.ids_uri) as ids_stream:
        shape, dtype, start = npy_header(stream, file.uri)
        if (*shape, dtype.name) != (file.num_rows, source.dim, source.dtype):
            found = f"{shape[0]} × {shape[1]} × {dtype.name}"
            raise _changed(file.uri, found, f"{file.num_rows} × {source.dim} × {source.dtype}")
        stream.seek(start)
        row = 0
        table = pq.ParquetFile(ids_stream)
        for batch in table.iter_batches(batch_size=max_rows, columns=[source.id_column]):
            ids = id_array(batch.column(source.id_column), file.ids_uri, row)
            row += len(ids)
            data = stream.read(len(ids) * source.dim * dtype.itemsize)
            if len(data) < len(ids) * source.dim * dtype.itemsize:
                raise OSError("the file ends early")
            vectors = np.frombuffer(data, dtype).reshape(-1, source.dim)
            yield ids, vectors.astype(source.dtype, copy=False)  # NumPy may store either order


def _check(vectors: NDArray[Any], where: str, first_row: int) -> None:
    """Refuse what has no direction or no score: NaN, infinite and zero vectors."""
    peaks = np.abs(vectors).max(axis=1, initial=0)  # NaN and inf survive a maximum
    wrong = np.flatnonzero(~np.isfinite(peaks) | (peaks == 0))
    if wrong.size:
        row = int(wrong[0])
        what = "all zeros" if peaks[row] == 0 else "NaN" if np.isnan(peaks[row]) else "infinite"
        raise IndexFormatError(
            f"{where}, row {first_row + row}: the vector is {what}; finite vectors other than "
            f"zero are needed. Embed this image again, or leave it out."
        )
