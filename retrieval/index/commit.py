"""A run's commit: one entry of the log that holds what the new version adds and removes.

A strict compare-and-swap on the version that the run has seen, so two runs cannot both win.
On a local disk the entry is written by local_log.py, which syncs it; on an object store by
deltalake, which writes it only if nobody else has. An error on the way says nothing about
whether the entry is there (its reply may have got lost), so the log itself is asked then.
"""

from __future__ import annotations

import errno
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from retrieval.breakpoints import reached
from retrieval.errors import MismatchError, StorageError, UsageError
from retrieval.index import local_log
from retrieval.index.asking import root_cause
from retrieval.index.schema import EmbeddingSpec, index_schema
from retrieval.index.shards import Shard
from retrieval.index.table import (
    COMMIT_KEY,
    RUN_KEY,
    SHARDS_KEY,
    commit_info,
    live_files,
    newest_version,
    open_table,
    table_uri,
    torn,
)
from retrieval.storage import delta_options, file_stamp, first_line, is_local, join

__all__ = ["commit_index"]

# Opening an index reads the newest checkpoint and the entries after it.
_CHECKPOINT_VERSIONS = 10
_LOOK_UPS = 16  # side by side; one takes some 20 ms on an object store
# Between tries of a commit that a store has not taken, though nobody else has committed: a broken
# connection, or an answer 409, are asked again by no client. A try again is safe: whichever is
# the first, the log takes one, and that says whose it is.
_PAUSES_S = (0.5, 1.0, 2.0, 4.0)
_RETRY_S = 60  # an outage of that length the clients have ridden out


def commit_index(
    uri: str,
    spec: EmbeddingSpec,
    shards: Sequence[Shard],
    *,
    run: Mapping[str, Any],
    seen_version: int | None,
) -> int:
    """Make shards the whole content of the index, in one atomic commit.

    The log takes up the difference to `seen_version` only. When this returns, the commit
    survives a loss of power. On an object store it is tried again, up to four times, if the
    store has not taken it and nobody else has committed.

    Args:
        uri: The index; made if it is not there.
        spec: How the embeddings were made; may differ from the last version's.
        shards: All files of the new version, written by `write_shard`.
        run: What to remember of the run, JSON values; "run_id" should name it.
        seen_version: The version that the run started from; None if there was no index.

    Returns:
        The number of the new version.

    Raises:
        UsageError: no index may have this name, or a shard is named twice.
        MismatchError: somebody else has committed since `seen_version`.
        StorageError: a new shard is not there or not whole, or the log cannot be written.
        IndexFormatError: the log is damaged, or not to be written by us.

    Cost: one look-up a new shard, and a text of some 120 bytes a shard in the log.
    """
    uri = table_uri(uri)
    version = 0 if seen_version is None else seen_version + 1
    record = _record(uri, run, shards)
    give_up_at = time.monotonic() + _RETRY_S
    pauses_s = [] if is_local(uri) else [*_PAUSES_S]
    while error := _try_to_commit(uri, spec, shards, seen_version, record):
        if not pauses_s or time.monotonic() > give_up_at:
            raise StorageError(f"{uri}: the commit failed ({_reason(error)}).") from error
        time.sleep(pauses_s.pop(0))
    reached("after commit")
    if is_local(uri) and (version + 1) % _CHECKPOINT_VERSIONS == 0:
        local_log.write_checkpoint(uri, version)
    return version


def _try_to_commit(
    uri: str,
    spec: EmbeddingSpec,
    shards: Sequence[Shard],
    seen_version: int | None,
    record: str,
) -> Exception | None:
    """None if the commit is in the log now; what went wrong if the log is as it was before."""
    version = 0 if seen_version is None else seen_version + 1
    try:
        if newest_version(uri) != seen_version:
            raise FileExistsError(errno.EEXIST, "not the version that the run has seen")
        change = _change(uri, spec, shards, seen_version)
        _check_written(uri, change.adds)
        reached("before commit")
        commit = _commit_to_disk if is_local(uri) else _commit_to_store
        commit(uri, version, change, record)
    except (DeltaError, OSError) as error:
        return None if _is_committed(uri, seen_version, record, error) else error
    return None


def _record(uri: str, run: Mapping[str, Any], shards: Sequence[Shard]) -> str:
    """What the commit says of itself, as one JSON text that no other commit has."""
    hashes: dict[str, str] = {}
    for shard in shards:
        if shard.path in hashes:
            raise UsageError(f"{uri}: {shard.path} was to be committed twice. Name it once.")
        hashes[shard.path] = shard.sha256
    own = {} if "run_id" in run else {COMMIT_KEY: uuid.uuid4().hex}
    return json.dumps({**run, **own, SHARDS_KEY: hashes})


@dataclass(frozen=True, kw_only=True)
class _Change:
    """What a commit does to the version before.

    Attributes:
        table: The version before; None if there is none.
        schema: Columns from now on.
        is_redefined: Whether the columns or what they say of the embeddings are new.
        adds: Shards that come.
        removes: What the log says of files that go.
        stays: Shards that stay.
    """

    table: DeltaTable | None
    schema: Schema
    is_redefined: bool
    adds: Sequence[Shard]
    removes: Sequence[Mapping[str, Any]]
    stays: Sequence[Shard]


def _change(
    uri: str, spec: EmbeddingSpec, shards: Sequence[Shard], seen_version: int | None
) -> _Change:
    schema = Schema.from_arrow(index_schema(spec))
    table = None if seen_version is None else open_table(uri, seen_version)
    live = {} if table is None else live_files(table)
    wanted = {shard.path for shard in shards}
    return _Change(
        table=table,
        schema=schema,
        is_redefined=table is None or _columns(table.schema()) != _columns(schema),
        adds=[shard for shard in shards if shard.path not in live],
        removes=[live[path] for path in sorted(live.keys() - wanted)],
        stays=[shard for shard in shards if shard.path in live],
    )


def _columns(schema: Schema) -> dict[str, Any]:
    return json.loads(schema.to_json())  # Schema's own equality passes over metadata


def _check_written(uri: str, shards: Sequence[Shard]) -> None:
    """Refuse shards that are not there or not whole: the log itself would take them."""

    def size_bytes(shard: Shard) -> int:
        return file_stamp(join(uri, shard.path))[0]

    with ThreadPoolExecutor(_LOOK_UPS) as pool:
        for shard, found in zip(shards, pool.map(size_bytes, shards), strict=True):
            if found != shard.size_bytes:
                state = f"has {found} bytes" if found >= 0 else "is not there"
                raise StorageError(
                    f"{join(uri, shard.path)}: this new shard {state}; {shard.size_bytes} bytes "
                    f"are needed. Nothing was committed: run it again."
                )


def _commit_to_disk(uri: str, version: int, change: _Change, record: str) -> None:
    if change.table is not None:
        local_log.check_protocol(uri, change.table)
    columns = local_log.definition(change.schema, change.table) if change.is_redefined else []
    adds = [local_log.add_action(shard) for shard in change.adds]
    removes = [local_log.remove_action(file) for file in change.removes]
    local_log.write_entry(uri, version, record, [*columns, *adds, *removes])


def _commit_to_store(uri: str, version: int, change: _Change, record: str) -> None:
    del version  # deltalake takes the one after the table's
    properties = CommitProperties(
        custom_metadata={RUN_KEY: record},
        max_commit_retries=0,  # never rebase on a commit that this run has not seen
    )
    adds = [_add(shard) for shard in change.adds]
    if change.table is None:
        create_table_with_add_actions(
            uri,
            change.schema,
            adds,
            mode="error",
            configuration={"delta.checkpointInterval": str(_CHECKPOINT_VERSIONS)},
            commit_properties=properties,
            storage_options=delta_options(uri),
        )
        return
    actions = [*adds, *map(_remove, change.removes)]
    if change.is_redefined:
        # Only an overwrite takes new columns. It removes all there is, so what stays comes again:
        # deltalake, and what builds on it, then counts it as there. (Spark would not; it cannot
        # share a table on S3 with deltalake anyway.)
        actions = [*adds, *map(_add, change.stays)]
    change.table.create_write_transaction(
        actions,
        mode="overwrite" if change.is_redefined else "append",
        schema=change.schema,
        commit_properties=properties,
    )


def _add(shard: Shard) -> AddAction:
    return AddAction(
        path=shard.path,
        size=shard.size_bytes,
        partition_values={},
        modification_time=local_log.now_ms(),
        data_change=True,
        stats=json.dumps({"numRecords": shard.num_rows}),
    )


def _remove(file: Mapping[str, Any]) -> RemoveAction:
    return RemoveAction(
        path=unquote(file["path"]),
        data_change=True,
        deletion_timestamp=local_log.now_ms(),
        size=file["size_bytes"],
        partition_values={},
    )


def _is_committed(uri: str, seen_version: int | None, record: str, error: Exception) -> bool:
    """Whether a commit is in the log in spite of an error; raises if it never will be."""
    version = 0 if seen_version is None else seen_version + 1
    try:
        newest = newest_version(uri)
        is_newer = newest is not None and newest != seen_version
        if is_newer and commit_info(uri, version).get(RUN_KEY) == record:
            if is_local(uri):
                local_log.sync_log(uri)
            return True
    except ValueError:
        raise torn(uri, version) from error
    except (OSError, StorageError) as second:
        raise StorageError(
            f"{uri}: whether version {version} was committed and will last cannot be told "
            f"({first_line(second)}). Mend what hinders the disk or the store; run it again."
        ) from error
    if is_newer:
        raise MismatchError(
            f"{uri}: another run has committed version {newest} meanwhile; this one started "
            f"from {seen_version}. Nothing was changed: run it again."
        ) from error
    return False


def _reason(error: Exception) -> str:
    if isinstance(error, CommitFailedError):  # an answer 409 or 412; deltalake says no more
        return "the store says that this version is there, but it is not; run it again"
    return root_cause(error)
