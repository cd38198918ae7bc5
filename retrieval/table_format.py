"""The version of the form of a table that is kept as Parquet: it stands in the file's metadata."""

from __future__ import annotations

import pyarrow as pa

from retrieval.errors import RetrievalError
from retrieval.format_version import FORMAT_VERSION, check_format_version

__all__ = ["check_table_format", "with_format"]

_KEY = f"retrieval.{FORMAT_VERSION}".encode()


def with_format(table: pa.Table, version: int) -> pa.Table:
    """A table whose Parquet file will say the version of its form; other metadata stays."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _KEY: str(version)})


def check_table_format(
    schema: pa.Schema, newest: int, where: str, error: type[RetrievalError]
) -> int:
    """The version of a table's form, as `check_format_version` has it; 1 where it is not said.

    Args:
        schema: Of the file that was read.
        newest: The newest version that the caller reads.
        where: The file, for the error.
        error: What to raise.

    Raises:
        RetrievalError: of the class `error`: the version is newer, or no whole number from 1 on.
    """
    said = (schema.metadata or {}).get(_KEY)
    if said is None:
        return 1
    text = said.decode(errors="replace")
    found = int(text) if text.isascii() and text.isdigit() else text
    return check_format_version({FORMAT_VERSION: found}, newest, where, error)
