"""What lies at a place that was taken for something else, so that no advice is to write over it."""

from __future__ import annotations

import os
import re
from itertools import islice

from retrieval.errors import StorageError
from retrieval.storage.addresses import absolute_uri, is_local, join
from retrieval.storage.listing import Entry, entries, entry_at

__all__ = ["contents_at", "none_there"]

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
