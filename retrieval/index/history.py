"""The versions of an index: naming one, reading what its run did, and how far back one can go.

Each commit is a JSON file of the log, which names the shards that it added and removed. So the
log tells, from the newest version backwards and without opening a shard, which of the older
versions are still whole: those of which no shard has been vacuumed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import pyarrow.fs as pafs

from retrieval.errors import IndexFormatError, RetrievalError, StorageError
from retrieval.index.entries import (
    SHARDS_KEY,
    check_bytes,
    entry_uri,
    parse_entry,
    said,
)
from retrieval.index.folder import stored_files
from retrieval.index.table import Index
from retrieval.storage import (
    absolute_uri,
    first_line,
    is_local,
    is_no_answer,
    join,
    not_read,
    open_store,
    read_bytes,
)

__all__ = [
    "LOG",
    "Commit",
    "Log",
    "oldest_readable",
    "read_commit",
    "read_commits",
    "read_log",
    "split_version",
]

Result = TypeVar("Result")

LOG = "_delta_log"
_AT_VERSION = re.compile(r"(.+)@(\d+)")
_ENTRY = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint(\..+)?\.parquet")
# Requests to a store that are under way together; a log on a disk gains nothing by them.
_AT_ONCE = 16
_BATCH = 64


def split_version(uri: str) -> tuple[str, int | None]:
    """Tell index@12, version 12 of an index, from a plain name.

    Returns:
        Absolute location, and version; None where none is named. A file or folder that is
        really called so is taken as it is.

    Raises:
        UsageError, StorageError: the location makes no sense, or cannot be reached.

    Example:
        >>> split_version("s3://photos/index")
        ('s3://photos/index', None)
        >>> split_version("/nowhere/index@12")
        ('/nowhere/index', 12)
    """
    uri = absolute_uri(uri)
    found = _AT_VERSION.fullmatch(uri)
    if found is None or found[1].endswith("/") or _is_there(uri):
        return uri, None
    return found[1], int(found[2])


def _is_there(uri: str) -> bool:
    if is_local(uri):
        return Path(uri).exists()
    filesystem, path = open_store(uri)
    try:
        return bool(filesystem.get_file_info(path).type != pafs.FileType.NotFound)
    except OSError as error:
        raise StorageError(f"{uri}: cannot be looked up ({first_line(error)}).") from error


@dataclass(frozen=True)
class Log:
    """What the folder of the log holds.

    Attributes:
        entries: Versions that have a JSON file, ascending.
        checkpoints: Versions that have a checkpoint, ascending.
        size_bytes: Of all files.
    """

    entries: tuple[int, ...]
    checkpoints: tuple[int, ...]
    size_bytes: int

    def first_entry(self, version: int) -> int:
        """The oldest version from which on, up to this one, no entry is missing.

        The number after it where its own entry has been cleaned up.
        """
        there, first = set(self.entries), version + 1
        while first - 1 in there:
            first -= 1
        return first

    def oldest_openable(self, version: int) -> int:
        """The oldest version from which on, up to this one, the log tells every content."""
        first = self.first_entry(version)
        if first == 0:
            return 0
        bases = [base for base in self.checkpoints if first - 1 <= base <= version]
        return min(bases, default=version)


def read_log(uri: str) -> Log:
    """List the log of an index; errors as `stored_files`."""
    files = stored_files(join(uri, LOG))
    names = [file.name for file in files]
    return Log(
        tuple(int(found[1]) for found in map(_ENTRY.fullmatch, names) if found),
        tuple(sorted({int(found[1]) for found in map(_CHECKPOINT.fullmatch, names) if found})),
        sum(file.size_bytes for file in files),
    )


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One entry of the log.

    Attributes:
        version: Its number.
        timestamp_ms: When it was made, milliseconds since 1970; None if it does not say so.
        added, removed: Paths of shards.
        shards: Paths of all shards of the version, as its run says; None if others made it.
        run: What its run said of itself; empty if others made it.
    """

    version: int
    timestamp_ms: int | None
    added: frozenset[str]
    removed: frozenset[str]
    shards: frozenset[str] | None
    run: Mapping[str, Any]

    def before(self, content: Collection[str]) -> set[str]:
        """The shards of the version before this one, from those of this one."""
        return (set(content) - self.added) | self.removed


def read_commit(uri: str, version: int) -> Commit:
    """Read one entry of the log.

    Raises:
        IndexFormatError: it is missing or damaged.
    """
    name = entry_uri(uri, version)
    try:
        entry = parse_entry(read_bytes(name), name)
        shards = entry.record.get(SHARDS_KEY)
        return Commit(
            version=version,
            timestamp_ms=_timestamp(entry.info),
            added=_paths(entry.actions, "add"),
            removed=_paths(entry.actions, "remove"),
            shards=None if shards is None else frozenset(shards),
            run=said(entry.record),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable(name, error) from error


def _timestamp(info: Mapping[str, Any]) -> int | None:
    found = info.get("timestamp")
    if found is not None and (type(found) is not int or not 0 <= found < 2**53):
        raise ValueError(f"timestamp is {found!r}")
    return found


def read_commits(uri: str, versions: Sequence[int]) -> Iterator[Commit]:
    """Read some entries, in this order; errors as `read_commit`, each in its turn."""
    return _each(uri, versions, read_commit)


def oldest_readable(index: Index, there: Collection[str]) -> int | None:
    """How far back every version can still be read, without a gap.

    Args:
        index: The newest version.
        there: Names of the files in the index's folder.

    Returns:
        The oldest of these versions; None if even the newest lacks a shard. A version before
        it may happen to be whole, too.

    Raises:
        IndexFormatError: an entry of the log is damaged.

    Cost: reads the log backwards, as far as the versions are whole: some 0.1 ms an entry on a
        disk, and from a store 16 requests at a time.
    """
    if any(shard.path not in there for shard in index.shards):
        return None
    oldest = read_log(index.uri).oldest_openable(index.version)
    versions = range(index.version, oldest, -1)
    # A version holds no shard but those of the next one and those that this removed.
    for version, removed in zip(versions, _each(index.uri, versions, _removed), strict=True):
        if any(path not in there for path in removed):
            return version
    return oldest


def _removed(uri: str, version: int) -> frozenset[str]:
    """What a commit removed. The long lines, of what it says and added, are not decoded."""
    name = entry_uri(uri, version)
    try:
        data = read_bytes(name)
        check_bytes(data)
        lines = data.splitlines()
        actions = [
            json.loads(line) for line in lines if not line.startswith((b'{"add', b'{"commitInfo'))
        ]
        return _paths(actions, "remove")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise _unreadable(name, error) from error


def _paths(actions: Sequence[Mapping[str, Any]], kind: str) -> frozenset[str]:
    # Delta Lake writes a path as in a web address.
    return frozenset(unquote(action[kind]["path"]) for action in actions if kind in action)


def _unreadable(name: str, error: Exception) -> RetrievalError:
    if is_no_answer(error):
        return not_read(name, error)
    return IndexFormatError(
        f"{name}: this entry of the log cannot be read ({first_line(error)}). Versions before it "
        f"cannot be told any more; if it is the newest: retrieval-cli restore INDEX --torn"
    )


def _each(
    uri: str, versions: Sequence[int], read: Callable[[str, int], Result]
) -> Iterator[Result]:
    if is_local(uri):
        yield from (read(uri, version) for version in versions)
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(versions), _BATCH):  # so that whoever has enough can stop
            yield from pool.map(partial(read, uri), versions[start : start + _BATCH])
