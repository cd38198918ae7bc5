"""The log of the index: which shards make up which version.

A Delta Lake table (package `deltalake`): readers keep the version they opened, and a run
becomes visible by one commit (see commit.py) or not at all. Each entry of the log begins with
what the run said of itself and the names of all shards of its version: an entry that was cut
short, as a loss of power can leave it, is refused and never read as something less.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from retrieval.errors import IndexFormatError, RetrievalError, StorageError, UsageError
from retrieval.format_version import FORMAT_VERSION, check_format_version
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
from retrieval.index.schema import EmbeddingSpec
from retrieval.index.shards import Shard
from retrieval.storage import (
    DAMAGED_PARQUET,
    LISTING_BYTES,
    absolute_uri,
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
    read_json,
    write_bytes,
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

# What deltalake takes for parts of a web address, or refuses late.
_MISREAD = re.compile(r"[#?\\\x00-\x1f]|%[0-9A-Fa-f]{2}")
_SOME_VERSIONS = 10_000  # deltalake counts up to a version one by one: 2 ** 31 take minutes
# A version that is not committed, kept aside: its description stands for an index to whoever
# opens it.
_CANDIDATE_FORMAT = 1
_CANDIDATE_HASH = "sha256"  # of the rest; not in the files of older releases
_CANDIDATE = re.compile(r"(.+)/_candidates/[^/]+\.json")
# An entry of the log, or a checkpoint.
LOG_FILE = re.compile(r"(\d{20})\.(json|.*parquet)")


@dataclass(frozen=True, kw_only=True)
class Index:
    """One version of an index, as its log describes it. Plain values: cheap to send.

    Attributes:
        uri: Absolute path or address of the index.
        version: Number of the commit.
        spec: How its embeddings were made.
        shards: Its files.
        run: What the run that committed this version said of itself.
    """

    uri: str
    version: int
    spec: EmbeddingSpec
    shards: tuple[Shard, ...]
    run: Mapping[str, Any]

    @property
    def num_rows(self) -> int:
        """Images in this version."""
        return sum(shard.num_rows for shard in self.shards)


def may_hold_index(uri: str) -> bool:
    """Whether the path allows an index; deltalake would put that of /a#b into /a."""
    return not _MISREAD.search(uri)


def table_uri(uri: str) -> str:
    """The form in which an index's location is kept; UsageError if it may not hold one."""
    uri = absolute_uri(uri)
    if found := _MISREAD.search(uri):
        raise UsageError(
            f"{uri}: an index's path may not hold {found[0]!r}, which Delta Lake misreads. "
            f"Choose another name."
        )
    return uri


def index_of(uri: str) -> str:
    """The index that a candidate is a version of; any other address as it is."""
    found = _CANDIDATE.fullmatch(uri)
    return found[1] if found else uri


def is_index(uri: str) -> bool:
    """Whether there is a Delta Lake table at a location.

    Raises:
        UsageError: no index may have this name.
        StorageError: the location cannot be reached.
    """
    uri = table_uri(uri)
    try:
        if _CANDIDATE.fullmatch(uri):
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
    if _CANDIDATE.fullmatch(uri):
        return _read_candidate(uri)
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


def save_candidate(index: Index) -> str:
    """Keep a version aside that is not committed; gives an address that opens as an index.

    Raises:
        StorageError: the folder cannot be written.
    """
    uri = join(index.uri, "_candidates", f"{index.run['run_id']}.json")
    values = {FORMAT_VERSION: _CANDIDATE_FORMAT, **asdict(index)}
    write_bytes(uri, json.dumps({**values, _CANDIDATE_HASH: _hash_of(values)}).encode())
    return uri


def _hash_of(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _read_candidate(uri: str) -> Index:
    try:
        found = dict(read_json(uri, max_bytes=LISTING_BYTES))
        check_format_version(found, _CANDIDATE_FORMAT, uri, IndexFormatError)
        digest = found.pop(_CANDIDATE_HASH, None)
        if digest is not None and digest != _hash_of(found):
            raise ValueError("it is not what was written")
        found.pop(FORMAT_VERSION, None)
        spec = EmbeddingSpec(**found.pop("spec"))
        shards = tuple(Shard(**shard) for shard in found.pop("shards"))
        for shard in shards:
            check_below(shard.path, uri)
            if not shard.is_plain:
                raise ValueError(f"{shard.path} has no size or no number of rows")
        if type(found["version"]) is not int or not isinstance(found["run"], dict):
            raise ValueError("no version, or no record of a run")
        EmbeddingSpec.from_metadata(spec.to_metadata(), uri)
        # Not where it was written: the index may have moved since.
        return Index(**{**found, "uri": index_of(uri)}, spec=spec, shards=shards)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise IndexFormatError(f"{uri}: no candidate of an index ({first_line(error)}).") from error


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
