"""Places that people name: whether they lie apart, and what lies there already.

Places are told by where they are, not by the text of a path. Two paths are of one place where the
same folder is at their end, by whatever links, "..", "file://" or mount it is reached. What is not
there yet lies where its nearest parent does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from retrieval.errors import StorageError, UsageError
from retrieval.storage.addresses import absolute_uri, is_local, join
from retrieval.storage.clients import open_store
from retrieval.storage.listing import Entry, entries, entry_at

__all__ = ["check_apart", "contents_at", "is_same_place", "none_there"]

# What tells each kind of output, in the order in which it is looked for.
_MARKS = (
    ("an index", "_delta_log"),
    ("a ranking", "_ranking.json"),
    ("a ranking", "ranking.json"),  # of earlier releases
    ("a model", "model.json"),
    ("an output of augment", ".augmented"),
    ("an experiment", "experiment.json"),
)
# What a run of ours that has not finished has begun: going on there is right.
_BEGUN = re.compile(
    r"shard-[^/]*\.parquet|_staging|_runs|part-[^/]*\.parquet|training|split\.parquet|weights\.safetensors|\..*"
)
_LOOK_AT = 10_000  # entries: enough to tell a folder of images by


def check_apart(inputs: Mapping[str, str | None], outputs: Mapping[str, str | None]) -> None:
    """Refuse a job of which an output would lie inside an input, hold it, or be it.

    What is written inside an input would be read with it the next time; what lies inside an
    output may be replaced or taken for its own.

    Args:
        inputs: Files, folders and addresses that are read, by what a message calls them, as "the
            photos' folder"; None where there is none.
        outputs: What is written, likewise, as "the index": may hold one another.

    Raises:
        UsageError: two of them do not lie apart.

    Cost: a few system calls a path; none of it is opened or listed.
    """
    read = {name: (uri, _place(uri)) for name, uri in inputs.items() if uri}
    for output in filter(None, outputs.values()):
        written = _place(output)
        for name, (uri, place) in read.items():
            if relation := _relation(written, place):
                what = "photos" if "photos" in name else "inputs"
                raise UsageError(
                    f"{absolute_uri(output)}: {relation} {name} {absolute_uri(uri)}, so that "
                    f"{what} and results would be mixed up. Choose a folder elsewhere."
                )


def is_same_place(one: str, other: str) -> bool:
    """Whether two paths or addresses are of one file or folder."""
    return _relation(_place(one), _place(other)) == "is"


@dataclass(frozen=True)
class _Place:
    """Where something lies.

    Attributes:
        above: What is there of it and of all folders above, the nearest first, as the file
            system numbers them; of an object store its kind alone.
        readings: The parts of the rest, which is not there; of an object store of the whole. More
            than one where a store may read an address in more than one way.
    """

    above: tuple[object, ...]
    readings: tuple[tuple[str, ...], ...]

    def is_inside(self, other: _Place) -> bool:
        """Whether this lies somewhere below the other, or is it."""
        if other.readings == ((),):
            return other.above[0] in self.above
        return self.above[0] == other.above[0] and any(
            mine[: len(others)] == others for mine in self.readings for others in other.readings
        )


def _relation(output: _Place, place: _Place) -> str | None:
    is_inside, holds = output.is_inside(place), place.is_inside(output)
    if is_inside and holds:
        return "is"
    return "lies inside" if is_inside else "holds" if holds else None


def _place(uri: str) -> _Place:
    return _local_place(uri) if is_local(uri) else _key_place(uri)


def _local_place(uri: str) -> _Place:
    path, rest = Path(os.path.realpath(absolute_uri(uri))), list[str]()
    while not _is_there(path) and path != path.parent:
        rest.insert(0, path.name)
        path = path.parent
    found = [folder.stat() for folder in (path, *path.parents)]
    return _Place(tuple((one.st_dev, one.st_ino) for one in found), (tuple(rest),))


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


def _key_place(uri: str) -> _Place:
    """By the store's own path, which is the same for all names of a scheme.

    "." and ".." are plain parts of a key, but some clients resolve them: both readings count.
    """
    filesystem, path = open_store(uri)
    literal = tuple(part for part in path.split("/") if part)
    resolved = list[str]()
    for part in literal:
        if part == "..":
            del resolved[-1:]
        elif part != ".":
            resolved.append(part)
    return _Place((filesystem.type_name,), (literal, tuple(resolved)))


def contents_at(uri: str) -> str | None:
    """In words what a file or folder holds; None where nothing is, or what a killed run began.

    Example:
        >>> contents_at("/nothing/there") is None
        True
    """
    uri = absolute_uri(uri)
    try:
        entry = entry_at(uri)
        if is_local(uri) and entry and entry.kind == "link":
            entry = entry_at(os.path.realpath(uri))
        if entry and entry.kind != "folder":
            return "a file" if entry.kind in ("file", "link") else "no file and no folder"
        for kind, mark in _MARKS:
            found = entry_at(join(uri, mark))
            if found and (found.kind != "folder" or any(entries(join(uri, mark)))):
                return kind
        return _folder_at(uri)
    except StorageError:
        return None


def _folder_at(uri: str) -> str | None:
    found = list(islice(entries(uri), _LOOK_AT)) if is_local(uri) else []
    files = [entry for entry in found if entry.kind == "file" and not _is_begun(entry)]
    return f"a folder of files, such as {files[0].path}" if files else None


def _is_begun(entry: Entry) -> bool:
    return _BEGUN.fullmatch(entry.path.partition("/")[0]) is not None


def none_there(uri: str, what: str, command: str, output: str, *, verb: str = "Make") -> str:
    """A line that something is not there, and how to make it: in that place if it is free.

    Args:
        uri: Where it was looked for.
        what: What is not there, as "index there".
        command: Makes one, up to the name of its output.
        output: What the command calls that, as "INDEX".
        verb: What the command does.
    """
    there = contents_at(uri)
    if there is None:
        return f"{uri}: no {what}. {verb} one: retrieval-cli {command} {uri}"
    return (
        f"{uri}: no {what}, but {there}. Name another place; {verb.lower()} one in a new place: "
        f"retrieval-cli {command} {output}"
    )
