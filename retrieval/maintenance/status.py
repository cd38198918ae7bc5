"""What an index is, how far back it goes, and what its last runs did. No shard is read."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from retrieval.embedding_spec import EmbeddingSpec
from retrieval.errors import IndexFormatError
from retrieval.index import open_index, read_records
from retrieval.index.folder import stored_files
from retrieval.index.history import (
    Commit,
    oldest_readable,
    read_commits,
    read_log,
    split_version,
)
from retrieval.index.names import STAGING
from retrieval.index.rejects import reject_tables
from retrieval.index.table import Index
from retrieval.storage import join, read_json

__all__ = [
    "IndexStatus",
    "LogSize",
    "ReadableVersions",
    "RejectCounts",
    "ShardSizes",
    "StagedWork",
    "describe_index",
]

_LAST_RUNS = 10
_TOLD = (
    "run_id", "created_at", "ended_at", "status", "message", "version_after", "num_listed",
    "num_embedded", "num_rejected_now", "photos_per_s",
)  # fmt: skip


@dataclass(frozen=True)
class ShardSizes:
    """How many shards a version has, and of how many rows; all 0 where there is none."""

    num: int
    smallest_rows: int
    median_rows: float
    largest_rows: int


@dataclass(frozen=True)
class RejectCounts:
    """Rejects of a version.

    Attributes:
        num: How many; None where they cannot be read.
        reasons: How many of each reason, the most frequent first.
        error: Why they cannot be read.
    """

    num: int | None
    reasons: Mapping[str, int] | None = None
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The number, and the reasons or the error."""
        if self.error is not None:
            return {"num": self.num, "error": self.error}
        return {"num": self.num, "reasons": self.reasons}


@dataclass(frozen=True)
class StagedWork:
    """What runs have staged and not committed: receipts, and the shards that they name."""

    num_receipts: int
    num_shards: int
    num_rows: int


@dataclass(frozen=True)
class ReadableVersions:
    """The versions that can be read without a gap; `oldest` is None where the newest cannot."""

    newest: int
    oldest: int | None
    num_versions: int


@dataclass(frozen=True)
class LogSize:
    """Entries of the log, and bytes of it."""

    entries: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class IndexStatus:
    """What an index is.

    Attributes:
        index: Its place.
        version: The version that is described.
        rows: Images in it.
        bytes: Of its shards.
        shards: Their sizes.
        model: How its embeddings were made.
        rejects: Its rejects.
        in_progress: What is staged in the index.
        readable: Which versions can be read.
        log: Its size.
        runs: What the last runs that committed said, by the log; the newest first.
        records: The last records, which runs that failed or found nothing to do have too.
    """

    index: str
    version: int
    rows: int
    bytes: int
    shards: ShardSizes
    model: EmbeddingSpec
    rejects: RejectCounts
    in_progress: StagedWork
    readable: ReadableVersions
    log: LogSize
    runs: tuple[Mapping[str, Any], ...]
    records: tuple[Mapping[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """The attributes by their names."""
        lists = {"runs": list(self.runs), "records": list(self.records)}
        return {**asdict(self), "rejects": self.rejects.to_json(), **lists}


def describe_index(index: str) -> IndexStatus:
    """Describe an index.

    Args:
        index: Its place; INDEX@12 describes version 12.

    Raises:
        StorageError: there is no index, or it cannot be reached.
        UsageError: it has no such version.
        IndexFormatError: the log is damaged.

    Cost: reads the log's last entries, a part of each of those that can still be read, the
        folder's listing, the rejects and the receipts.
    """
    uri, version = split_version(index)
    newest = open_index(uri)
    shown = newest if version is None else open_index(uri, version)
    files = {file.name for file in stored_files(newest.uri)}
    log, oldest = read_log(newest.uri), oldest_readable(newest, files)
    there = [number for number in log.entries if number <= shown.version][-_LAST_RUNS:]
    return IndexStatus(
        index=shown.uri,
        version=shown.version,
        rows=shown.num_rows,
        bytes=sum(shard.size_bytes for shard in shown.shards),
        shards=_shards(shown),
        model=shown.spec,
        rejects=_rejects(shown),
        in_progress=_in_progress(newest),
        readable=ReadableVersions(
            newest.version, oldest, 0 if oldest is None else newest.version - oldest + 1
        ),
        log=LogSize(len(log.entries), log.size_bytes),
        runs=tuple(_run(commit) for commit in read_commits(newest.uri, there[::-1])),
        records=tuple(_record(record) for record in read_records(newest.uri, _LAST_RUNS)),
    )


def _shards(index: Index) -> ShardSizes:
    rows = [shard.num_rows for shard in index.shards] or [0]
    return ShardSizes(len(index.shards), min(rows), statistics.median(rows), max(rows))


def _rejects(index: Index) -> RejectCounts:
    """Rejects of each reason; what a status tells of a damaged index must not end it."""
    try:
        tables = list(reject_tables(index, ["reason"]))
    except IndexFormatError as error:
        return RejectCounts(None, error=str(error))
    reasons = Counter(reason for table in tables for reason in table["reason"].to_pylist())
    return RejectCounts(reasons.total(), dict(reasons.most_common()))


def _in_progress(index: Index) -> StagedWork:
    live = {shard.path for shard in index.shards}
    folder = join(index.uri, STAGING)
    receipts = [file.name for file in stored_files(folder) if file.name.endswith(".json")]
    waiting = [
        num_rows
        for name in receipts
        for path, num_rows in _named_shards(join(folder, name))
        if path not in live
    ]
    return StagedWork(len(receipts), len(waiting), sum(waiting))


def _named_shards(uri: str) -> Iterator[tuple[str, int]]:
    """Path and rows of the shard that a receipt names, if it names one."""
    try:
        shard = read_json(uri)["shard"]
        if shard:
            yield str(shard["path"]), int(shard["num_rows"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # committed just now, or half of it: no run goes on after such a one


def _record(record: Mapping[str, Any]) -> dict[str, Any]:
    """One line's worth of a record, whose file holds the rest; what it does not say is left out."""
    said = {name: record[name] for name in _TOLD if record.get(name) is not None}
    seconds, ranking = record.get("seconds"), record.get("ranking")
    if isinstance(seconds, Mapping):
        said["seconds"] = round(seconds.get("total", sum(seconds.values())), 1)
    if isinstance(ranking, Mapping):
        said["ranking"] = ranking.get("failed", "done")
    return said


def _run(commit: Commit) -> dict[str, Any]:
    counts = {name: value for name, value in commit.run.items() if name.startswith("num_")}
    made = commit.timestamp_ms
    at = made and f"{datetime.fromtimestamp(made / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"
    restored, repeated = (commit.run.get(f"{how}_version") for how in ("restored", "repeated"))
    if repeated is not None:  # by a vacuum, which has embedded nothing
        return {
            "version": commit.version,
            "run_id": commit.run.get("run_id"),
            "created_at": commit.run.get("created_at", at),
            "vacuumed": True,
            "repeated_version": repeated,
        }
    return {
        "version": commit.version,
        "run_id": commit.run.get("run_id"),
        "created_at": commit.run.get("created_at", at),
        **({} if restored is None else {"restored_version": restored}),
        **counts,
    }
