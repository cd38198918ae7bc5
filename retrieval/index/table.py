"""The log of the index: which shards make up which version.

A Delta Lake table (package `deltalake`): readers keep the version they opened, and a run
becomes visible by one commit (see commit.py) or not at all. Each entry of the log begins with
what the run said of itself and the names of all shards of its version: an entry that was cut
short, as a loss of power can leave it, is refused and never read as something less.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from retrieval.embedding_spec import EmbeddingSpec
from retrieval.errors import IndexFormatError, RetrievalError, StorageError, UsageError
from retrieval.index.delta_retry import asked, root_cause
from retrieval.index.entries import (
    SHARDS_KEY,
    DamagedEntryError,
    Entry,
    check_content,
    entry_uri,
    read_entry,
    said,
)
from retrieval.index.names import check_below
from retrieval.index.shards import Shard
from retrieval.index.version import (
    Index,
    index_of,
    is_candidate,
    may_hold_index,
    read_candidate,
    save_candidate,
    table_uri,
)
from retrieval.storage import (
    DAMAGED_PARQUET,
    delta_options,
    file_exists,
    first_line,
    is_local,
    is_no_answer,
    join,
    list_files,
    none_there,
    not_read,
    open_input,
    parquet_file,
)

__all__ = [
    "LOG_FILE",
    "Index",
    "index_of",
    "is_index",
    "live_files",
    "may_hold_index",
    "newest_version",
    "open_index",
    "open_table",
    "read_run",
    "save_candidate",
    "table_uri",
    "torn",
    "why_torn",
]

_SOME_VERSIONS = 10_000  # deltalake counts up to a version one by one: 2 ** 31 take minutes
# An entry of the log, or a checkpoint.
LOG_FILE = re.compile(r"(\d{20})\.(json|.*parquet)")


def is_index(uri: str) -> bool:
    """Whether there is a Delta Lake table at a location.

    Raises:
        UsageError: no index may have this name.
        StorageError: the location cannot be reached.
    """
    uri = table_uri(uri)
    try:
        if is_candidate(uri):
            return file_exists(uri)
        if is_local(uri) and not Path(uri).is_dir():
            return False
        return bool(asked(uri, lambda: DeltaTable.is_deltatable(uri, delta_options(uri))))
    except (DeltaError, OSError) as error:
        raise StorageError(f"{uri}: cannot be opened ({root_cause(error)}).") from error


def open_index(uri: str, version: int | None = None) -> Index:
    """Open an index, by default at its newest version.

    Raises:
        StorageError: nothing is there, or it cannot be reached.
        UsageError: it has no such version, or no index may have this name.
        IndexFormatError: it is a table, but not an index; its log is damaged.
    """
    uri = table_uri(uri)
    if not is_index(uri):
        raise StorageError(none_there(uri, "index there", "embed PHOTOS", "INDEX"))
    if is_candidate(uri):
        return read_candidate(uri)
    try:
        table, files = asked(uri, lambda: _read_log(uri, version))
        names = [field.name for field in table.schema().fields]
    except DamagedEntryError as error:
        number = newest_version(uri) if version is None else version
        raise torn(uri, number or 0, error) from error
    except (DeltaError, OSError, ValueError) as error:
        raise _unreadable(uri, version, error) from error
    number = table.version()
    entry = _entry(uri, number)
    if not {"embedding", "image_id"} <= set(names):
        raise _other_table(uri, f"a Delta table with the columns {', '.join(names)}")
    spec = _spec_of(table, uri)
    try:
        shards = _shards_of(entry, spec, files)
    except ValueError as error:
        raise torn(uri, number, error) from error
    return Index(uri=uri, version=number, spec=spec, shards=shards, run=said(entry.record))


def _shards_of(
    entry: Entry, spec: EmbeddingSpec, files: Mapping[str, Mapping[str, Any]]
) -> tuple[Shard, ...]:
    """The shards of a version, sorted by path; ValueError if its entry says something else."""
    hashes = entry.record.get(SHARDS_KEY, dict.fromkeys(files, ""))
    if hashes.keys() != files.keys():
        raise ValueError("it names other shards than the log")
    shards = tuple(
        Shard(path, files[path]["num_records"], files[path]["size_bytes"], hashes[path])
        for path in sorted(files)
    )
    check_content(entry, spec, shards)
    return shards


def _spec_of(table: DeltaTable, uri: str) -> EmbeddingSpec:
    metadata = next(each.metadata for each in table.schema().fields if each.name == "embedding")
    return EmbeddingSpec.from_metadata(metadata, uri)


def _other_table(uri: str, what: str) -> IndexFormatError:
    return IndexFormatError(
        f"{uri}: {what}, and no index; image_id and embedding are needed. Only tables written by "
        f"`retrieval-cli embed` are indexes; `retrieval-cli rank` reads the vectors of others."
    )


def _read_log(uri: str, version: int | None) -> tuple[DeltaTable, dict[str, dict[str, Any]]]:
    table = open_table(uri, version)
    return table, live_files(table)


def open_table(uri: str, version: int | None = None) -> DeltaTable:
    """The table of an index; raises DeltaError and OSError as deltalake does."""
    if version is not None and version > _SOME_VERSIONS:
        newest = newest_version(uri)
        if newest is not None and version > newest:
            raise _no_such_version(uri, version, newest)
    return DeltaTable(uri, version=version, storage_options=delta_options(uri))


def live_files(table: DeltaTable) -> dict[str, dict[str, Any]]:
    """What the log says of each file of a version, by its path inside the index.

    Raises:
        IndexFormatError: a file lies outside, as those of a shallow clone do.
        DamagedEntryError: a size or a number of rows is none.
    """
    files = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    for file in files:
        if file.get("num_records") is None:  # some tools do not say it
            file["num_records"] = _count_rows(join(table.table_uri, unquote(file["path"])))
        for name in ("num_records", "size_bytes"):
            value = file.get(name)
            if type(value) is not int or not 0 <= value < 2**62:
                raise DamagedEntryError(f"{name} of {file['path']} is {value!r}")
    return {check_below(unquote(file["path"]), table.table_uri): file for file in files}


def _count_rows(uri: str) -> int:
    try:
        with open_input(uri) as stream, parquet_file(stream) as file:
            return int(file.metadata.num_rows)
    except DAMAGED_PARQUET as error:
        if is_no_answer(error):
            raise not_read(uri, error) from error
        raise IndexFormatError(
            f"{uri}: cannot be read as Parquet ({first_line(error)}), and the log does not say how "
            f"many rows it has. Restore another version."
        ) from error


def _no_such_version(uri: str, version: int, newest: int) -> UsageError:
    return UsageError(f"{uri}: has no version {version}; the newest is {newest}.")


def _unreadable(uri: str, version: int | None, error: Exception) -> Exception:
    """Why a version cannot be opened."""
    newest = newest_version(uri)
    if newest is not None and version is not None and not 0 <= version <= newest:
        return _no_such_version(uri, version, newest)
    if newest is not None and version in (None, newest) and (found := why_torn(uri, newest)):
        return torn(uri, newest, found)
    if is_no_answer(error):
        return not_read(join(uri, "_delta_log"), error)
    return IndexFormatError(f"{uri}: the log cannot be read ({root_cause(error)}).")


def newest_version(uri: str) -> int | None:
    """Number of the newest entry of the log, readable or not; None if there is none.

    Raises:
        StorageError: the log cannot be listed.
    """
    try:
        names = [file.rpartition("/")[2] for file in list_files(join(uri, "_delta_log"))]
    except OSError as error:
        raise StorageError(f"{uri}: its log cannot be listed ({first_line(error)}).") from error
    return max((int(found[1]) for found in map(LOG_FILE.fullmatch, names) if found), default=None)


def read_run(uri: str, version: int) -> Mapping[str, Any]:
    """What the run that committed a version said of itself.

    Args:
        uri: The index.
        version: Number of the commit. Its shards need not be there any more.

    Returns:
        What `commit_index` was given as `run`; nothing if another tool made the commit, or
        if its entry has been cleaned up.

    Raises:
        IndexFormatError: the entry is torn or damaged.
        StorageError: the entry cannot be read.
    """
    return said(_entry(table_uri(uri), version).record)


def _entry(uri: str, version: int) -> Entry:
    # Not by DeltaTable.history: that begins with the newest commit, whatever version is open.
    try:
        return read_entry(uri, version)
    except ValueError as error:
        raise torn(uri, version, error) from error
    except OSError as error:
        raise not_read(entry_uri(uri, version), error) from error


def why_torn(uri: str, version: int) -> ValueError | None:
    """What is wrong with the entry of a version, as a loss of power or a disk can leave it.

    None where it is whole: if it cannot be opened all the same, something else is wrong.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        entry = read_entry(uri, version)
    except ValueError as error:
        return error
    except OSError as error:
        raise not_read(entry_uri(uri, version), error) from error
    try:
        table, files = _read_log(uri, version)
        spec = _spec_of(table, uri)
        _shards_of(entry, spec, files)
    except ValueError as error:
        return error
    except (DeltaError, OSError, RetrievalError):
        return None
    return None


def torn(uri: str, version: int, error: ValueError) -> IndexFormatError:
    """The error for an entry that is not whole."""
    name = f"_delta_log/{version:020d}.json"
    if isinstance(error, DamagedEntryError):
        what = f"version {version} is damaged: {error} ({name})"
    else:
        what = f"version {version} is incomplete, as a loss of power leaves it ({name})"
    return IndexFormatError(
        f"{uri}: {what}. Set that file aside: retrieval-cli restore {uri} --torn"
    )
