"""Removing what no version that anybody may still want to read needs.

What is kept: every shard of the newest version, and every one that a commit younger than some
days has removed, so that each version that was current at any moment of these days can be read
and restored; the rejects of all versions that can still be read; and all that is younger than
these days, since the work of a running night looks like rubbish until it is committed.

It may run beside nights, restores and other vacuums, whatever their clocks say: before shards and
rejects are removed, a list of them is written and a version committed that changes nothing, after
which nobody commits them any more. removal_lists.py says why that is enough. Where neither is to
be removed there is no such version.

Only files by the names that this program gives are removed, and no link is followed. Not by
deltalake's own vacuum, which writes to the log without syncing it. A kill in the middle leaves
some of the rubbish and harms nothing; receipts go before the shards they name.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from retrieval.breakpoints import reached
from retrieval.errors import MismatchError, StorageError, UsageError
from retrieval.index.commit import commit_again
from retrieval.index.folder import (
    StoredFile,
    is_behind_link,
    own_files,
    stored_files,
    stored_folders,
)
from retrieval.index.history import LOG, oldest_readable, read_commits, read_log
from retrieval.index.local_log import remove_scratch
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
from retrieval.index.removal_lists import (
    VACUUM_KEY,
    State,
    read_lists,
    state_of,
    write_list,
)
from retrieval.index.table import Index, open_index, table_uri
from retrieval.storage import absolute_uri, is_local, join, read_bytes
from retrieval.storage.removal import remove_written

__all__ = ["KINDS", "Rubbish", "find_rubbish", "vacuum_index"]

# In this order they are removed.
KINDS = ("leftovers", "candidates", "receipts", "rejects", "shards")
_DAY_S = 24 * 3600
_SHARD_NAME = re.compile(SHARD.pattern)
_BATCH = 64  # files of a store that are removed side by side
# What an old record says of its own commit alone.
_OWN = ("run_id", "commit_id", "created_at", VACUUM_KEY)


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

    Cost: lists the folder and reads the log; then a request a file, and a commit if a shard or
        rejects are among them.
    """
    if keep_days < 1 and not force:
        raise UsageError(
            f"--keep-days {keep_days:g}: what a running night has written and not committed yet "
            f"would be removed, and versions that somebody is reading. Use 1 or more, or --force "
            f"when nothing else is running."
        )
    uri, now_s = table_uri(uri), time.time() if now_s is None else now_s
    if not dry_run:
        _carry_out_lists(uri)
    rubbish = find_rubbish(uri, keep_days, now_s)
    while not dry_run and not _is_announced(rubbish):
        rubbish = find_rubbish(uri, keep_days, now_s)
    if not dry_run:
        _remove(rubbish)
    return {
        "index": rubbish.index.uri,
        "version": rubbish.index.version,
        "keep_days": keep_days,
        "dry_run": dry_run,
        "removed": {
            kind: {"files": len(files), "bytes": sum(file.size_bytes for file in files)}
            for kind, files in rubbish.files.items()
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


def _is_announced(rubbish: Rubbish) -> bool:
    """Whether shards and rejects may be removed; not if somebody has committed meanwhile.

    See removal_lists.py. Also where nothing is to be removed, if a vacuum was killed before its
    commit: this one's makes its list dead.
    """
    index = rubbish.index
    names = [file.name for kind in ("rejects", "shards") for file in rubbish.files[kind]]
    if not names and State.OPEN not in state_of(index.uri, read_lists(index.uri)):
        return True
    written = write_list(index.uri, index.version, names)
    reached("list written")
    run = {
        **{key: value for key, value in index.run.items() if key not in _OWN},
        "run_id": f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
        "created_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "rejects": rejects_path(index.run, index.uri),
        VACUUM_KEY: written.list_id,
        # Of several vacuums in turn, the first version that they repeat, and who made it.
        "repeated_version": index.run.get("repeated_version", index.version),
        "repeated_run_id": index.run.get("repeated_run_id", index.run.get("run_id")),
    }
    try:
        commit_again(index, run)
    except MismatchError:
        remove_written(index.uri, [written.path])
        return False
    return True


def _carry_out_lists(uri: str) -> None:
    """Remove what is listed in force, by this vacuum or another one, and the lists; drop dead ones.

    A listed file is live only where an older release, which knows no lists, has committed it just
    now: it stays.
    """
    lists = read_lists(uri)
    for each, state in zip(lists, state_of(uri, lists), strict=True):
        if state is State.OPEN:
            continue
        if state is State.IN_FORCE:
            needed = _needed(open_index(uri))
            names = [name for name in each.names if not needed & {name, _folder(name)}]
            _remove_files(uri, names)
            folders = {_folder(name) for name in names} - {""}
            remove_written(uri, [], folders=sorted(folders))
        reached("list carried out")
        remove_written(uri, [each.path])
        reached("list removed")


def _remove(rubbish: Rubbish) -> None:
    """Remove it, in the order of KINDS; rejects and shards by the list that is in force now."""
    uri = rubbish.index.uri
    for kind in ("leftovers", "candidates", "receipts"):
        names = [file.name for file in rubbish.files[kind]]
        _remove_files(uri, [name for name in names if not SCRATCH.fullmatch(name)])
        for name in filter(SCRATCH.fullmatch, names):
            remove_scratch(uri, name)
    _carry_out_lists(uri)


def _needed(index: Index) -> set[str | None]:
    return {rejects_path(index.run, index.uri), *(shard.path for shard in index.shards)}


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _remove_files(uri: str, names: Sequence[str]) -> None:
    step = 1 if is_local(uri) else _BATCH
    for start in range(0, len(names), step):
        reached("vacuum")
        remove_written(uri, names[start : start + step])
