"""The version of a file's form, so that a program refuses what it would misread.

Every file that users keep says `format_version`, a whole number. It rises only when a program
that knows the older form would read the file wrongly; a file that does not say it is of version
1, as those are that were written before this was kept. A table that is kept as Parquet has it in
the metadata of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from retrieval.errors import RetrievalError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FORMAT_VERSION", "check_format_version", "check_table_format", "with_format"]

FORMAT_VERSION = "format_version"  # its name in every file

_KEY = f"retrieval.{FORMAT_VERSION}".encode()


def check_format_version(
    found: Mapping[str, Any], newest: int, where: str, error: type[RetrievalError]
) -> int:
    """The version of a file's form.

    Args:
        found: What the file says.
        newest: The newest version that the caller reads; it must read all older ones.
        where: The file, for the error.
        error: What to raise.

    Returns:
        From 1 to `newest`; 1 where the file does not say it.

    Raises:
        RetrievalError: of the class `error`: the version is newer, or no whole number from 1 on.

    Example:
        >>> check_format_version({"format_version": 2}, 3, "a.json", RetrievalError)
        2
        >>> check_format_version({}, 3, "a.json", RetrievalError)
        1
    """
    version = found.get(FORMAT_VERSION, 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise error(
            f"{where}: format_version {version!r}; a whole number from 1 on is needed. The file "
            f"is damaged: write it again."
        )
    if version > newest:
        raise error(
            f"{where}: written by a newer release: format_version {version}; this program reads "
            f"{'1' if newest == 1 else f'1 to {newest}'}. Upgrade retrieval-cli."
        )
    return version


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
