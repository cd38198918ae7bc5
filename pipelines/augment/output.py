"""The output folder of `augment`: what may be one, what is kept of it, what goes.

In the end the folder holds what the settings say and nothing else. So files of earlier settings
go, in an order in which a kill does no harm: first the manifest, which vouches for all of
them, then the parts, which vouch for some, then the files themselves. Nothing goes that the job
has not written: it keeps a list of the photos that it copies, made before it copies any, and
knows results by their names. A folder with any other file is refused.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipelines.augment.plan import source_of
from pipelines.augment.worker import Part, encode_table, part_path, read_part
from retrieval.augmentations.manifest import AUGMENT_FORMAT, AUGMENTED, MANIFEST, SETTINGS
from retrieval.catalogue import CONTACT_SHEET, LITTER
from retrieval.errors import StorageError, UsageError
from retrieval.format_version import check_format_version
from retrieval.storage import (
    DAMAGED_PARQUET,
    absolute_uri,
    as_utf8,
    file_exists,
    first_line,
    is_local,
    join,
    open_input,
    open_store,
    read_bytes,
    remove_file,
    walk,
    write_bytes,
)
from retrieval.table_format import check_table_format

__all__ = [
    "REJECTS",
    "SETTINGS",
    "check_format",
    "check_places",
    "finished_parts",
    "list_everything",
    "read_parts",
    "remove_others",
    "sheet_path",
]

REJECTS: Final = f"{AUGMENTED}/rejects.parquet"
_PARTS: Final = f"{AUGMENTED}/parts/"
_COPIED: Final = f"{AUGMENTED}/copied.parquet"
_TABLE: Final = re.compile(r"part-[0-9a-f]{24}-[0-9]+-[0-9]+\.parquet")
_UNFINISHED: Final = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")  # as storage.write_bytes names it
_AT_ONCE: Final = 16  # files read or removed side by side: hides the latency of an object store


def sheet_path(kind: str) -> str:
    """Where the contact sheet lies; hidden in a folder of Parquet, that it can be read as one."""
    return CONTACT_SHEET if kind == "jpeg" else f"{AUGMENTED}/{CONTACT_SHEET}"


def check_places(photos: str, output: str) -> None:
    """Refuse folders that would be mixed up or overwritten.

    Raises:
        UsageError: one folder lies in the other, or the photos have been augmented already.
        StorageError: the output holds files of somebody else.
    """
    source, target = (f"{_real(uri)}/" for uri in (photos, output))
    if target.startswith(source) or source.startswith(target):
        where = "is" if source == target else "lies inside" if target > source else "holds"
        raise UsageError(
            f"{output}: {where} the photos' folder {photos}, so that photos and results would be "
            f"mixed up. Choose a folder elsewhere."
        )
    if file_exists(join(photos, SETTINGS)):
        raise UsageError(
            f"{photos}: has been written by augment, and copies of copies are not made. Give the "
            f"folder of the original photos."
        )
    copied, is_known = _read_copied(output), file_exists(join(output, SETTINGS))
    for path in list_everything(output):
        if not _is_hidden(path) and not (is_known and _is_ours(path, copied)):
            raise StorageError(
                f"{output}: holds files that augment has not written, such as {path}. Choose a "
                f"new folder, or move them elsewhere."
            )


def _real(uri: str) -> str:
    return os.path.realpath(absolute_uri(uri)) if is_local(uri) else uri


def _read_copied(output: str) -> frozenset[str]:
    """The photos that earlier runs have copied, or were about to; none where no list is."""
    uri = join(output, _COPIED)
    try:
        with open_input(uri) as stream:
            table = pq.read_table(stream)
        check_table_format(table.schema, AUGMENT_FORMAT, uri, StorageError)
        return frozenset(table["image_id"].to_pylist())
    except DAMAGED_PARQUET:
        return frozenset()


def check_format(output: str) -> None:
    """Refuse an output that a newer release has written: StorageError."""
    uri = join(output, SETTINGS)
    try:
        found = dict(json.loads(read_bytes(uri)))
    except (OSError, ValueError, TypeError):
        return  # none there, or damaged: they are written anew
    check_format_version(found, AUGMENT_FORMAT, uri, StorageError)


def _write_copied(output: str, photos: Iterable[str]) -> None:
    table = pa.table({"image_id": pa.array(sorted(photos), pa.string())})
    write_bytes(join(output, _COPIED), encode_table(table))


def _is_ours(path: str, copied: Collection[str]) -> bool:
    """Whether a file is a copied photo, a result of one, a table of them or the contact sheet."""
    is_table = _TABLE.fullmatch(path) is not None
    return is_table or path == CONTACT_SHEET or path in copied or source_of(path) in copied


def _is_hidden(path: str) -> bool:
    return any(name.startswith(".") or name.lower() in LITTER for name in path.split("/"))


def list_everything(output: str) -> dict[str, int]:
    """Size in bytes of each file of a folder, hidden ones too, by its path; {} of none.

    Raises:
        StorageError: the folder cannot be listed.
    """
    if is_local(output):
        root = absolute_uri(output)
        files = walk(root, lambda name: False) if Path(root).is_dir() else ()
        return {as_utf8(path): _size(entry) for path, entry in files}
    filesystem, root = open_store(output)
    selector = pafs.FileSelector(root, recursive=True, allow_not_found=True)
    try:
        found = filesystem.get_file_info(selector)
    except OSError as error:
        raise StorageError(f"{output}: cannot be listed ({first_line(error)}).") from error
    start = len(root.rstrip("/")) + 1
    return {info.path[start:]: info.size for info in found if info.type == pafs.FileType.File}


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return -1  # a worker of a run just killed may still have been writing it


def read_parts(output: str, units: Iterable[str]) -> dict[str, Part | None]:
    """The part of each unit."""
    units = list(units)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        parts = threads.map(lambda unit: read_part(output, unit), units)
        return dict(zip(units, parts, strict=True))


def finished_parts(output: str, keys: Collection[str]) -> dict[str, Part]:
    """Units that an earlier run has finished and that this one needs.

    Args:
        output: Folder or address.
        keys: Of the classes as they are planned now.

    Returns:
        The parts, by unit, whose files are all there in the size in which they were written.
    """
    listing = list_everything(output)
    names = [
        path.removeprefix(_PARTS).removesuffix(".parquet")
        for path in listing
        if path.startswith(_PARTS)
    ]
    needed = [name for name in names if name.partition("-")[0] in keys]
    return {
        unit: part
        for unit, part in read_parts(output, needed).items()
        if part and all(listing.get(path) == size for path, size in part.files.items())
    }


def remove_others(
    output: str, kept: Mapping[str, Part], photos: Collection[str], kind: str
) -> None:
    """Remove what earlier runs have written and this one will not.

    Args:
        output: Folder or address.
        kept: Parts, with their files, that are needed as they are.
        photos: Image ids of the photos that this run copies.
        kind: "jpeg" or "parquet".

    Raises:
        StorageError: a file cannot be removed.
    """
    now, before = frozenset(photos), _read_copied(output)
    copied = now | before
    if copied != before:
        _write_copied(output, copied)
    needed = {SETTINGS, MANIFEST, REJECTS, _COPIED, sheet_path(kind), *map(part_path, kept)}
    needed.update(path for part in kept.values() for path in part.files)
    others = [
        path for path in list_everything(output) if path not in needed and _is_to_go(path, copied)
    ]
    if others:
        remove_file(join(output, MANIFEST))
    _remove(output, [path for path in others if path.startswith(_PARTS)])
    _remove(output, [path for path in others if not path.startswith(_PARTS)])
    if is_local(output):
        _remove_empty_folders(absolute_uri(output))
    if copied != now:
        _write_copied(output, now)


def _is_to_go(path: str, copied: Collection[str]) -> bool:
    is_unfinished = _UNFINISHED.fullmatch(path.rpartition("/")[2]) is not None
    return is_unfinished or path.startswith(f"{AUGMENTED}/") or _is_ours(path, copied)


def _remove(output: str, paths: Iterable[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for _ in threads.map(lambda path: remove_file(join(output, path)), paths):
            pass


def _remove_empty_folders(root: str) -> None:
    """An empty class folder would be taken for a class without photos."""
    for folder, _, _ in os.walk(root, topdown=False):
        if folder != root:
            try:
                Path(folder).rmdir()
            except OSError:  # not empty, in nearly all cases
                continue
