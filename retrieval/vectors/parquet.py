"""Parquet files of other tools: their columns, rows and dimensions, from their footers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from retrieval.errors import IndexFormatError, StorageError
from retrieval.storage import (
    DAMAGED_PARQUET,
    check_inflation,
    first_line,
    is_no_answer,
    not_read,
    open_input,
    parquet_file,
)
from retrieval.vectors.columns import VectorColumns, find_id_column, find_vector_column, vector_dim
from retrieval.vectors.parts import row_group_rows
from retrieval.vectors.source import VectorFile, VectorSource

__all__ = ["open_parquet"]


def open_parquet(uri: str, names: Sequence[str], wanted: VectorColumns) -> VectorSource:
    """The Parquet files among some names, as one source."""
    parquet = [name for name in names if name.endswith((".parquet", ".pq"))] or list(names)
    sources = []
    for name in parquet:
        found = _inspect_parquet(name, wanted)
        sources.append(found)
        if not found.num_rows:
            continue
        first = next(source for source in sources if source.num_rows)
        if (found.dim, found.dtype) != (first.dim, first.dtype):
            raise IndexFormatError(
                f"{name}: {found.dim} × {found.dtype}, but the files before it hold "
                f"{first.dim} × {first.dtype}. Vectors of one make are needed."
            )
        wanted = VectorColumns(found.id_column, found.vector_column, found.dtype)
    if not sources:
        raise StorageError(f"{uri}: no Parquet file found there.")
    first = next((source for source in sources if source.num_rows), sources[0])
    return replace(first, uri=uri, files=tuple(source.files[0] for source in sources))


def _inspect_parquet(name: str, wanted: VectorColumns) -> VectorSource:
    """A source of this file alone.

    Of one without rows nothing else is told: other tools write the columns of an empty partition
    as null or double.
    """
    try:
        # Buffered, so that one page is read; pyarrow's default is the whole column chunk.
        with (
            open_input(name) as stream,
            parquet_file(stream, buffer_size=2**16, pre_buffer=False) as file,
        ):
            num_rows, row_groups = file.metadata.num_rows, row_group_rows(file.metadata)
            if not num_rows:
                return _source(name, VectorFile(name, 0, row_groups=row_groups))
            schema = file.schema_arrow
            id_column = find_id_column(schema, wanted.id_column, name)
            vector_column, dtype = find_vector_column(schema, wanted, name)
            check_inflation(file, [id_column, vector_column], stream.size())
            batch = next(file.iter_batches(batch_size=1, columns=[vector_column]))
            dim = vector_dim(batch.column(vector_column), dtype)
    except DAMAGED_PARQUET as error:
        if is_no_answer(error):
            raise not_read(name, error) from error
        raise IndexFormatError(
            f"{name}: cannot be read as Parquet ({first_line(error)}). "
            f"Write this shard again, or leave it out."
        ) from error
    if not dim:
        raise IndexFormatError(
            f"{name}, row 0: no vector; the first row must tell how many dimensions there are. "
            f"Leave it out."
        )
    file_of_rows = VectorFile(name, num_rows, row_groups=row_groups)
    return _source(name, file_of_rows, dim, dtype, id_column, vector_column)


def _source(
    name: str,
    file: VectorFile,
    dim: int = 0,
    dtype: str = "",
    id_column: str = "",
    vector_column: str = "",
) -> VectorSource:
    return VectorSource(
        uri=name,
        files=(file,),
        dim=dim,
        dtype=dtype,
        id_column=id_column,
        vector_column=vector_column,
    )
