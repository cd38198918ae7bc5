"""Removing what no version that anybody may still want to read needs.

What is kept: every shard of the newest version, and every one that a commit younger than some
days has removed, so that each version that was current at any moment of these days can be read
and restored; the rejects of all versions that can still be read; and all that is younger than
these days, since the work of a running night looks like rubbish until it is committed.

Not by deltalake's own vacuum, which writes to the log without syncing it: this never writes to
the log at all. A kill in the middle leaves some of the rubbish and harms nothing; receipts go
before the shards they name, so that no receipt names a shard that is gone.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.breakpoints import reached
from retrieval.errors import StorageError, UsageError
from retrieval.index.folder import StoredFile, stored_files, stored_folders
from retrieval.index.history import LOG, oldest_readable, read_commits, read_log
from retrieval.index.rejects import rejects_path
from retrieval.index.table import Index, open_index
from retrieval.storage import (
    absolute_uri,
    is_local,
    join,
    read_bytes,
    remove_file,
    remove_folder,
    unfinished_files,
)

__all__ = ["KINDS", "Rubbish", "find_rubbish", "vacuum_index"]

# In this order they are removed.
KINDS = ("leftovers", "candidates", "receipts", "rejects", "shards")
_DAY_S = 24 * 3600
_SHARD = re.compile(r"shard-[0-9a-f]{32}\.parquet")
_SCRATCH = re.compile(r"\.checkpoint\.[0-9a-f]{32}\.tmp")
_STAGING, _REJECTS, _RUNS = "_staging", "_rejects", "_runs"
_CANDIDATES = "_candidates"
_AT_ONCE = 16  # requests to a store
_BATCH = 64  # files removed between two looks at the log


@dataclass(frozen=True)
class Rubbish:
    """What may be removed.

    Attributes:
        index: The version that was the newest.
        files: For each of KINDS, the files, with their paths relative to the index as names.
        oldest_readable: The oldest version from which on all can be read when they are gone.
    """

    index: Index
    files: dict[str, list[StoredFile]]
    oldest_readable: int | None


def vacuum_index(
    uri: str,
    keep_days: float = 7,
    *,
    dry_run: bool = False,
    force: bool = False,
    now_s: float | None = None,
) -> dict[str, Any]:
    """Remove what no version of the last days needs.

    Args:
        uri: The index.
        keep_days: Days. Every version that was current in them can still be read afterwards.
        dry_run: Only tell.
        force: Allow less than a day.
        now_s: The present, seconds since 1970; the clock's by default.

    Returns:
        The report: files and bytes of each of KINDS, and the oldest version from which on
        all can be read.

    Raises:
        UsageError: less than a day; or the log no longer tells what was current then.
        StorageError: a file cannot be removed; or there is no index.

    Cost: lists the folder and reads the log; then a request a file. A restore of a version
        older than these days may not run at the same time: the log is looked at again before
        every 64 shards, which leaves it moments only, and the restore says so if it lost one.
    """
    if keep_days < 1 and not force:
        raise UsageError(
            f"--keep-days {keep_days:g}: what a running night has written and not committed yet "
            f"would be removed, and versions that somebody is reading. Use 1 or more, or --force "
            f"when nothing else is running."
        )
    rubbish = find_rubbish(uri, keep_days, time.time() if now_s is None else now_s)
    removed = rubbish.files if dry_run else _remove(rubbish)
    return {
        "index": rubbish.index.uri,
        "version": rubbish.index.version,
        "keep_days": keep_days,
        "dry_run": dry_run,
        "removed": {
            kind: {"files": len(files), "bytes": sum(file.size_bytes for file in files)}
            for kind, files in removed.items()
        },
        "oldest_readable": rubbish.oldest_readable,
    }


def find_rubbish(uri: str, keep_days: float, now_s: float) -> Rubbish:
    """Tell what may be removed; errors as `vacuum_index`."""
    cutoff_s = now_s - keep_days * _DAY_S
    # Before the log: what is committed meanwhile is in one of these, and not taken for rubbish.
    there, work = stored_files(uri), _Work(uri, cutoff_s)
    index = open_index(uri)
    wanted = {shard.path for shard in index.shards} | _removed_since(index, cutoff_s, keep_days)
    wanted |= work.shards
    old = [
        file
        for file in there
        if _SHARD.fullmatch(file.name) and file.name not in wanted and file.modified_s <= cutoff_s
    ]
    oldest = oldest_readable(index, {file.name for file in there} - {file.name for file in old})
    files = {
        "leftovers": _leftovers(index.uri, cutoff_s),
        "candidates": [
            file
            for file in _inside(_CANDIDATES, stored_files(join(index.uri, _CANDIDATES)))
            if file.name.endswith(".json") and file.modified_s <= cutoff_s
        ],
        "receipts": work.rubbish,
        "rejects": _rejects(index, oldest, work, cutoff_s),
        "shards": sorted(old, key=lambda file: file.modified_s),
    }
    return Rubbish(index, files, oldest)


def _removed_since(index: Index, cutoff_s: float, keep_days: float) -> set[str]:
    """The shards that commits younger than the cutoff have removed: those of its versions."""
    first = read_log(index.uri).first_entry(index.version)
    wanted, later = set[str](), set[str]()
    is_young = True
    for commit in read_commits(index.uri, range(index.version, first - 1, -1)):
        later |= commit.removed
        is_young = commit.timestamp_ms is None or commit.timestamp_ms > cutoff_s * 1000
        if is_young:  # and so are all after it, whatever the clocks of their machines said
            wanted |= later
    if first > 0 and is_young:
        raise UsageError(
            f"--keep-days {keep_days:g}: the log of {index.uri} goes back to version {first} "
            f"alone, which is younger, so that nobody can tell what was current before. Use "
            f"fewer days."
        )
    return wanted


class _Work:
    """What runs have staged and not committed.

    Attributes:
        rubbish: Files that no run will go on after: all of them are old.
        shards: Shards that the others name.
        text: The receipts that are kept; what they name is in use.
    """

    def __init__(self, uri: str, cutoff_s: float) -> None:
        files = stored_files(join(uri, _STAGING))
        # A night that goes on after one that was killed needs the old receipts beside its own.
        is_going_on = any(file.modified_s > cutoff_s for file in files)
        ours = [file for file in files if file.name.endswith((".json", ".rejects.parquet"))]
        self.rubbish = [] if is_going_on else _inside(_STAGING, ours)
        kept = [file.name for file in files if is_going_on and file.name.endswith(".json")]
        self.text = "\n".join(_text(join(uri, _STAGING, name)) for name in kept)
        self.shards = set(_SHARD.findall(self.text))


def _text(uri: str) -> str:
    try:
        return read_bytes(uri).decode(errors="replace")
    except FileNotFoundError:
        return ""  # its run has just committed
    except OSError as error:
        raise StorageError(f"{uri}: cannot be read. Allow reading it.") from error


def _inside(folder: str, files: Iterable[StoredFile]) -> list[StoredFile]:
    return [StoredFile(join(folder, file.name), file.size_bytes, file.modified_s) for file in files]


def _rejects(index: Index, oldest: int | None, work: _Work, cutoff_s: float) -> list[StoredFile]:
    """Rejects of versions that cannot be read any more, and of runs that never committed."""
    versions = range(index.version, (index.version if oldest is None else oldest) - 1, -1)
    entries = set(read_log(index.uri).entries)
    there = [version for version in versions if version in entries]
    named = {rejects_path(commit.run) for commit in read_commits(index.uri, there)}
    found: list[StoredFile] = []
    for name in stored_folders(join(index.uri, _REJECTS)):
        folder = join(_REJECTS, name)
        files = stored_files(join(index.uri, folder))
        is_young = any(file.modified_s > cutoff_s for file in files)
        if folder not in named and name not in work.text and not is_young:
            found += _inside(folder, (file for file in files if file.name.endswith(".parquet")))
    return found


def _leftovers(uri: str, cutoff_s: float) -> list[StoredFile]:
    """What killed processes left of files that they were writing."""
    found = []
    for folder in ("", LOG, _STAGING, _RUNS):
        where = join(uri, folder) if folder else uri
        names = set(unfinished_files(where))
        files = [
            file
            for file in stored_files(where)
            if join(where, file.name) in names and file.modified_s <= cutoff_s
        ]
        found += _inside(folder, files) if folder else files
    return found + (_scratch_folders(uri, cutoff_s) if is_local(uri) else [])


def _scratch_folders(uri: str, cutoff_s: float) -> list[StoredFile]:
    """In which a killed process was making a checkpoint, of links to the log."""
    names = [name for name in stored_folders(uri) if _SCRATCH.fullmatch(name)]
    found = [StoredFile(name, 0, Path(absolute_uri(uri), name).stat().st_mtime) for name in names]
    return [folder for folder in found if folder.modified_s <= cutoff_s]


def _remove(rubbish: Rubbish) -> dict[str, list[StoredFile]]:
    """Remove it, in the order of KINDS; gives what has been."""
    uri = rubbish.index.uri
    removed: dict[str, list[StoredFile]] = {}
    for kind in KINDS:
        removed[kind] = []
        files = rubbish.files[kind]
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            if kind in ("rejects", "shards"):
                needed = _needed(open_index(uri))  # one may have been restored meanwhile
                batch = [file for file in batch if not needed & {file.name, _folder(file)}]
            _remove_files(uri, [file.name for file in batch])
            removed[kind] += batch
    for folder in set(map(_folder, removed["rejects"])):
        where = join(uri, folder)
        if not stored_files(where) and not stored_folders(where):
            remove_folder(where)
    return removed


def _needed(index: Index) -> set[str | None]:
    return {rejects_path(index.run), *(shard.path for shard in index.shards)}


def _folder(file: StoredFile) -> str:
    return file.name.rpartition("/")[0]


def _remove_files(uri: str, names: Sequence[str]) -> None:
    def remove(name: str) -> None:
        reached("vacuum")
        remove_file(join(uri, name))
        if _SCRATCH.fullmatch(name):
            remove_folder(join(uri, name))

    with ThreadPoolExecutor(1 if is_local(uri) else _AT_ONCE) as pool:
        list(pool.map(remove, names))
