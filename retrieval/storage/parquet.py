"""Parquet files that somebody else may have written, read without running anything of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["check_inflation", "parquet_file", "parquet_table"]

# A file may hold more only in proportion to its size. Rows of ids or labels that nobody made to
# explode compress some 30 times, and one byte tells some 30 rows at most.
_PLAIN_BYTES = 2**28
_MOST_TIMES = 200
_PLAIN_ROWS = 2**24
_MOST_ROWS_A_BYTE = 1000


def parquet_file(source: pa.NativeFile, **options: Any) -> pq.ParquetFile:  # noqa: ANN401
    """Open a file as `pq.ParquetFile` does, if its columns hold plain values.

    A column may say that it is of an extension type. Ray Data registers one whose bytes are
    pickles, and a look at a value would run what is in them, in every process that has loaded it.

    Raises:
        pa.ArrowInvalid: a column's values are bytes that only Python code makes sense of.
    """
    file = pq.ParquetFile(source, **options)
    try:
        _check_plain(file.schema_arrow)
    except pa.ArrowInvalid:
        file.close()
        raise
    return file


def check_inflation(file: pq.ParquetFile, columns: Sequence[str], size_bytes: int) -> None:
    """Refuse columns of a small file that would be huge in memory, before any is decoded.

    Args:
        file: The file.
        columns: Those to read.
        size_bytes: Size of the file.

    Raises:
        pa.ArrowInvalid: a column of a row group takes more than 256 MiB uncompressed and more than
            200 times the file, or there are more than 16 Mi rows and more than 1,000 a byte.
    """
    metadata = file.metadata
    if metadata.num_rows > max(_PLAIN_ROWS, _MOST_ROWS_A_BYTE * size_bytes):
        raise pa.ArrowInvalid(f"{metadata.num_rows} rows in a file of {size_bytes} bytes")
    most = max(_PLAIN_BYTES, _MOST_TIMES * size_bytes)
    leaves = [metadata.schema.column(place) for place in range(metadata.num_columns)]
    read = [n for n, leaf in enumerate(leaves) if leaf.path.partition(".")[0] in columns]
    lists = [place for place in read if leaves[place].max_repetition_level]
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        # Only what has to be looked at: Arrow ends the process over a chunk of a damaged footer
        # whose statistics do not fit its column.
        for chunk in map(group.column, read if group.total_byte_size > most else lists):
            if max(chunk.total_uncompressed_size, chunk.num_values) > most:
                raise pa.ArrowInvalid(
                    f"the column {chunk.path_in_schema!r} of row group {number} takes "
                    f"{chunk.total_uncompressed_size} bytes of a file of {size_bytes}"
                )


def parquet_table(
    source: pa.NativeFile,
    schema: pa.Schema | None = None,
    **options: Any,  # noqa: ANN401
) -> pa.Table:
    """Read a file as `pq.read_table` does; otherwise as `parquet_file`.

    Args:
        source: The file.
        schema: The types that columns of these names have to have; each of `columns`, or else of
            the schema, has to be there. A footer has no checksum: a byte of it makes text bytes.
        options: Of `pq.read_table`.

    Raises:
        pa.ArrowInvalid: as of `parquet_file`, or a column is missing or of another type.
    """
    table = pq.read_table(source, **options)
    _check_plain(table.schema)
    if schema is not None:
        _check_types(table.schema, schema, options.get("columns") or schema.names)
    return table


def _check_types(found: pa.Schema, needed: pa.Schema, names: Iterable[str]) -> None:
    for name in names:
        types = [str(field.type) for field in found if field.name == name]
        if types != [str(needed.field(name).type)]:
            raise pa.ArrowInvalid(
                f"the column {name!r} is {' and '.join(types) or 'missing'}; "
                f"{needed.field(name).type} is needed"
            )


def _check_plain(schema: pa.Schema) -> None:
    for field in schema:
        if found := _code_of(field.type):
            raise pa.ArrowInvalid(
                f"the column {field.name!r} holds Python objects ({found}), which may run code "
                f"when they are read; plain values are needed"
            )


def _code_of(kind: pa.DataType) -> str | None:
    """Name of the extension type in a type, at any depth, whose values Python code reads."""
    if isinstance(kind, pa.ExtensionType):  # made in Python; Arrow's own are none of these
        return kind.extension_name if _is_bytes(kind.storage_type) else _code_of(kind.storage_type)
    if isinstance(kind, pa.BaseExtensionType):
        return None
    if pa.types.is_dictionary(kind):
        return _code_of(kind.value_type)
    inner = (kind.field(number).type for number in range(kind.num_fields))
    return next((found for one in inner if (found := _code_of(one))), None)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )
