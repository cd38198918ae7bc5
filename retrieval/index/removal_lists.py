"""What a vacuum is about to remove, told to all who may be about to commit it.

A night takes up shards that a killed night has left, a restore brings back those of an old
version, and a vacuum removes what no version needs. Each may begin before another one ends, on
another machine with another clock, pause as long as it likes, and be killed anywhere. A committed
version must all the same have every file that it names. No age of a file can promise that: a
night takes up a shard of 11 hours, works for 14, and a vacuum that keeps one day removes the
shard just before the night's commit. So a vacuum takes part in the order of the log.

What a vacuum does, in this order:

V1  Read the newest version, b. List the files that neither b nor the days to keep need.
V2  Write the list to _vacuum/ID.json: b, and the names.
V3  Commit version b + 1: the content of b unchanged, `vacuum: ID` in its record. If somebody else
    has b + 1, drop the list and begin anew.
V4  Remove what is listed, and nothing else.
V5  Remove the list.

What everybody else does who commits files (`commit_index`: a night, a restore):

C1  Read the newest version, b. If another run than vacuums has committed since the version that
    this run has seen, it has lost.
C2  Read the lists in _vacuum/.
C3  Look at every file that the new version adds, and at its rejects. One that is missing, or in a
    list *in force*, ends the try: nothing is committed (`VacuumedError`).
C4  Commit version b + 1, if nobody has it; otherwise begin at C1.

A list is *in force* if version b + 1 of the log is the commit of its own vacuum (V3); it is *dead*
if b + 1 is another run's, since then its vacuum can never commit on b; and it is *open* as long as
there is no b + 1. Only a list in force is ever carried out, by its own vacuum or by the next one
that finds it. One that is dead is dropped. One that is open is left alone: its vacuum may be alive,
and the next version makes it dead.

Why no version lacks a file that it names. Let a commit C with number c add a file f (or name
rejects f), and a vacuum's commit V with number v list f. One of the two numbers is the lower.

c < v   V's list was made at version v - 1, no older than C. If f is live there, it is not listed.
        If it is not, a commit between the two has taken it out, and version c is kept only as long
        as the days to keep say: then f is not listed either, or c is older than that.
v < c   C read in C1 that c - 1 >= v is there, and only then the lists (C2), and only then the files
        (C3). V's list was written before V's entry. So in C2 the list was there, and in force: C3
        refuses f. Or it had been removed, and before it (V4, V5) all that it lists: C3 misses f.

What a version keeps of the one before is not looked at, and need not be: it is live at every
version since its addition, so no list made there names it, and lists in force before that were seen
by C3 at its addition. A vacuum's own commit adds nothing.

This asks of the disk or the store: that one of several commits of a number wins, as the log does
anyway; and that who reads after a write was finished sees it, in a listing, too. Local disks, S3
(since December 2020) and GCS keep that. It asks that names are never used twice: shards are named
by chance, and rejects after their run, which writes them once. Nothing is asked of clocks: those
of files and of the log's entries decide what is worth keeping, never what is safe.

What is killed. Before V3: the list is open or dead, no file is gone, nobody heeds it. After V3: it
is in force, so that what it lists is never committed again, there or not; the next vacuum carries
it out. A vacuum that wakes after another one has carried out its list finds nothing left to
remove. A loss of power may bring back a removed file and not the list: then nobody removes it any
more, as if it had never been listed.

What it does not cover: releases before this one, of which nights do not read the lists and vacuums
write none; and other tools' writers and vacuums of Delta Lake. None of them may write beside these.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from retrieval.errors import IndexFormatError, StorageError
from retrieval.format_version import FORMAT_VERSION, check_format_version
from retrieval.index.entries import entry_uri
from retrieval.index.folder import check_no_link, own_files
from retrieval.index.names import REJECTS_FILE, REMOVAL_LIST, SHARD, VACUUM
from retrieval.index.table import newest_version, read_run
from retrieval.storage import LISTING_BYTES, file_exists, first_line, join, read_json, write_bytes

__all__ = [
    "VACUUM_KEY",
    "RemovalList",
    "State",
    "names_in_force",
    "read_lists",
    "state_of",
    "write_list",
]

VACUUM_KEY = "vacuum"  # in a vacuum's record: the id of its list
_NEWEST_FORMAT = 1


@dataclass(frozen=True)
class RemovalList:
    """Files that are to be removed.

    Attributes:
        list_id: Drawn by chance.
        version: The version that was the newest when it was made.
        names: Shards and files of rejects, relative to the index.
    """

    list_id: str
    version: int
    names: tuple[str, ...]

    @property
    def path(self) -> str:
        """Its own file, relative to the index."""
        return f"{VACUUM}/{self.list_id}.json"


class State(Enum):
    """What becomes of a list; see the head of this module."""

    OPEN = auto()
    IN_FORCE = auto()
    DEAD = auto()
    FORGOTTEN = auto()  # other tools have cleaned its entry out of the log, after 30 days or more


def write_list(uri: str, version: int, names: Iterable[str]) -> RemovalList:
    """Write a list that is not yet in force; raises StorageError."""
    check_no_link(uri, VACUUM)
    written = RemovalList(uuid.uuid4().hex, version, tuple(names))
    content = {FORMAT_VERSION: 1, "version": version, "names": written.names}
    write_bytes(join(uri, written.path), json.dumps(content).encode())
    return written


def read_lists(uri: str) -> list[RemovalList]:
    """All lists that are there.

    Raises:
        IndexFormatError: one is damaged, names what is never removed, or is of a newer release.
        StorageError: one cannot be read.
    """
    found = [_read_list(uri, file.name) for file in own_files(uri, VACUUM, REMOVAL_LIST)]
    return [each for each in found if each is not None]


def _read_list(uri: str, path: str) -> RemovalList | None:
    where = join(uri, path)
    try:
        found = read_json(where, max_bytes=LISTING_BYTES)
        check_format_version(found, _NEWEST_FORMAT, where, IndexFormatError)
        version, names = found["version"], found["names"]
        if not isinstance(version, int) or not all(map(_may_be_listed, names)):
            raise ValueError("it names what no vacuum removes")
    except FileNotFoundError:
        return None  # all that it listed has been removed meanwhile
    except (ValueError, KeyError, TypeError) as error:
        raise IndexFormatError(
            f"{where}: this list of a vacuum cannot be read ({first_line(error)}). If no vacuum is "
            f"running, remove the file."
        ) from error
    except OSError as error:
        raise StorageError(
            f"{where}: cannot be read ({first_line(error)}). Allow reading it."
        ) from error
    return RemovalList(path.removeprefix(f"{VACUUM}/").removesuffix(".json"), version, tuple(names))


def _may_be_listed(name: object) -> bool:
    return isinstance(name, str) and bool(SHARD.fullmatch(name) or REJECTS_FILE.fullmatch(name))


def state_of(uri: str, lists: Sequence[RemovalList]) -> list[State]:
    """Of each list; errors as `read_run`.

    Cost: one look at the log, and an entry a list.
    """
    if not lists:
        return []
    newest = newest_version(uri)
    return [_state_of(uri, each, newest) for each in lists]


def _state_of(uri: str, each: RemovalList, newest: int | None) -> State:
    if newest is None or newest <= each.version:
        return State.OPEN
    version = each.version + 1
    if read_run(uri, version).get(VACUUM_KEY) == each.list_id:
        return State.IN_FORCE
    return State.DEAD if file_exists(entry_uri(uri, version)) else State.FORGOTTEN


def names_in_force(uri: str) -> frozenset[str]:
    """Files that are being removed, there or not: who takes up work counts them as absent.

    Raises:
        IndexFormatError, StorageError: as `read_lists` and `read_run`.

    Cost: one listing; where a vacuum is at work or was killed, also its list and its entry.
    """
    lists = read_lists(uri)
    states = state_of(uri, lists)
    heeded = (State.IN_FORCE, State.FORGOTTEN)
    return frozenset(
        name
        for each, state in zip(lists, states, strict=True)
        if state in heeded
        for name in each.names
    )
