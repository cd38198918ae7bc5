"""What lies in a folder: listings, globs, and where links lead."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.fs as pafs

from retrieval.errors import StorageError
from retrieval.storage.addresses import absolute_uri, as_utf8, is_local, join
from retrieval.storage.clients import open_store
from retrieval.storage.files import CHECK_ADDRESS, file_exists, storage_error

__all__ = ["expand", "leads_out", "list_files", "walk"]

_CHECK_FOLDER = "Its files would be taken for deleted; allow reading it, or move it elsewhere."


def list_files(folder: str) -> list[str]:
    """URIs of the files directly and deeper inside a folder, sorted; hidden ones left out.

    Hidden is what pyarrow, Spark and DuckDB skip too: a name that begins with "." or "_".

    Raises:
        StorageError: a folder cannot be listed. One that is missing holds no file.
    """
    if is_local(folder):
        root = absolute_uri(folder)
        if not Path(root).is_dir():
            return []
        entries = walk(root, _is_hidden)
        return sorted(join(folder, as_utf8(path)) for path, at in entries if Path(at).is_file())
    filesystem, path = open_store(folder)
    selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
    with storage_error(folder, "listed", CHECK_ADDRESS):
        infos = filesystem.get_file_info(selector)
    start = len(path.rstrip("/")) + 1
    inside = [info.path[start:] for info in infos if info.type == pafs.FileType.File]
    return sorted(join(folder, at) for at in inside if not any(map(_is_hidden, at.split("/"))))


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def walk(
    root: str, is_left_out: Callable[[str], bool], *, stays_inside: bool = False
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All that lies in a local folder and is no folder: path inside it, and entry.

    Links are followed; a folder that contains itself through a link is entered once. Not by
    pyarrow: that fails on a name that is not UTF-8 and follows such a link forty levels deep.

    Args:
        root: The folder.
        is_left_out: Tells by its name what to pass over.
        stays_inside: Whether a link to a folder outside the root (see `leads_out`) is given as
            if it were a file, instead of what lies in that folder.

    Raises:
        StorageError: a folder cannot be listed.
    """
    real_root = os.path.realpath(root)
    pending = [(root, "", frozenset({real_root}))]
    while pending:
        folder, prefix, parents = pending.pop()
        with storage_error(as_utf8(folder), "listed", _CHECK_FOLDER), os.scandir(folder) as scan:
            entries = [entry for entry in scan if not is_left_out(entry.name)]
        for entry in entries:
            if not _is_folder(entry) or (stays_inside and leads_out(entry, real_root)):
                yield prefix + entry.name, entry
            elif (real := os.path.realpath(entry)) not in parents:
                pending.append((entry.path, f"{prefix}{entry.name}/", parents | {real}))


def leads_out(entry: os.DirEntry[str], real_root: str) -> bool:
    """Whether an entry is a link to what lies outside a folder, or would lie there.

    Args:
        entry: Of `walk`.
        real_root: The folder, by `os.path.realpath`.
    """
    if not entry.is_symlink():
        return False
    return os.path.commonpath([os.path.realpath(entry), real_root]) != real_root


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself


def expand(pattern: str) -> list[str]:
    """URIs that a file, a folder or a local glob stands for, sorted.

    Raises:
        StorageError: nothing is there.
    """
    if is_local(pattern) and glob.has_magic(pattern) and not Path(absolute_uri(pattern)).exists():
        # Not Path.glob, which wants a relative pattern.
        matches = glob.glob(absolute_uri(pattern), recursive=True)  # noqa: PTH207
        found = sorted(as_utf8(match) for match in matches if Path(match).is_file())
    else:
        uri = absolute_uri(pattern)
        found = [uri] if file_exists(uri) else list_files(uri)
    if not found:
        raise StorageError(f"{pattern}: no file found there. Name a folder, a file or a glob.")
    return found
