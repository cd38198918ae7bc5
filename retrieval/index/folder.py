"""What lies in the folder of an index, with sizes and times: one listing, no file opened."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.fs as pafs

from retrieval.errors import StorageError
from retrieval.storage import absolute_uri, first_line, is_local, join, open_store

__all__ = [
    "StoredFile",
    "check_no_link",
    "is_behind_link",
    "own_files",
    "parquet_names",
    "stored_files",
    "stored_folders",
]


@dataclass(frozen=True)
class StoredFile:
    """A file of a folder.

    Attributes:
        name: Without the folder.
        size_bytes: Its size.
        modified_s: When it was written, seconds since 1970, by the clock of where it lies.
    """

    name: str
    size_bytes: int
    modified_s: float


def stored_files(folder: str) -> list[StoredFile]:
    """The files directly inside a folder, hidden ones too, sorted by name.

    Raises:
        StorageError: the folder cannot be listed. One that is missing holds no file.

    Cost: one listing; on a local disk also a look at each file.
    """
    with _named(folder):
        found = _local_files(folder) if is_local(folder) else _remote_files(folder)
    return sorted(found, key=lambda file: file.name)


def own_files(uri: str, folder: str, pattern: re.Pattern[str]) -> list[StoredFile]:
    """The files of a folder of an index that this program has written, by their names.

    A link is none of them, nor is what lies in a folder that is one.

    Args:
        uri: The index.
        folder: Relative to it; "" for the index itself.
        pattern: Of the path of such a file, relative to the index.

    Returns:
        Sorted by name; the names are paths relative to the index. Errors as `stored_files`.
    """
    found = stored_files(join(uri, folder) if folder else uri)
    if folder:
        found = [replace(file, name=join(folder, file.name)) for file in found]
    return [
        file
        for file in found
        if pattern.fullmatch(file.name) and not is_behind_link(uri, file.name)
    ]


def parquet_names(folder: str) -> list[str]:
    """Names of the Parquet files directly inside a folder; errors as `stored_files`."""
    names = [file.name for file in stored_files(folder)]
    return [name for name in names if name.endswith(".parquet") and name[0] not in "._"]


def is_behind_link(uri: str, path: str) -> bool:
    """Whether a path inside an index leads through a link, or is one; a store has none.

    Raises:
        StorageError: the file system does not say.
    """
    if not is_local(uri):
        return False
    place = Path(absolute_uri(uri))
    with _named(str(place)):
        for name in path.split("/"):
            place /= name
            if place.is_symlink():
                return True
    return False


def check_no_link(uri: str, *folders: str) -> None:
    """Refuse to write into folders of an index that are links: nothing there would be ours.

    Raises:
        StorageError: one is.
    """
    for folder in folders:
        if is_behind_link(uri, folder):
            raise StorageError(
                f"{join(uri, folder)}: is a link, which no job has made, and nothing is written or "
                f"removed behind it. Put the folder itself there."
            )


def stored_folders(folder: str) -> list[str]:
    """Names of the folders directly inside a folder, sorted; errors as `stored_files`."""
    with _named(folder):
        if is_local(folder):
            return sorted(entry.name for entry in _local_entries(folder) if entry.is_dir())
        return sorted(
            info.base_name for info in _infos(folder) if info.type == pafs.FileType.Directory
        )


@contextmanager
def _named(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be listed ({first_line(error)}). Check the address, and allow "
            f"reading it."
        ) from error


def _local_files(folder: str) -> list[StoredFile]:
    # Not by pyarrow, which fails on a name that is not UTF-8.
    found = []
    for entry in _local_entries(folder):
        try:
            if entry.is_file():
                stat = entry.stat()
                found.append(StoredFile(entry.name, stat.st_size, stat.st_mtime))
        except FileNotFoundError:
            continue  # removed just now
    return found


def _local_entries(folder: str) -> list[os.DirEntry[str]]:
    path = Path(absolute_uri(folder))
    if not path.is_dir():
        return []
    with os.scandir(path) as entries:
        return list(entries)


def _remote_files(folder: str) -> list[StoredFile]:
    return [
        StoredFile(info.base_name, info.size, (info.mtime_ns or 0) / 1e9)
        for info in _infos(folder)
        if info.type == pafs.FileType.File
    ]


def _infos(folder: str) -> list[pafs.FileInfo]:
    filesystem, path = open_store(folder)
    return list(filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True)))
