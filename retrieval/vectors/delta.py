"""Delta tables of other tools: the files of a version, which hold what the table holds."""

from __future__ import annotations

import dataclasses
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from retrieval.embedding_spec import EmbeddingSpec
from retrieval.errors import IndexFormatError
from retrieval.index.delta_retry import asked
from retrieval.index.names import check_below
from retrieval.index.table import open_table
from retrieval.storage import join

__all__ = ["files_of_others"]

# What this program writes: a table with it is an index, be it a damaged one.
_OURS = {"image_id", "content_sha256", "embedding"}
_SAID = {each.name for each in dataclasses.fields(EmbeddingSpec)}
# Abilities of tables whose files hold what the table holds, all the same.
_HARMLESS = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}


def files_of_others(uri: str, version: int | None) -> list[str] | None:
    """The Parquet files of a version of another tool's Delta table, sorted.

    Args:
        uri: A place where a Delta table is.
        version: The newest by default.

    Returns:
        None if the table is an index, or if only `open_index` can tell what is wrong with it.

    Raises:
        IndexFormatError: there is no file, or the table has what its files alone do not tell:
            rows marked as deleted, renamed columns, or files elsewhere.
    """
    try:
        table = asked(uri, lambda: open_table(uri, version))
        fields = table.schema().fields
        said = {key for field in fields for key in field.metadata}
        if len(said & _SAID) > 1 or {field.name for field in fields} >= _OURS:
            return None
        _check_plain(uri, table)
        actions = asked(uri, lambda: pa.table(table.get_add_actions(flatten=True)))
    except (DeltaError, OSError, ValueError):
        return None
    paths = sorted(check_below(unquote(path), uri) for path in actions["path"].to_pylist())
    if not paths:
        raise IndexFormatError(f"{uri}: a Delta table without rows. At least one row is needed.")
    return [join(uri, path) for path in paths]


def _check_plain(uri: str, table: DeltaTable) -> None:
    found = table.protocol()
    strange = {str(name) for name in found.reader_features or ()} - _HARMLESS
    mode = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mode != "none":
        strange.add(f"columnMapping by {mode}")
    if strange:
        raise IndexFormatError(
            f"{uri}: a Delta table with {', '.join(sorted(strange))}, so that its files alone do "
            f"not tell its rows. Write it anew without, or export what is to be ranked as Parquet."
        )
