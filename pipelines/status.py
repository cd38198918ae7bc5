"""What an index is, how far back it goes, and what its last runs did.

Reads       the log, the folder's listing, the rejects and the receipts; no shard.
Writes      nothing; the report is the result.
Resources   one process, without Ray.
Fails when  there is no index, or its log is damaged.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

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
from retrieval.index.rejects import reject_tables
from retrieval.index.table import Index
from retrieval.storage import join, read_json

__all__ = ["run"]

_LAST_RUNS = 10
_STAGING = "_staging"
_TOLD = (
    "run_id", "created_at", "ended_at", "status", "message", "version_after", "num_listed",
    "num_embedded", "num_rejected_now", "photos_per_s",
)  # fmt: skip


def run(index: str) -> dict[str, Any]:
    """Describe an index.

    Args:
        index: Its location; INDEX@12 describes version 12.

    Returns:
        The report: `version`, `rows`, `bytes`, `shards`, `model`, `rejects`, `in_progress`
        (what runs have staged and not committed), `readable` (versions from the oldest on,
        without a gap), `log`; the last `runs` that committed, by the log, and the last
        `records`, which those that failed or found nothing to do have too; newest first.

    Raises:
        StorageError: there is no index, or it cannot be reached.
        UsageError: it has no such version.
        IndexFormatError: the log is damaged.

    Cost: reads the log's last entries, and a part of each of those that can still be read.
    """
    uri, version = split_version(index)
    newest = open_index(uri)
    shown = newest if version is None else open_index(uri, version)
    files = {file.name for file in stored_files(newest.uri)}
    log, oldest = read_log(newest.uri), oldest_readable(newest, files)
    there = [number for number in log.entries if number <= shown.version][-_LAST_RUNS:]
    return {
        "index": shown.uri,
        "version": shown.version,
        "rows": shown.num_rows,
        "bytes": sum(shard.size_bytes for shard in shown.shards),
        "shards": _shards(shown),
        "model": asdict(shown.spec),
        "rejects": _rejects(shown),
        "in_progress": _in_progress(newest),
        "readable": {
            "newest": newest.version,
            "oldest": oldest,
            "num_versions": 0 if oldest is None else newest.version - oldest + 1,
        },
        "log": {"entries": len(log.entries), "bytes": log.size_bytes},
        "runs": [_run(commit) for commit in read_commits(newest.uri, there[::-1])],
        "records": [_record(record) for record in read_records(newest.uri, _LAST_RUNS)],
    }


def _shards(index: Index) -> dict[str, Any]:
    rows = [shard.num_rows for shard in index.shards] or [0]
    return {
        "num": len(index.shards),
        "smallest_rows": min(rows),
        "median_rows": statistics.median(rows),
        "largest_rows": max(rows),
    }


def _rejects(index: Index) -> dict[str, Any]:
    """Rejects of each reason; what a status tells of a damaged index must not end it."""
    try:
        tables = list(reject_tables(index, ["reason"]))
    except IndexFormatError as error:
        return {"num": None, "error": str(error)}
    reasons = Counter(reason for table in tables for reason in table["reason"].to_pylist())
    return {"num": reasons.total(), "reasons": dict(reasons.most_common())}


def _in_progress(index: Index) -> dict[str, int]:
    live = {shard.path for shard in index.shards}
    receipts = [
        file.name for file in stored_files(join(index.uri, _STAGING)) if file.name.endswith(".json")
    ]
    waiting = [
        shard
        for name in receipts
        for shard in _named_shards(join(index.uri, _STAGING, name))
        if shard["path"] not in live
    ]
    return {
        "num_receipts": len(receipts),
        "num_shards": len(waiting),
        "num_rows": sum(shard["num_rows"] for shard in waiting),
    }


def _named_shards(uri: str) -> Iterator[dict[str, Any]]:
    try:
        shard = read_json(uri)["shard"]
        if shard:
            yield {"path": str(shard["path"]), "num_rows": int(shard["num_rows"])}
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
