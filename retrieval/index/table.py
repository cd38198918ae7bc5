"""The log of the index: which shards make up which version.

A Delta Lake table (package `deltalake`): readers keep the version they opened, a run
becomes visible by one commit or not at all, and a commit is a strict compare-and-swap on
the version that the run has seen, so two runs cannot both win.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, create_table_with_add_actions

from retrieval.errors import IndexFormatError, MismatchError, StorageError, UsageError
from retrieval.index.schema import EmbeddingSpec, index_schema
from retrieval.index.shards import Shard
from retrieval.storage import absolute_uri, is_local, join, read_bytes

__all__ = ["RUN_KEY", "Index", "commit_index", "is_index", "may_hold_index", "open_index"]

# Where a commit keeps what the run says of itself, as one JSON text.
RUN_KEY = "retrieval.run"
# What deltalake takes for parts of a web address, or refuses late.
_MISREAD = re.compile(r"[#?\\\x00-\x1f]|%[0-9A-Fa-f]{2}")
_SHARDS_KEY = "shards_sha256"  # in that text: the hash of each shard of the version


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


def may_hold_index(uri: str) -> bool:
    """Whether the path allows an index; deltalake would put that of /a#b into /a."""
    return not _MISREAD.search(uri)


def _table_uri(uri: str) -> str:
    uri = absolute_uri(uri)
    if found := _MISREAD.search(uri):
        raise UsageError(
            f"{uri}: an index's path may not hold {found[0]!r}, which Delta Lake misreads. "
            f"Choose another name."
        )
    return uri


def is_index(uri: str) -> bool:
    """Whether there is a Delta Lake table at a location.

    Raises:
        UsageError: no index may have this name.
        StorageError: the location cannot be reached.
    """
    uri = _table_uri(uri)
    if is_local(uri) and not Path(uri).is_dir():
        return False
    try:
        return bool(DeltaTable.is_deltatable(uri))
    except (DeltaError, OSError) as error:
        raise StorageError(f"{uri}: cannot be opened ({_cause(error)}).") from error


def open_index(uri: str, version: int | None = None) -> Index:
    """Open an index, by default at its newest version.

    Raises:
        StorageError: nothing is there, or it cannot be reached.
        UsageError: it has no such version, or no index may have this name.
        IndexFormatError: it is a table, but not an index; its log is damaged.
    """
    uri = _table_uri(uri)
    if not is_index(uri):
        raise StorageError(f"{uri}: no index there. Make one: retrieval-cli embed PHOTOS {uri}")
    try:
        table = DeltaTable(uri, version=version)
        files = pa.table(table.get_add_actions(flatten=True)).to_pylist()
        fields = {field.name: field for field in table.schema().fields}
    except (DeltaError, OSError, ValueError) as error:
        newest = _newest_version(uri)
        if version is not None and newest is not None and not 0 <= version <= newest:
            raise UsageError(f"{uri}: has no version {version}; the newest is {newest}.") from error
        raise IndexFormatError(f"{uri}: the log cannot be read ({_cause(error)}).") from error
    if "embedding" not in fields or "image_id" not in fields:
        raise IndexFormatError(
            f"{uri}: a table with the columns {', '.join(fields)}; image_id and embedding are "
            f"needed. Only tables written by `retrieval-cli embed` are indexes."
        )
    spec = EmbeddingSpec.from_metadata(fields["embedding"].metadata, uri)
    run = dict(_read_run(uri, table.version()))
    paths = {file["path"] for file in files}
    hashes = run.pop(_SHARDS_KEY, dict.fromkeys(paths, ""))
    if hashes.keys() != paths:
        raise _torn(uri, table.version())
    shards = [
        Shard(file["path"], file["num_records"], file["size_bytes"], hashes[file["path"]])
        for file in files
    ]
    return Index(
        uri=uri,
        version=table.version(),
        spec=spec,
        shards=tuple(sorted(shards, key=lambda shard: shard.path)),
        run=run,
    )


def _read_run(uri: str, version: int) -> Mapping[str, Any]:
    """What the run that committed a version said of itself; nothing if others committed it.

    Not by DeltaTable.history: that begins with the newest commit, whatever version is open.
    """
    try:
        entry = read_bytes(join(uri, "_delta_log", f"{version:020d}.json"))
    except FileNotFoundError:
        return {}  # an old version, whose entry has been cleaned up
    if not entry:
        raise _torn(uri, version)
    infos = [json.loads(line).get("commitInfo") for line in entry.splitlines()]
    return json.loads(next((info[RUN_KEY] for info in infos if info and RUN_KEY in info), "{}"))


def _torn(uri: str, version: int) -> IndexFormatError:
    return IndexFormatError(
        f"{uri}: version {version} is incomplete, as a loss of power leaves it. Remove "
        f"_delta_log/{version:020d}.json to go back to the version before."
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
        UsageError: no index may have this name.
        MismatchError: somebody else has committed since `seen_version`.
        StorageError: the log cannot be written.
    """
    uri = _table_uri(uri)
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
    run = {**run, _SHARDS_KEY: {shard.path: shard.sha256 for shard in shards}}
    properties = CommitProperties(
        custom_metadata={RUN_KEY: json.dumps(run)},
        max_commit_retries=0,  # never rebase on a commit that this run has not seen
    )
    schema = Schema.from_arrow(index_schema(spec))
    version = 0 if seen_version is None else seen_version + 1
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
    except (DeltaError, OSError) as error:
        newest = _newest_version(uri)
        if newest is not None and newest != seen_version:
            # A reply that got lost on the way leaves a commit that has succeeded all the same.
            if newest >= version and _read_run(uri, version) == json.loads(json.dumps(run)):
                return version
            raise MismatchError(
                f"{uri}: another run has committed version {newest} meanwhile; this one started "
                f"from {seen_version}. Nothing was changed: run it again."
            ) from error
        raise StorageError(f"{uri}: the commit failed ({_cause(error)}).") from error
    return version


def _newest_version(uri: str) -> int | None:
    """Number of the newest version; None if there is none, or none that can be read."""
    try:
        return int(DeltaTable(uri).version())
    except (DeltaError, OSError):
        return None


def _cause(error: Exception) -> str:
    """The last of deltalake's chain of causes, without colours, arrows, XML and backtraces."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    *_, last = [lines[0], *(line for line in lines if "↳" in line and "<" not in line)]
    return re.sub(r"\x1b\[\d+m|↳", "", last).strip()
