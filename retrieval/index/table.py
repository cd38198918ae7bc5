"""The log of the index: which shards make up which version.

A Delta Lake table (package `deltalake`): readers keep the version they opened, a run
becomes visible by one commit or not at all, and a commit is a strict compare-and-swap on
the version that the run has seen, so two runs cannot both win.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, create_table_with_add_actions

from retrieval.errors import IndexFormatError, MismatchError, StorageError
from retrieval.index.schema import EmbeddingSpec, index_schema
from retrieval.index.shards import Shard
from retrieval.storage import absolute_uri, first_line

__all__ = ["RUN_KEY", "Index", "commit_index", "is_index", "open_index"]

# Where a commit keeps what the run says of itself, as one JSON text.
RUN_KEY = "retrieval.run"


@dataclass(frozen=True, kw_only=True)
class Index:
    """One version of an index, as its log describes it. Plain values: cheap to send.

    Attributes:
        uri: Absolute path or address of the index.
        version: Number of the commit.
        spec: How its embeddings were made.
        shards: Its files.
        run: What the run that committed this version said of itself.
    """

    uri: str
    version: int
    spec: EmbeddingSpec
    shards: tuple[Shard, ...]
    run: Mapping[str, Any]

    @property
    def num_rows(self) -> int:
        """Images in this version."""
        return sum(shard.num_rows for shard in self.shards)


def is_index(uri: str) -> bool:
    """Whether there is a Delta Lake table at a location."""
    uri = absolute_uri(uri)
    try:
        return bool(DeltaTable.is_deltatable(uri))
    except (DeltaError, OSError) as error:
        raise StorageError(f"{uri}: cannot be opened ({first_line(error)}).") from error


def open_index(uri: str, version: int | None = None) -> Index:
    """Open an index, by default at its newest version.

    Raises:
        StorageError: nothing is there, or it cannot be reached.
        IndexFormatError: it is a table, but not an index; its log is damaged.
    """
    uri = absolute_uri(uri)
    try:
        table = DeltaTable(uri, version=version)
        commit = table.history(1)[0]
        files = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        fields = {field.name: field for field in table.schema().fields}
    except TableNotFoundError as error:
        raise StorageError(
            f"{uri}: no index there. Make one: retrieval-cli embed PHOTOS {uri}"
        ) from error
    except (DeltaError, OSError, IndexError, ValueError) as error:
        raise IndexFormatError(f"{uri}: the log cannot be read ({first_line(error)}).") from error
    if "embedding" not in fields or "image_id" not in fields:
        raise IndexFormatError(
            f"{uri}: a table with the columns {', '.join(fields)}; image_id and embedding are "
            f"needed. Only tables written by `retrieval-cli embed` are indexes."
        )
    return Index(
        uri=uri,
        version=table.version(),
        spec=EmbeddingSpec.from_metadata(fields["embedding"].metadata, uri),
        shards=tuple(
            sorted(
                (Shard(file["path"], file["num_records"], file["size_bytes"]) for file in files),
                key=lambda shard: shard.path,
            )
        ),
        run=json.loads(commit.get(RUN_KEY, "{}")),
    )


def commit_index(
    uri: str,
    spec: EmbeddingSpec,
    shards: Sequence[Shard],
    *,
    run: Mapping[str, Any],
    seen_version: int | None,
) -> int:
    """Make shards the whole content of the index, in one atomic commit.

    Args:
        uri: The index; made if it is not there.
        spec: How the embeddings were made; may differ from the last version's.
        shards: Files that have been written into the index's folder.
        run: What to remember of the run, JSON values.
        seen_version: The version that the run started from; None if there was no index.

    Returns:
        The number of the new version.

    Raises:
        MismatchError: somebody else has committed since `seen_version`.
        StorageError: the log cannot be written.
    """
    uri = absolute_uri(uri)
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    adds = [
        AddAction(
            path=shard.path,
            size=shard.size_bytes,
            partition_values={},
            modification_time=now_ms,
            data_change=True,
            stats=json.dumps({"numRecords": shard.num_rows}),
        )
        for shard in shards
    ]
    files = {shard.path: shard.sha256 for shard in shards}
    properties = CommitProperties(
        custom_metadata={RUN_KEY: json.dumps({**run, "shards_sha256": files})},
        max_commit_retries=0,  # never rebase on a commit that this run has not seen
    )
    schema = Schema.from_arrow(index_schema(spec))
    try:
        if seen_version is None:
            create_table_with_add_actions(
                uri, schema, adds, mode="error", commit_properties=properties
            )
        else:
            table = DeltaTable(uri, version=seen_version)
            table.create_write_transaction(
                adds, mode="overwrite", schema=schema, commit_properties=properties
            )
    except DeltaError as error:
        if _newest_version(uri) != seen_version:
            raise MismatchError(
                f"{uri}: another run has committed version {_newest_version(uri)} meanwhile; "
                f"this one started from {seen_version}. Nothing was changed: run it again."
            ) from error
        raise StorageError(f"{uri}: the commit failed ({first_line(error)}).") from error
    except OSError as error:
        raise StorageError(f"{uri}: the commit failed ({first_line(error)}).") from error
    return 0 if seen_version is None else seen_version + 1


def _newest_version(uri: str) -> int | None:
    return DeltaTable(uri).version() if is_index(uri) else None
