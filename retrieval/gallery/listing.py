"""The listing of a gallery: which photos there are, before any of them is opened.

Every file counts, whatever its name: the content decides whether it is a photo, so a
listed file ends up in the index or among the rejects and never disappears in between.
A link that leads out of the gallery is listed and not followed, unless that is asked for: what
lies there is nobody's to embed who can only make links.
Left out are only hidden files and folders (".git", "._photo.jpg"), the litter that systems leave
(LITTER), pipes, sockets and devices, and the contact sheet that `augment` puts beside the class
folders.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from retrieval.errors import StorageError
from retrieval.gallery.manifest import CATALOGUE_SCHEMA, MAX_TIME_US, read_manifest
from retrieval.storage import (
    LITTER,
    absolute_uri,
    as_utf8,
    check_store_answers,
    file_exists,
    first_line,
    is_litter,
    is_local,
    is_utf8,
    join,
    leads_out,
    open_store,
    walk,
)

__all__ = [
    "CATALOGUE_SCHEMA",
    "CONTACT_SHEET",
    "LINK_OUTSIDE_BYTES",
    "LITTER",
    "NAME_NOT_UTF8_BYTES",
    "is_left_out",
    "is_litter",
    "list_batches",
    "list_photos",
]

_BATCH_FILES = 64 * 1024

# Decodes like a photo and shows one under every technique, but is none. At the root alone and
# with this name, since any other picture may be somebody's photo.
CONTACT_SHEET = "augmentations.png"
# The size of a link that leads out and is not followed. It tells whoever would fetch it, and to
# follow it is a change of the file.
LINK_OUTSIDE_BYTES = -1
# Of a file whose name, or that of a folder above it, is not UTF-8: no text leads there.
NAME_NOT_UTF8_BYTES = -2


class ListedFile(NamedTuple):
    """One row of the catalogue, in the order of CATALOGUE_SCHEMA."""

    image_id: str
    uri: str
    size_bytes: int
    modified_at: int  # microseconds since 1970: a datetime ends with the year 9999


def list_photos(gallery: str, *, follow_links: bool = False) -> pa.Table:
    """List the files of a gallery, sorted by image id.

    Args:
        gallery: A local folder or an object-store address, or a manifest (see
            `list_batches`). Links to files and folders inside the gallery are followed; a folder
            that contains itself through a link is entered once.
        follow_links: Whether to follow links out of a local gallery too. If not, such a link is
            one row, of LINK_OUTSIDE_BYTES, even where a folder is at its end. The gallery itself
            may be a link.

    Returns:
        A table of CATALOGUE_SCHEMA. `image_id` is the path relative to the gallery with
        "/" between its parts; bytes of a name that are not UTF-8 are written as %XX, and such a
        file is one row of NAME_NOT_UTF8_BYTES.

    Raises:
        StorageError: the folder is missing, is no folder, cannot be listed, or holds no file.

    Cost: about 200 bytes of memory a file, one system call a file (local) or one request
    per 1,000 files (object store).
    """
    batches = list(list_batches(gallery, follow_links=follow_links))
    return pa.Table.from_batches(batches, CATALOGUE_SCHEMA).combine_chunks().sort_by("image_id")


def list_batches(gallery: str, *, follow_links: bool = False) -> Iterator[pa.RecordBatch]:
    """As `list_photos`, a part at a time and in no order: for galleries of many millions.

    Args:
        gallery: A folder or an address, or a manifest: a Parquet file that names the photos by
            the columns of CATALOGUE_SCHEMA, and addresses that are absolute or relative to it.
        follow_links: As there. Of a manifest all are followed.
    """
    root = absolute_uri(gallery)
    if root.endswith(".parquet") and file_exists(root):
        yield from read_manifest(root)
        return
    found = _list_local(root, follow_links) if is_local(root) else _list_store(root)
    files = (file for file in found if file.image_id != CONTACT_SHEET)
    is_empty = True
    while batch := list(islice(files, _BATCH_FILES)):
        is_empty = False
        arrays = [
            pa.array(column, field.type)
            for column, field in zip(zip(*batch, strict=True), CATALOGUE_SCHEMA, strict=True)
        ]
        yield pa.record_batch(arrays, schema=CATALOGUE_SCHEMA)
    if is_empty:
        raise StorageError(f"{gallery}: no file found. A folder that holds photos is needed.")


def is_left_out(name: str) -> bool:
    """Whether a file or folder with this name is no part of any gallery, and a folder no class."""
    return name.startswith(".") or name.lower() in LITTER


def _list_local(root: str, follow_links: bool) -> Iterator[ListedFile]:
    if not Path(root).is_dir():
        what = "a file, not a folder" if Path(root).exists() else "missing"
        raise StorageError(f"{root}: {what}. A folder that holds photos is needed.")
    real_root = os.path.realpath(root)
    for image_id, entry in walk(root, is_left_out, stays_inside=not follow_links):
        if not follow_links and leads_out(entry, real_root):
            yield ListedFile(image_id, as_utf8(entry.path), LINK_OUTSIDE_BYTES, 0)
            continue
        status = _status(entry)
        if status and (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            if not is_utf8(entry.path):
                yield ListedFile(image_id, as_utf8(entry.path), NAME_NOT_UTF8_BYTES, 0)
                continue
            modified_at = _in_range(status.st_mtime_ns // 1000)
            yield ListedFile(image_id, entry.path, status.st_size, modified_at)


def _in_range(time_us: int) -> int:
    """The time of a file, or 0, as of a store that keeps none: a broken clock wrote it."""
    return time_us if abs(time_us) < MAX_TIME_US else 0


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Of what a link leads to, or of the link if that is nowhere: a reject, not a silence."""
    try:
        return entry.stat()
    except OSError:
        try:
            return entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None  # removed since the folder was listed


def _list_store(root: str) -> Iterator[ListedFile]:
    check_store_answers(root)
    filesystem, path = open_store(root)
    path = path.rstrip("/")
    try:
        found = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    except OSError as error:
        raise StorageError(
            f"{root}: cannot be listed ({first_line(error)}). "
            f"Check the address and the credentials of this machine."
        ) from error
    files = [info for info in found if info.type == pafs.FileType.File]
    twice = _twice([info.path for info in files])
    for info in files:
        image_id = info.path[len(path) + 1 :]
        if any(map(is_left_out, image_id.split("/"))) or twice.get(info.path):
            continue
        if info.path in twice:
            twice[info.path] = True
        # A store without time stamps gives none; then size and content alone tell a change.
        modified_at = _in_range((info.mtime_ns or 0) // 1000)
        yield ListedFile(image_id, join(root, image_id), info.size, modified_at)


def _twice(paths: list[str]) -> dict[str, bool]:
    """The paths that stand there more than once, each with False.

    Arrow takes the slash away from the end of a key, which makes another key's name of it. The key
    without it comes first; one with it is a folder's mark, whatever it holds.
    """
    hashes = np.fromiter(map(hash, paths), np.int64, len(paths))
    values, counts = np.unique(hashes, return_counts=True)
    more = frozenset(values[counts > 1].tolist())
    return {path: False for path in paths if hash(path) in more} if more else {}
