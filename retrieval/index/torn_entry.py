"""What a loss of power has left of the newest entry of a log, set aside."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from retrieval.errors import StorageError, UsageError
from retrieval.index import delta_log_writer as local_log
from retrieval.index.entries import entry_uri
from retrieval.index.folder import is_behind_link
from retrieval.index.history import LOG, read_log
from retrieval.index.table import newest_version, table_uri, why_torn
from retrieval.storage import entry_at, first_line, is_local, join, list_files, open_store

__all__ = ["set_torn_entry_aside"]


def set_torn_entry_aside(uri: str) -> int | None:
    """Go back to the version before one whose entry a loss of power has torn, or a disk damaged.

    The entry is kept beside the log as N.json.torn; no shard is removed. What had that name before
    is kept as N.json.torn.2, and so on. Where the entries are whole and a checkpoint, which only
    sums them up, is not, the checkpoint is set aside alike and no version is lost.

    Returns:
        The version that is current now; None if the only one was torn.

    Raises:
        UsageError: the newest entry is whole.
        StorageError: it cannot be renamed.
    """
    uri = table_uri(uri)
    newest = newest_version(uri)
    if newest is None or why_torn(uri, newest) is None:
        raise UsageError(f"{uri}: no torn entry in its log, so there is none to set aside.")
    if _checkpoints_set_aside(uri, newest) and why_torn(uri, newest) is None:
        return newest
    _set_aside(uri, entry_uri(uri, newest))
    return newest_version(uri)


def _checkpoints_set_aside(uri: str, newest: int) -> bool:
    """Whether there were checkpoints, of a log that tells everything without them."""
    log = read_log(uri)
    if log.first_entry(newest) != 0 or not log.checkpoints:
        return False
    for file in list_files(join(uri, LOG)):
        if file.endswith((".parquet", "/_last_checkpoint")):
            _set_aside(uri, file)
    return True


def _set_aside(uri: str, entry: str) -> None:
    if is_behind_link(uri, entry[len(uri) + 1 :]):
        raise StorageError(f"{entry}: leads through a link, and is left alone. Rename it yourself.")
    try:
        if entry_at(f"{entry}.torn"):
            _rename(f"{entry}.torn", _free_name(entry))
        _rename(entry, f"{entry}.torn")
        if is_local(uri):
            local_log.sync_log(uri)
    except OSError as error:
        raise StorageError(f"{entry}: cannot be renamed ({first_line(error)}).") from error


def _free_name(entry: str) -> str:
    names = (f"{entry}.torn.{number}" for number in count(2))
    return next(name for name in names if entry_at(name) is None)


def _rename(uri: str, name: str) -> None:
    if is_local(uri):
        Path(uri).rename(name)
        return
    filesystem, path = open_store(uri)
    filesystem.copy_file(path, open_store(name)[1])
    filesystem.delete_file(path)
