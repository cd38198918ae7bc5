"""What an index holds that no version of the last days needs, by the log and the ages of files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.errors import StorageError, UsageError
from retrieval.failpoints import reached
from retrieval.index.folder import (
    StoredFile,
    is_behind_link,
    own_files,
    stored_files,
    stored_folders,
)
from retrieval.index.history import LOG, oldest_readable, read_commits, read_log
from retrieval.index.names import (
    CANDIDATE,
    CANDIDATES,
    RECEIPT,
    REJECTS,
    REJECTS_FILE,
    RUNS,
    SCRATCH,
    SHARD,
    STAGED,
    STAGING,
    UNFINISHED,
    VACUUM,
)
from retrieval.index.rejects import rejects_path
from retrieval.index.table import Index, open_index
from retrieval.storage import absolute_uri, is_local, join, read_bytes

__all__ = ["KINDS", "Rubbish", "find_rubbish"]

# In this order they are removed.
KINDS = ("leftovers", "candidates", "receipts", "rejects", "shards")
_DAY_S = 24 * 3600
_SHARD_NAME = re.compile(SHARD.pattern)


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


def find_rubbish(uri: str, keep_days: float, now_s: float) -> Rubbish:
    """Tell what may be removed; errors as `vacuum_index`."""
    cutoff_s = now_s - keep_days * _DAY_S
    # Before the log: what is committed meanwhile is in one of these, and not taken for rubbish.
    there, work = stored_files(uri), _Work(uri, cutoff_s)
    index = open_index(uri)
    wanted = {shard.path for shard in index.shards} | _removed_since(index, cutoff_s, keep_days)
    wanted |= work.shards
    shards = [
        file for file in there if SHARD.fullmatch(file.name) and not is_behind_link(uri, file.name)
    ]
    old = [file for file in _old(shards, cutoff_s) if file.name not in wanted]
    oldest = oldest_readable(index, {file.name for file in there} - {file.name for file in old})
    files = {
        "leftovers": _leftovers(index.uri, min(cutoff_s, now_s - _DAY_S)),
        "candidates": _old(own_files(uri, CANDIDATES, CANDIDATE), cutoff_s),
        "receipts": work.rubbish,
        "rejects": _rejects(index, oldest, work, cutoff_s),
        "shards": sorted(old, key=lambda file: file.modified_s),
    }
    reached("rubbish found")
    return Rubbish(index, files, oldest)


def _old(files: Sequence[StoredFile], cutoff_s: float) -> list[StoredFile]:
    return [file for file in files if file.modified_s <= cutoff_s]


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
            f"`keep_days` {keep_days:g}: the log of {index.uri} goes back to version {first} "
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
        ours = own_files(uri, STAGING, STAGED)
        # A night that goes on after one that was killed needs the old receipts beside its own.
        is_going_on = any(file.modified_s > cutoff_s for file in ours)
        self.rubbish = [] if is_going_on else ours
        kept = [file.name for file in ours if is_going_on and RECEIPT.fullmatch(file.name)]
        self.text = "\n".join(_text(join(uri, name)) for name in kept)
        self.shards = set(_SHARD_NAME.findall(self.text))


def _text(uri: str) -> str:
    try:
        return read_bytes(uri).decode(errors="replace")
    except FileNotFoundError:
        return ""  # its run has just committed
    except OSError as error:
        raise StorageError(f"{uri}: cannot be read. Allow reading it.") from error


def _rejects(index: Index, oldest: int | None, work: _Work, cutoff_s: float) -> list[StoredFile]:
    """Rejects of versions that cannot be read any more, and of runs that never committed."""
    uri = index.uri
    versions = range(index.version, (index.version if oldest is None else oldest) - 1, -1)
    entries = set(read_log(uri).entries)
    there = [version for version in versions if version in entries]
    named = {rejects_path(commit.run, uri) for commit in read_commits(uri, there)}
    found: list[StoredFile] = []
    for name in [] if is_behind_link(uri, REJECTS) else stored_folders(join(uri, REJECTS)):
        folder = join(REJECTS, name)
        files = own_files(uri, folder, REJECTS_FILE)
        is_young = any(file.modified_s > cutoff_s for file in files)
        if folder not in named and name not in work.text and not is_young:
            found += files
    return found


def _leftovers(uri: str, cutoff_s: float) -> list[StoredFile]:
    """What killed processes left of files that they were writing; a store keeps nothing."""
    if not is_local(uri):
        return []
    folders = ("", LOG, STAGING, RUNS, CANDIDATES, VACUUM)
    found = [file for folder in folders for file in own_files(uri, folder, UNFINISHED)]
    return _old([*found, *_scratch(uri)], cutoff_s)


def _scratch(uri: str) -> list[StoredFile]:
    """The folders in which checkpoints are made; one whose process was killed stays."""
    names = [name for name in stored_folders(uri) if SCRATCH.fullmatch(name)]
    return [
        StoredFile(name, 0, Path(absolute_uri(uri), name).stat().st_mtime)
        for name in names
        if not is_behind_link(uri, name)
    ]
