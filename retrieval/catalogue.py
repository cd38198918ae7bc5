"""The listing of a gallery: which photos there are, before any of them is opened.

Every file counts, whatever its name: the content decides whether it is a photo, so a
listed file ends up in the index or among the rejects and never disappears in between.
Left out are only hidden files and folders (".git", "._photo.jpg") and the litter that
desktops leave (LITTER).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.fs as pafs

from retrieval.errors import StorageError
from retrieval.storage import absolute_uri, first_line, is_local, join, open_store

__all__ = ["CATALOGUE_SCHEMA", "LITTER", "list_photos"]

LITTER = frozenset({"thumbs.db", "desktop.ini"})

CATALOGUE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("modified_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)


class ListedFile(NamedTuple):
    """One row of the catalogue, in the order of CATALOGUE_SCHEMA."""

    image_id: str
    uri: str
    size_bytes: int
    modified_at: datetime


def list_photos(gallery: str) -> pa.Table:
    """List the files of a gallery, sorted by image id.

    Args:
        gallery: A local folder or an object-store address. Links to files and folders are
            followed; a folder that contains itself through a link is entered once.

    Returns:
        A table of CATALOGUE_SCHEMA. `image_id` is the path relative to the gallery with
        "/" between its parts; bytes of a name that are not UTF-8 are written as %XX.

    Raises:
        StorageError: the folder is missing, is no folder, cannot be listed, or holds no file.

    Cost: about 200 bytes of memory a file, one system call a file (local) or one request
    per 1,000 files (object store).
    """
    root = absolute_uri(gallery)
    files = list(_list_local(root) if is_local(root) else _list_store(root))
    if not files:
        raise StorageError(f"{gallery}: no file found. A folder that holds photos is needed.")
    files.sort()
    columns = zip(*files, strict=True)
    arrays = [
        pa.array(column, field.type)
        for column, field in zip(columns, CATALOGUE_SCHEMA, strict=True)
    ]
    return pa.table(arrays, schema=CATALOGUE_SCHEMA)


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER


def _list_local(root: str) -> Iterator[ListedFile]:
    """Walk a local folder with os.scandir.

    Not with pyarrow: that fails on a name that is not UTF-8 and follows a link to its own
    parent forty levels deep.
    """
    if not Path(root).is_dir():
        what = "a file, not a folder" if Path(root).exists() else "missing"
        raise StorageError(f"{root}: {what}. A folder that holds photos is needed.")
    pending: list[tuple[str, str, frozenset[str]]] = [
        (root, "", frozenset({os.path.realpath(root)}))
    ]
    while pending:
        folder, prefix, parents = pending.pop()
        for entry in _scan(folder):
            image_id = prefix + entry.name
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real not in parents:
                    pending.append((entry.path, f"{image_id}/", parents | {real}))
            elif listed := _local_file(entry, image_id):
                yield listed


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        return [entry for entry in os.scandir(folder) if not _is_left_out(entry.name)]
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be listed ({first_line(error)}). Its photos would be taken for "
            f"deleted; allow reading it, or move it out of the gallery."
        ) from error


def _local_file(entry: os.DirEntry[str], image_id: str) -> ListedFile | None:
    """A row for a file or a dangling link; None for a socket, pipe or device."""
    if not entry.is_file() and not entry.is_symlink():
        return None
    try:
        status = entry.stat()
    except OSError:
        status = entry.stat(follow_symlinks=False)  # a dangling link is a reject, not a silence
    modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
    return ListedFile(_as_utf8(image_id), _as_utf8(entry.path), status.st_size, modified_at)


def _as_utf8(name: str) -> str:
    """Write bytes that are not UTF-8 as %XX, so that the name fits a Parquet string."""
    return "".join(
        f"%{ord(letter) - 0xDC00:02X}" if 0xDC80 <= ord(letter) <= 0xDCFF else letter
        for letter in name
    )


def _list_store(root: str) -> Iterator[ListedFile]:
    filesystem, path = open_store(root)
    path = path.rstrip("/")
    try:
        found = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    except OSError as error:
        raise StorageError(
            f"{root}: cannot be listed ({first_line(error)}). "
            f"Check the address and the credentials of this machine."
        ) from error
    for info in found:
        image_id = info.path[len(path) + 1 :]
        if info.type != pafs.FileType.File or any(map(_is_left_out, image_id.split("/"))):
            continue
        # A store without time stamps gives none; then size and content alone tell a change.
        modified_at = info.mtime or datetime.fromtimestamp(0, UTC)
        yield ListedFile(image_id, join(root, image_id), info.size, modified_at)
