"""What must hold before a version is committed: nobody was faster, and all that it adds is there.

In which order this is asked, and why, is told in removal_lists.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from retrieval.errors import IndexFormatError, MismatchError, StorageError, VacuumedError
from retrieval.failpoints import reached
from retrieval.index.folder import own_files
from retrieval.index.history import read_commit
from retrieval.index.names import REJECTS_FILE
from retrieval.index.removal_lists import VACUUM_KEY, names_in_force
from retrieval.index.shards import Shard
from retrieval.index.table import newest_version
from retrieval.storage import file_stamp, join

__all__ = ["check_addable", "check_not_overtaken", "newest_alike"]

_LOOK_UPS = 16  # side by side; one takes some 20 ms on an object store


def check_not_overtaken(uri: str, seen_version: int | None) -> None:
    """Raise MismatchError if another run than vacuums has committed since a version."""
    newest_alike(uri, seen_version, passes_vacuums=True)


def newest_alike(uri: str, base: int | None, *, passes_vacuums: bool) -> int | None:
    """The newest version, whose content is that of an older one.

    Args:
        uri: The index.
        base: The older one; None if there was no index.
        passes_vacuums: Whether versions of vacuums alone may lie between.

    Raises:
        MismatchError: another run has committed since.
    """
    newest = newest_version(uri)
    if newest == base:
        return base
    if passes_vacuums and base is not None and newest is not None and newest > base:
        between = range(base + 1, newest + 1)
        if all(_is_of_a_vacuum(uri, version) for version in between):
            return newest
    raise MismatchError(
        f"{uri}: another run has committed version {newest} meanwhile; this one started "
        f"from {base}. Nothing was changed: run it again."
    )


def _is_of_a_vacuum(uri: str, version: int) -> bool:
    try:
        commit = read_commit(uri, version)
    except IndexFormatError:  # such as an entry that has been cleaned up: nobody can tell
        return False
    return VACUUM_KEY in commit.run and not commit.added and not commit.removed


def check_addable(uri: str, shards: Sequence[Shard], rejects: str | None) -> None:
    """Refuse what is gone or about to go, and what is not whole: the log itself would take it.

    In this order, after the newest version was read: see removal_lists.py.
    """
    listed = names_in_force(uri)
    reached("lists read")

    def size_bytes(shard: Shard) -> int:
        return file_stamp(join(uri, shard.path))[0]

    with ThreadPoolExecutor(_LOOK_UPS) as pool:
        for shard, found in zip(shards, pool.map(size_bytes, shards), strict=True):
            where = join(uri, shard.path)
            if found < 0 or shard.path in listed:
                state = "is being vacuumed" if shard.path in listed else "is not there"
                raise VacuumedError(
                    f"{where}: this new shard {state}; {shard.size_bytes} bytes are needed. "
                    f"Nothing was committed: run it again."
                )
            if found != shard.size_bytes:
                raise StorageError(
                    f"{where}: this new shard has {found} bytes; {shard.size_bytes} bytes are "
                    f"needed. Nothing was committed: run it again."
                )
    if rejects is None:
        return
    files = {file.name for file in own_files(uri, rejects, REJECTS_FILE)}
    if not files or files & listed:
        raise VacuumedError(
            f"{join(uri, rejects)}: these rejects are gone, or are being vacuumed. Nothing was "
            f"committed: run it again."
        )
