"""Going back: a new version whose content is that of an old one. Nothing is ever deleted."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from retrieval.errors import StorageError, UsageError, VacuumedError
from retrieval.failpoints import reached
from retrieval.index import commit_index, open_index
from retrieval.index.folder import own_files, stored_files
from retrieval.index.history import oldest_readable
from retrieval.index.names import REJECTS_FILE
from retrieval.index.rejects import rejects_path
from retrieval.index.removal_lists import VACUUM_KEY
from retrieval.index.table import Index

__all__ = ["restore_index"]

# What an old record says of its own commit alone.
_OWN = (
    "run_id", "commit_id", "created_at", "sources", "restored_version", "repeated_version",
    "repeated_run_id", VACUUM_KEY,
)  # fmt: skip


def restore_index(uri: str, version: int) -> Index:
    """Commit the content of an old version as the newest one.

    The record of the run is that of the old version, with its counts and its rejects, but for
    the names of the run; `restored_version` tells where it comes from.

    Args:
        uri: The index.
        version: The version to go back to.

    Returns:
        The new version.

    Raises:
        UsageError: there is no such version, it is the newest already, or a shard or the
            rejects of it have been vacuumed.
        MismatchError: another run has committed meanwhile.
        StorageError: the commit failed; or a vacuum of an older release, which tells nobody
            what it removes, took a shard just then.

    Cost: one listing of the folder, and one commit. No shard is read or copied.
    """
    now = open_index(uri)
    if version == now.version:
        raise UsageError(f"{now.uri}: version {version} is the newest already. Name an older one.")
    old = open_index(uri, version)
    _refuse_vacuumed(now, old)
    rejects = rejects_path(old.run, old.uri)
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    kept = {name: value for name, value in old.run.items() if name not in _OWN}
    run = {
        **kept,
        "run_id": run_id,
        "created_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "restored_version": version,
        "rejects": rejects,
    }
    reached("before restore")
    try:
        number = commit_index(
            now.uri, old.spec, old.shards, run=run, seen_version=now.version, rejects=rejects
        )
    except VacuumedError as error:
        raise UsageError(
            f"{now.uri}: version {version} cannot be restored: a vacuum is removing its files. "
            f"retrieval-cli status {now.uri} tells which versions can be."
        ) from error
    if missing := _missing(old):
        raise StorageError(
            f"{now.uri}: version {number} lacks {missing[0]}, which a vacuum that ran at the same "
            f"time has removed. Go back once more: retrieval-cli restore {now.uri} {now.version}"
        )
    return open_index(uri, number)


def _refuse_vacuumed(now: Index, old: Index) -> None:
    missing = _missing(old)
    if not missing:
        return
    oldest = oldest_readable(now, {file.name for file in stored_files(now.uri)})
    whole = f"Versions {oldest} to {now.version} can be." if oldest is not None else "Verify it."
    raise UsageError(
        f"{now.uri}: version {old.version} cannot be restored: {len(missing)} of its files have "
        f"been vacuumed, such as {missing[0]}. {whole}"
    )


def _missing(index: Index) -> list[str]:
    """What a version needs and the folder does not hold."""
    there = {(file.name, file.size_bytes) for file in stored_files(index.uri)}
    missing = [shard.path for shard in index.shards if (shard.path, shard.size_bytes) not in there]
    rejects = rejects_path(index.run, index.uri)
    if rejects and not own_files(index.uri, rejects, REJECTS_FILE):
        missing.append(rejects)
    return missing
