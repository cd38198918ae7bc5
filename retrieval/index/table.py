"""The log of the index: which shards make up which version.

A Delta Lake table (package `deltalake`): readers keep the version they opened, and a run
becomes visible by one commit (see commit.py) or not at all. Each entry of the log begins with
what the run said of itself and the names of all shards of its version: an entry that was cut
short, as a loss of power can leave it, is refused and never read as something less.
"""

from __future__ import annotations

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

from retrieval.errors import IndexFormatError, StorageError, UsageError
from retrieval.format_version import FORMAT_VERSION, check_format_version
from retrieval.index.asking import asked, root_cause
from retrieval.index.names import check_below
from retrieval.index.schema import EmbeddingSpec
from retrieval.index.shards import Shard
from retrieval.storage import (
    LISTING_BYTES,
    absolute_uri,
    delta_options,
    file_exists,
    first_line,
    is_local,
    join,
    list_files,
    read_bytes,
    read_json,
    write_bytes,
)

__all__ = [
    "COMMIT_KEY",
    "LOG_FILE",
    "NUM_ACTIONS_KEY",
    "RECORD_FORMAT",
    "RUN_KEY",
    "SHARDS_KEY",
    "Index",
    "commit_info",
    "entry_uri",
    "index_of",
    "is_index",
    "is_torn",
    "live_files",
    "may_hold_index",
    "newest_version",
    "open_index",
    "open_table",
    "read_record",
    "read_run",
    "save_candidate",
    "table_uri",
    "torn",
]

# Where a commit keeps what the run says of itself, as one JSON text.
RUN_KEY = "retrieval.run"
SHARDS_KEY = "shards_sha256"  # in that text: the hash of each shard of the version
COMMIT_KEY = "commit_id"  # in that text: what tells two commits apart if the run has no run_id
RECORD_FORMAT = 1  # newest format_version of an index, which stands in that text
NUM_ACTIONS_KEY = "retrieval.num_actions"  # beside it: lines that follow in the entry
# What deltalake takes for parts of a web address, or refuses late.
_MISREAD = re.compile(r"[#?\\\x00-\x1f]|%[0-9A-Fa-f]{2}")
# A version that is not committed, kept aside: its description stands for an index to whoever
# opens it.
_CANDIDATE_FORMAT = 1
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
        raise StorageError(f"{uri}: no index there. Make one: retrieval-cli embed PHOTOS {uri}")
    if _CANDIDATE.fullmatch(uri):
        return _read_candidate(uri)
    try:
        table, files = asked(uri, lambda: _read_log(uri, version))
        fields = {field.name: field for field in table.schema().fields}
    except (DeltaError, OSError, ValueError) as error:
        raise _unreadable(uri, version, error) from error
    if "embedding" not in fields or "image_id" not in fields:
        raise IndexFormatError(
            f"{uri}: a table with the columns {', '.join(fields)}; image_id and embedding are "
            f"needed. Only tables written by `retrieval-cli embed` are indexes."
        )
    spec = EmbeddingSpec.from_metadata(fields["embedding"].metadata, uri)
    record = _read_record(uri, table.version())
    hashes = record.get(SHARDS_KEY, dict.fromkeys(files, ""))
    if not isinstance(hashes, dict) or hashes.keys() != files.keys():
        raise torn(uri, table.version())
    return Index(
        uri=uri,
        version=table.version(),
        spec=spec,
        shards=tuple(
            Shard(path, files[path]["num_records"], files[path]["size_bytes"], hashes[path])
            for path in sorted(files)
        ),
        run=_said(record),
    )


def _read_log(uri: str, version: int | None) -> tuple[DeltaTable, dict[str, dict[str, Any]]]:
    table = open_table(uri, version)
    return table, live_files(table)


def open_table(uri: str, version: int | None = None) -> DeltaTable:
    """The table of an index; raises DeltaError and OSError as deltalake does."""
    return DeltaTable(uri, version=version, storage_options=delta_options(uri))


def save_candidate(index: Index) -> str:
    """Keep a version aside that is not committed; gives an address that opens as an index.

    Raises:
        StorageError: the folder cannot be written.
    """
    uri = join(index.uri, "_candidates", f"{index.run['run_id']}.json")
    write_bytes(uri, json.dumps({FORMAT_VERSION: _CANDIDATE_FORMAT, **asdict(index)}).encode())
    return uri


def _read_candidate(uri: str) -> Index:
    try:
        found = read_json(uri, max_bytes=LISTING_BYTES)
        check_format_version(found, _CANDIDATE_FORMAT, uri, IndexFormatError)
        found.pop(FORMAT_VERSION, None)
        spec = EmbeddingSpec(**found.pop("spec"))
        shards = tuple(Shard(**shard) for shard in found.pop("shards"))
        for shard in shards:
            check_below(shard.path, uri)
        # Not where it was written: the index may have moved since.
        return Index(**{**found, "uri": index_of(uri)}, spec=spec, shards=shards)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise IndexFormatError(f"{uri}: no candidate of an index ({first_line(error)}).") from error


def live_files(table: DeltaTable) -> dict[str, dict[str, Any]]:
    """What the log says of each file of a version, by its path inside the index.

    Raises:
        IndexFormatError: a file lies outside, as those of a shallow clone do.
    """
    files = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    return {check_below(unquote(file["path"]), table.table_uri): file for file in files}


def _unreadable(uri: str, version: int | None, error: Exception) -> Exception:
    """Why a version cannot be opened."""
    newest = newest_version(uri)
    if newest is not None and version is not None and not 0 <= version <= newest:
        return UsageError(f"{uri}: has no version {version}; the newest is {newest}.")
    if newest is not None and version in (None, newest) and is_torn(uri, newest):
        return torn(uri, newest)
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


def entry_uri(uri: str, version: int) -> str:
    """Where the log keeps the commit of a version."""
    return join(uri, "_delta_log", f"{version:020d}.json")


def read_run(uri: str, version: int) -> Mapping[str, Any]:
    """What the run that committed a version said of itself.

    Args:
        uri: The index.
        version: Number of the commit. Its shards need not be there any more.

    Returns:
        What `commit_index` was given as `run`; nothing if another tool made the commit, or
        if its entry has been cleaned up.

    Raises:
        IndexFormatError: the entry is torn.
        StorageError: the entry cannot be read.
    """
    return _said(_read_record(table_uri(uri), version))


def _said(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what `commit_index` added."""
    own = (SHARDS_KEY, COMMIT_KEY, FORMAT_VERSION)
    return {key: record[key] for key in record if key not in own}


def _read_record(uri: str, version: int) -> dict[str, Any]:
    # Not by DeltaTable.history: that begins with the newest commit, whatever version is open.
    try:
        return read_record(commit_info(uri, version), entry_uri(uri, version))
    except ValueError as error:
        raise torn(uri, version) from error
    except OSError as error:
        raise StorageError(
            f"{entry_uri(uri, version)}: cannot be read ({first_line(error)}). Allow reading it."
        ) from error


def read_record(info: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a commit says of itself; {} of one that another tool has made.

    Args:
        info: Of `commit_info`.
        where: The entry, for the error.

    Raises:
        ValueError: it is no JSON object.
        IndexFormatError: a newer release has written it.
    """
    record = json.loads(info.get(RUN_KEY, "{}"))
    if not isinstance(record, dict):
        raise ValueError("no JSON object")
    check_format_version(record, RECORD_FORMAT, where, IndexFormatError)
    return record


def commit_info(uri: str, version: int) -> dict[str, Any]:
    """The part of a log entry that describes the commit; empty if the entry is gone.

    Raises:
        ValueError: the entry is torn: empty, cut within a line or after one.
        OSError: as the file system raises it.
    """
    try:
        lines = read_bytes(entry_uri(uri, version)).splitlines()
    except FileNotFoundError:
        return {}  # an old version, whose entry has been cleaned up
    actions = [json.loads(line) for line in lines]
    info: dict[str, Any] = {}
    for action in actions:
        info |= action.get("commitInfo", {})
    if not actions or len(actions) != 1 + info.get(NUM_ACTIONS_KEY, len(actions) - 1):
        raise ValueError(f"{len(actions)} lines")
    return info


def is_torn(uri: str, version: int) -> bool:
    """Whether the entry of a version is not whole, as a loss of power can leave it."""
    try:
        record = json.loads(commit_info(uri, version).get(RUN_KEY, "{}"))
    except ValueError:
        return True
    try:
        files = live_files(open_table(uri, version))
    except (DeltaError, OSError, ValueError):
        return False  # the entry is whole: something else is wrong
    return SHARDS_KEY in record and record[SHARDS_KEY].keys() != files.keys()


def torn(uri: str, version: int) -> IndexFormatError:
    """The error for an entry that is not whole."""
    return IndexFormatError(
        f"{uri}: version {version} is incomplete, as a loss of power leaves it "
        f"(_delta_log/{version:020d}.json). Set that file aside: retrieval-cli restore {uri} --torn"
    )
