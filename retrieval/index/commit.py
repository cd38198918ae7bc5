"""A run's commit: one entry of the log that holds what the new version adds and removes.

A compare-and-swap on the version that the run has seen, so two runs cannot both win; versions of
vacuums alone, which change nothing, are passed over (see removal_lists.py for what that is good
for). An error on the way says nothing about whether the entry is there (its reply may have got
lost), so the log itself is asked then.
"""

from __future__ import annotations

import errno
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from retrieval.errors import StorageError, UsageError
from retrieval.failpoints import reached
from retrieval.format_version import FORMAT_VERSION
from retrieval.index import delta_log_writer as local_log
from retrieval.index.before_commit import check_addable, newest_alike
from retrieval.index.delta_retry import root_cause
from retrieval.index.entries import (
    COMMIT_KEY,
    CONTENT_KEY,
    RECORD_FORMAT,
    RUN_KEY,
    SHARDS_KEY,
    content_digest,
    read_entry,
)
from retrieval.index.schema import EmbeddingSpec, index_schema
from retrieval.index.shards import Shard
from retrieval.index.table import (
    Index,
    live_files,
    newest_version,
    open_table,
    table_uri,
    torn,
)
from retrieval.storage import delta_options, first_line, is_local

__all__ = ["commit_again", "commit_index"]


# Opening an index reads the newest checkpoint and the entries after it.
_CHECKPOINT_VERSIONS = 10
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
    rejects: str | None = None,
) -> int:
    """Make shards the whole content of the index, in one atomic commit.

    The log takes up the difference to `seen_version` only. When this returns, the commit
    survives a loss of power. On an object store it is tried again, up to four times, if the
    store has not taken it and nobody else has committed. Where only vacuums have committed since
    `seen_version`, it takes the number after theirs.

    Args:
        uri: The index; made if it is not there.
        spec: How the embeddings were made; may differ from the last version's.
        shards: All files of the new version, written by `write_shard`.
        run: What to remember of the run, JSON values; "run_id" should name it.
        seen_version: The version that the run started from; None if there was no index.
        rejects: The folder that `run` names as that of its rejects: it must be there, too.

    Returns:
        The number of the new version.

    Raises:
        UsageError: no index may have this name, or a shard is named twice.
        MismatchError: another run has committed since `seen_version`.
        VacuumedError: a new shard or the rejects are gone, or a vacuum is about to remove them.
        StorageError: a new shard is not whole, or the log cannot be written.
        IndexFormatError: the log is damaged, or not to be written by us.

    Cost: one look-up a new shard, two listings, and a text of some 120 bytes a shard in the log.
    """
    uri = table_uri(uri)
    record = _record(uri, run, shards)

    def put(base: int | None) -> None:
        change = _change_to(uri, spec, shards, base)
        check_addable(uri, change.adds, rejects)
        reached("before commit")
        _write(uri, _after(base), change, _commit_text(record, spec, shards))

    return _commit(uri, seen_version, record, put, passes_vacuums=True)


def commit_again(index: Index, run: Mapping[str, Any]) -> int:
    """Commit the content of the newest version once more, unchanged, as a vacuum does.

    Args:
        index: The newest version.
        run: What to remember.

    Returns:
        The number of the new version, the one after the index's.

    Raises:
        MismatchError: somebody else has committed since, be it a vacuum.
        StorageError, IndexFormatError: as `commit_index`.
    """
    uri, record = index.uri, _record(index.uri, run, index.shards)

    def put(base: int | None) -> None:
        reached("before commit again")
        said = _commit_text(record, index.spec, index.shards)
        _write(uri, _after(base), _no_change(uri, index.version), said)

    return _commit(uri, index.version, record, put, passes_vacuums=False)


def _commit(
    uri: str,
    seen_version: int | None,
    record: str,
    put: Callable[[int | None], None],
    *,
    passes_vacuums: bool,
) -> int:
    """Have an entry put after the newest, until it is there or never can be."""
    base = seen_version
    give_up_at = time.monotonic() + _RETRY_S
    pauses_s = [] if is_local(uri) else [*_PAUSES_S]
    while True:
        try:
            reached("before the newest is read")
            if newest_version(uri) != base:
                raise FileExistsError(errno.EEXIST, "not the version that the run has seen")
            reached("newest read")
            put(base)
        except (DeltaError, OSError) as error:
            outcome = _outcome(uri, base, record, error)
            if outcome == "overtaken":
                base = newest_alike(uri, base, passes_vacuums=passes_vacuums)
                continue
            if outcome == "open":
                if not pauses_s or time.monotonic() > give_up_at:
                    raise StorageError(f"{uri}: the commit failed ({_reason(error)}).") from error
                time.sleep(pauses_s.pop(0))
                continue
        break
    version = _after(base)
    reached("after commit")
    if is_local(uri) and (version + 1) % _CHECKPOINT_VERSIONS == 0:
        local_log.write_checkpoint(uri, version)
    return version


def _write(uri: str, version: int, change: _Change, said: Mapping[str, str]) -> None:
    commit = _commit_to_disk if is_local(uri) else _commit_to_store
    commit(uri, version, change, said)


def _after(base: int | None) -> int:
    return 0 if base is None else base + 1


def _commit_text(record: str, spec: EmbeddingSpec, shards: Sequence[Shard]) -> dict[str, str]:
    """What the entry is to say of the commit, by the names there."""
    return {RUN_KEY: record, CONTENT_KEY: content_digest(record, spec, shards)}


def _record(uri: str, run: Mapping[str, Any], shards: Sequence[Shard]) -> str:
    """What the commit says of itself, as one JSON text that no other commit has."""
    hashes: dict[str, str] = {}
    for shard in shards:
        if shard.path in hashes:
            raise UsageError(f"{uri}: {shard.path} was to be committed twice. Name it once.")
        hashes[shard.path] = shard.sha256
    own = {} if "run_id" in run else {COMMIT_KEY: uuid.uuid4().hex}
    return json.dumps({**run, FORMAT_VERSION: RECORD_FORMAT, **own, SHARDS_KEY: hashes})


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


def _change_to(
    uri: str, spec: EmbeddingSpec, shards: Sequence[Shard], seen_version: int | None
) -> _Change:
    """What leads from the version that was seen to one of these shards."""
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


def _no_change(uri: str, version: int) -> _Change:
    """What leads from a version to the same content once more."""
    table = open_table(uri, version)
    return _Change(
        table=table, schema=table.schema(), is_redefined=False, adds=(), removes=(), stays=()
    )


def _commit_to_disk(uri: str, version: int, change: _Change, said: Mapping[str, str]) -> None:
    if change.table is not None:
        local_log.check_protocol(uri, change.table)
    columns = local_log.definition(change.schema, change.table) if change.is_redefined else []
    adds = [local_log.add_action(shard) for shard in change.adds]
    removes = [local_log.remove_action(file) for file in change.removes]
    local_log.write_entry(uri, version, said, [*columns, *adds, *removes])


def _commit_to_store(uri: str, version: int, change: _Change, said: Mapping[str, str]) -> None:
    del version  # deltalake takes the one after the table's
    properties = CommitProperties(
        custom_metadata={**said},
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


def _outcome(uri: str, base: int | None, record: str, error: Exception) -> str:
    """What the log says after an error: "committed", "overtaken", or still "open"."""
    version = _after(base)
    try:
        newest = newest_version(uri)
        if newest is None or newest == base:
            return "open"
        if read_entry(uri, version).info.get(RUN_KEY) != record:
            return "overtaken"
        if is_local(uri):
            local_log.sync_log(uri)
    except ValueError as found:
        raise torn(uri, version, found) from error
    except (OSError, StorageError) as second:
        raise StorageError(
            f"{uri}: whether version {version} was committed and will last cannot be told "
            f"({first_line(second)}). Mend what hinders the disk or the store; run it again."
        ) from error
    return "committed"


def _reason(error: Exception) -> str:
    if isinstance(error, CommitFailedError):  # an answer 409 or 412; deltalake says no more
        return "the store says that this version is there, but it is not; run it again"
    return root_cause(error)
