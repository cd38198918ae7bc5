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

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from retrieval.errors import MismatchError, UsageError
from retrieval.failpoints import reached
from retrieval.index.commit import commit_again
from retrieval.index.delta_log_writer import remove_scratch
from retrieval.index.names import SCRATCH
from retrieval.index.rejects import rejects_path
from retrieval.index.removal_lists import VACUUM_KEY, State, read_lists, state_of, write_list
from retrieval.index.table import Index, open_index, table_uri
from retrieval.maintenance.unneeded_files import KINDS, Rubbish, find_rubbish
from retrieval.storage import is_local
from retrieval.storage.removal import remove_written

__all__ = ["KINDS", "FileCount", "Vacuumed", "vacuum_index"]

_BATCH = 64  # files of a store that are removed side by side
# What an old record says of its own commit alone.
_OWN = ("run_id", "commit_id", "created_at", VACUUM_KEY)


@dataclass(frozen=True)
class FileCount:
    """How many files, and their bytes."""

    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Vacuumed:
    """What a vacuum removed, or would remove.

    Attributes:
        index: The index.
        version: Its newest version.
        keep_days: Days of which every version can be read.
        dry_run: Whether it only tells.
        removed: Files of each of KINDS.
        oldest_readable: The oldest version from which on all can be read afterwards.
    """

    index: str
    version: int
    keep_days: float
    dry_run: bool
    removed: Mapping[str, FileCount]
    oldest_readable: int | None

    def to_json(self) -> dict[str, Any]:
        """The attributes by their names."""
        return asdict(self)


def vacuum_index(
    uri: str,
    keep_days: float = 7,
    *,
    dry_run: bool = False,
    force: bool = False,
    now_s: float | None = None,
) -> Vacuumed:
    """Remove what no version of the last days needs.

    Args:
        uri: The index.
        keep_days: Days. Every version that was current in them can still be read afterwards.
        dry_run: Only tell.
        force: Allow less than a day.
        now_s: The present, seconds since 1970; the clock's by default.

    Raises:
        UsageError: less than a day; or the log no longer tells what was current then.
        StorageError: a file cannot be removed; or there is no index.

    Cost: lists the folder and reads the log; then a request a file, and a commit if a shard or
        rejects are among them.
    """
    if keep_days < 1 and not force:
        raise UsageError(
            f"`keep_days` {keep_days:g}: what a running night has written and not committed yet "
            f"would be removed, and versions that somebody is reading. Use 1 or more, or `force` "
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
    return Vacuumed(
        index=rubbish.index.uri,
        version=rubbish.index.version,
        keep_days=keep_days,
        dry_run=dry_run,
        removed={
            kind: FileCount(len(files), sum(file.size_bytes for file in files))
            for kind, files in rubbish.files.items()
        },
        oldest_readable=rubbish.oldest_readable,
    )


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
