"""Log entries on a local disk that survive a loss of power, in the form deltalake writes.

deltalake never syncs a file, so that a loss of power after its commit can leave an entry
empty or cut, and the newest version unreadable. Here an entry is written to a temporary name,
synced, and then linked to its own: the link fails if somebody else has that version, so that
it is the compare-and-swap too. `give_new_name` has what is done where there are no links; an entry
that it has begun, and that a crash has left there, is told from a whole one by its first line.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError

from retrieval.errors import IndexFormatError, StorageError
from retrieval.failpoints import reached
from retrieval.index.delta_retry import root_cause
from retrieval.index.entries import ENGINE, encode_entry, entry_uri
from retrieval.index.folder import is_behind_link, own_files, stored_folders
from retrieval.index.names import SCRATCH, SCRATCH_FILE
from retrieval.index.shards import Shard
from retrieval.index.table import LOG_FILE
from retrieval.storage import sync_folder, write_bytes
from retrieval.storage.removal import remove_written
from retrieval.storage.writing import give_new_name, link_or_copy

__all__ = [
    "add_action",
    "check_protocol",
    "definition",
    "now_ms",
    "remove_action",
    "remove_scratch",
    "sync_log",
    "write_checkpoint",
    "write_entry",
]

_LOGGER = logging.getLogger(__name__)
_PROTOCOL = (1, 2)  # of readers, of writers: what any tool for Delta Lake understands
_SCRATCH = ".checkpoint.{}.tmp"


def now_ms() -> int:
    """Milliseconds since 1970, as the log counts time."""
    return time.time_ns() // 1_000_000


def definition(schema: Schema, table: DeltaTable | None) -> list[dict[str, Any]]:
    """The actions that give a table its columns.

    Args:
        schema: The columns.
        table: The version to change; None for a new table.

    Raises:
        IndexFormatError: another tool has given it a protocol that this writer does not know.
    """
    name = description = None
    partition_columns: list[str] = []
    configuration: dict[str, str] = {}
    table_id, created_ms = str(uuid.uuid4()), now_ms()
    if table is not None:
        known = table.metadata()
        name, description, table_id = known.name, known.description, str(known.id)
        partition_columns, configuration = known.partition_columns, known.configuration
        created_ms = known.created_time
    metadata = {
        "id": table_id,
        "name": name,
        "description": description,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": schema.to_json(),
        "partitionColumns": partition_columns,
        "createdTime": created_ms,
        "configuration": configuration,
    }
    protocol = {"minReaderVersion": _PROTOCOL[0], "minWriterVersion": _PROTOCOL[1]}
    return [{"protocol": protocol}] * (table is None) + [{"metaData": metadata}]


def add_action(shard: Shard) -> dict[str, Any]:
    """The action that makes a shard part of the index."""
    return {
        "add": {
            "path": quote(shard.path),
            "partitionValues": {},
            "size": shard.size_bytes,
            "modificationTime": now_ms(),
            "dataChange": True,
            "stats": json.dumps({"numRecords": shard.num_rows}),
        }
    }


def remove_action(file: Mapping[str, Any]) -> dict[str, Any]:
    """The action that takes a shard out.

    Args:
        file: What `live_files` says of it, with its path as the log spells it.
    """
    return {
        "remove": {
            "path": file["path"],
            "dataChange": True,
            "deletionTimestamp": now_ms(),
            "extendedFileMetadata": True,
            "partitionValues": {},
            "size": file["size_bytes"],
        }
    }


def check_protocol(uri: str, table: DeltaTable) -> None:
    """Refuse a table that another tool has given abilities which this writer does not have.

    Raises:
        IndexFormatError: it has.
    """
    found = table.protocol()
    if (found.min_reader_version, found.min_writer_version) != _PROTOCOL:
        raise IndexFormatError(
            f"{uri}: its log is of Delta protocol {found.min_reader_version}, "
            f"{found.min_writer_version}; 1, 2 is needed to write to it. Another tool has changed "
            f"it: embed the photos into a new index."
        )


def write_entry(
    uri: str, version: int, said: Mapping[str, str], actions: Sequence[Mapping[str, Any]]
) -> None:
    """Commit a version: when this returns, no loss of power can undo it.

    Shards must have been written by `write_bytes`, which has synced their content.

    Args:
        uri: The index, a local path.
        version: The version to make; the one before must be the newest.
        said: What the commit says of itself, by the names in the log.
        actions: What the version changes.

    Raises:
        FileExistsError: the version is there already.
        OSError: as the file system raises it. The entry may be there all the same.

    Cost: three syncs, and one a parent folder for version 0.
    """
    folder, entry = Path(uri), Path(entry_uri(uri, version))
    entry.parent.mkdir(parents=True, exist_ok=True)
    sync_folder(folder)  # the names of the shards, and that of the log
    if version == 0:
        _sync_parents(folder)
    data = encode_entry(_commit_info(version, said), actions)
    temporary = entry.with_name(f".{entry.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        reached("entry written")
        give_new_name(temporary, entry)
    finally:
        with suppress(OSError):  # what stays is hidden, and `vacuum` removes it
            temporary.unlink(missing_ok=True)
    sync_log(uri)


def _commit_info(version: int, said: Mapping[str, str]) -> dict[str, Any]:
    is_first = version == 0
    return {
        "timestamp": now_ms(),
        "operation": "CREATE TABLE" if is_first else "WRITE",
        "operationParameters": {"mode": "ErrorIfExists" if is_first else "Append"},
        "engineInfo": ENGINE,
        **said,
    }


def sync_log(uri: str) -> None:
    """Make the names of all entries of a local log last; raises OSError."""
    sync_folder(Path(uri) / "_delta_log")


def _sync_parents(folder: Path) -> None:
    """Make the name of a new folder last, and those of the parents that were made with it."""
    disk = folder.stat().st_dev
    for parent in folder.parents:
        if parent.stat().st_dev != disk:
            break
        sync_folder(parent)  # one that may not be read was not made by us


def _sync_file(path: Path) -> None:
    """Make a file's content last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_checkpoint(uri: str, version: int) -> None:
    """Sum up the log, so that opening a later version reads few entries.

    Only a help: a failure is logged and changes nothing.

    Args:
        uri: The index, a local path.
        version: The version to sum up.
    """
    scratch = Path(uri) / _SCRATCH.format(uuid.uuid4().hex)
    try:
        for name in filter(SCRATCH.fullmatch, stored_folders(uri)):
            if not is_behind_link(uri, name):
                remove_scratch(uri, name)  # of a process that was killed
        _write_checkpoint(Path(uri) / "_delta_log", scratch, version)
    except (DeltaError, OSError, StorageError) as error:
        _LOGGER.warning(
            "%s: no checkpoint of version %d (%s). The index is whole; opening it takes longer.",
            uri,
            version,
            root_cause(error),
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove_scratch(uri: str, name: str) -> None:
    """Remove a folder in which a killed process was making a checkpoint.

    What that has not put there stays; raises StorageError.
    """
    log = f"{name}/_delta_log"
    inside = [file.name for file in own_files(uri, log, SCRATCH_FILE)]
    remove_written(uri, inside, folders=[log, name])


def _write_checkpoint(log: Path, scratch: Path, version: int) -> None:
    """Let deltalake make the checkpoint on links to the log, since it syncs nothing."""
    made = scratch / "_delta_log"
    made.mkdir(parents=True)
    for path in log.iterdir():
        found = LOG_FILE.fullmatch(path.name)
        if found and int(found[1]) <= version:
            link_or_copy(path, made / path.name)
    DeltaTable(str(scratch)).create_checkpoint()
    reached("checkpoint")
    name = f"{version:020d}.checkpoint.parquet"
    _sync_file(made / name)
    (made / name).replace(log / name)
    sync_folder(log)
    write_bytes(str(log / "_last_checkpoint"), (made / "_last_checkpoint").read_bytes())
