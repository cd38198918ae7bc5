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
from typing import Any

from deltalake.exceptions import CommitFailedError, DeltaError

from retrieval.errors import StorageError, UsageError
from retrieval.failpoints import reached
from retrieval.format_version import FORMAT_VERSION
from retrieval.index import delta_log_writer as local_log
from retrieval.index.before_commit import check_addable, newest_alike
from retrieval.index.commit_change import CHECKPOINT_VERSIONS, change_to, no_change, write_change
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
from retrieval.index.schema import EmbeddingSpec
from retrieval.index.shards import Shard
from retrieval.index.table import (
    Index,
    newest_version,
    table_uri,
    torn,
)
from retrieval.storage import first_line, is_local

__all__ = ["commit_again", "commit_index"]

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
        change = change_to(uri, spec, shards, base)
        check_addable(uri, change.adds, rejects)
        reached("before commit")
        write_change(uri, _after(base), change, _commit_text(record, spec, shards))

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
        write_change(uri, _after(base), no_change(uri, index.version), said)

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
    if is_local(uri) and (version + 1) % CHECKPOINT_VERSIONS == 0:
        local_log.write_checkpoint(uri, version)
    return version


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
