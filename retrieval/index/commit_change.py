"""What a commit adds to the version before and takes from it, and how the log takes that up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from retrieval.embedding_spec import EmbeddingSpec
from retrieval.index import delta_log_writer as local_log
from retrieval.index.schema import index_schema
from retrieval.index.shards import Shard
from retrieval.index.table import live_files, open_table
from retrieval.storage import delta_options, is_local

__all__ = ["CHECKPOINT_VERSIONS", "Change", "change_to", "no_change", "write_change"]

# Opening an index reads the newest checkpoint and the entries after it.
CHECKPOINT_VERSIONS = 10


@dataclass(frozen=True, kw_only=True)
class Change:
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


def change_to(
    uri: str, spec: EmbeddingSpec, shards: Sequence[Shard], seen_version: int | None
) -> Change:
    """What leads from the version that was seen to one of these shards."""
    schema = Schema.from_arrow(index_schema(spec))
    table = None if seen_version is None else open_table(uri, seen_version)
    live = {} if table is None else live_files(table)
    wanted = {shard.path for shard in shards}
    return Change(
        table=table,
        schema=schema,
        is_redefined=table is None or _columns(table.schema()) != _columns(schema),
        adds=[shard for shard in shards if shard.path not in live],
        removes=[live[path] for path in sorted(live.keys() - wanted)],
        stays=[shard for shard in shards if shard.path in live],
    )


def _columns(schema: Schema) -> dict[str, Any]:
    return json.loads(schema.to_json())  # Schema's own equality passes over metadata


def no_change(uri: str, version: int) -> Change:
    """What leads from a version to the same content once more."""
    table = open_table(uri, version)
    return Change(
        table=table, schema=table.schema(), is_redefined=False, adds=(), removes=(), stays=()
    )


def _commit_to_disk(uri: str, version: int, change: Change, said: Mapping[str, str]) -> None:
    if change.table is not None:
        local_log.check_protocol(uri, change.table)
    columns = local_log.definition(change.schema, change.table) if change.is_redefined else []
    adds = [local_log.add_action(shard) for shard in change.adds]
    removes = [local_log.remove_action(file) for file in change.removes]
    local_log.write_entry(uri, version, said, [*columns, *adds, *removes])


def _commit_to_store(uri: str, version: int, change: Change, said: Mapping[str, str]) -> None:
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
            configuration={"delta.checkpointInterval": str(CHECKPOINT_VERSIONS)},
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


def write_change(uri: str, version: int, change: Change, said: Mapping[str, str]) -> None:
    """Put the change into the log as the entry of a version; fails where that one is there.

    Args:
        uri: The index.
        version: The version after the one that the change is to.
        change: What comes and goes.
        said: What the entry says of the commit.

    Raises:
        DeltaError, OSError: as deltalake or the file system does.
    """
    commit = _commit_to_disk if is_local(uri) else _commit_to_store
    commit(uri, version, change, said)
