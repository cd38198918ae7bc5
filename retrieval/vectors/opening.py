"""A location → its source. Reads the log of a table, and the footer of each foreign file."""

from __future__ import annotations

import dataclasses
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from retrieval.embedding_spec import EmbeddingSpec
from retrieval.errors import IndexFormatError
from retrieval.index.delta_retry import asked
from retrieval.index.history import split_version
from retrieval.index.names import check_below
from retrieval.index.table import is_index, may_hold_index, open_index, open_table
from retrieval.storage import absolute_uri, expand, is_local, join
from retrieval.vectors.columns import VectorColumns
from retrieval.vectors.npy import open_npy
from retrieval.vectors.parquet import open_parquet
from retrieval.vectors.source import VectorFile, VectorSource

__all__ = ["files_of_others", "open_source"]

_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")

# What this program writes: a table with it is an index, be it a damaged one.
_OURS = {"image_id", "content_sha256", "embedding"}
_SAID = {each.name for each in dataclasses.fields(EmbeddingSpec)}
# Abilities of tables whose files hold what the table holds, all the same.
_HARMLESS = {"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"}


def open_source(
    uri: str, columns: VectorColumns | None = None, *, version: int | None = None
) -> VectorSource:
    """Open an index, a Delta table of others, Parquet files, or pairs of .npy and Parquet files.

    Args:
        uri: Local path, address, folder or glob; INDEX@12 is version 12 of an index.
        columns: Which columns hold ids and vectors; found by name and type by default.
        version: A version of an index, which `uri` then names alone; by default that of INDEX@12,
            or else the newest; likewise of a Delta table of another tool.

    Raises:
        StorageError: nothing is there, or no index where a version is asked for.
        IndexFormatError: a file is damaged, empty of vectors, or of another width or type;
            it is not clear which ids belong to an array.
        UsageError: the columns cannot be told apart; the index has no such version.

    Cost: one small read a file; for an index, its log alone.
    """
    if version is None:
        uri, version = split_version(uri)
    uri = absolute_uri(uri)
    is_table = version is not None or (_may_be_index(uri) and is_index(uri))
    files = files_of_others(uri, version) if is_table else expand(uri)
    if files is None:
        source = _open_index(uri, version)
    else:
        uri = uri if version is None else f"{uri}@{version}"
        _check_no_image(uri, files)
        vectors = [name for name in files if name.endswith(".npy")]
        wanted = columns or VectorColumns()
        source = open_npy(uri, files, wanted) if vectors else open_parquet(uri, files, wanted)
    if not source.num_rows:
        raise IndexFormatError(f"{uri}: holds no vectors. At least one row is needed.")
    return source


def _check_no_image(uri: str, files: list[str]) -> None:
    if image := next((name for name in files if name.lower().endswith(_IMAGES)), None):
        raise IndexFormatError(
            f"{uri}: holds images, such as {image}, where vectors are needed. Embed them first: "
            f"retrieval-cli embed PHOTOS INDEX"
        )


def _may_be_index(uri: str) -> bool:
    # deltalake takes a glob for a folder's name.
    is_glob = is_local(uri) and "*" in uri
    return not uri.endswith((".parquet", ".npy")) and not is_glob and may_hold_index(uri)


def _open_index(uri: str, version: int | None) -> VectorSource:
    index = open_index(uri, version)
    return VectorSource(
        uri=uri,
        files=tuple(
            VectorFile(join(index.uri, shard.path), shard.num_rows) for shard in index.shards
        ),
        dim=index.spec.dim,
        dtype=index.spec.dtype,
        id_column="image_id",
        vector_column="embedding",
        spec=index.spec,
        version=index.version,
    )


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
