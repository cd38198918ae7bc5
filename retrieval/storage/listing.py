"""What lies in a folder: listings, globs, where links lead, and what a job has not written.

Litter is what systems put beside people's files: thumbnails, waste bins, snapshots. It is never an
image.
"""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow.fs as pafs

from retrieval.errors import StorageError
from retrieval.storage.addresses import absolute_uri, as_utf8, is_local, is_utf8, join
from retrieval.storage.clients import open_store
from retrieval.storage.files import CHECK_ADDRESS, file_exists, storage_error

__all__ = [
    "LITTER",
    "Entry",
    "entries",
    "entry_at",
    "expand",
    "first_stranger",
    "is_litter",
    "leads_out",
    "list_files",
    "walk",
]

_CHECK_FOLDER = "Its files would be taken for deleted; allow reading it, or move it elsewhere."

# Files or folders, in small letters: names are compared without regard to case. Closed, and told in
# docs/formats.md; a name with a dot before it is hidden already (.DS_Store, .Trash-1000).
LITTER: Final = frozenset(
    {
        # Windows
        "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",
        # Linux, at the top of a disk: of root alone, and what a repair has found
        "lost+found",
        # macOS: in archives, on network drives, and a folder's picture
        "__macosx", "network trash folder", "temporary items", "icon\r",
        # Synology, QNAP and NetApp
        "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb",
        "~snapshot",
    }
)  # fmt: skip


def list_files(folder: str) -> list[str]:
    """URIs of the files directly and deeper inside a folder, sorted; hidden ones left out.

    Hidden is what pyarrow, Spark and DuckDB skip too, a name that begins with "." or "_", and
    litter.

    Raises:
        StorageError: a folder cannot be listed. One that is missing holds no file.
    """
    if is_local(folder):
        root = absolute_uri(folder)
        if not Path(root).is_dir():
            return []
        entries = walk(root, _is_hidden)
        return sorted(join(folder, path) for path, at in entries if Path(at).is_file())
    filesystem, path = open_store(folder)
    selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
    with storage_error(folder, "listed", CHECK_ADDRESS):
        infos = filesystem.get_file_info(selector)
    start = len(path.rstrip("/")) + 1
    inside = [info.path[start:] for info in infos if info.type == pafs.FileType.File]
    return sorted(join(folder, at) for at in inside if not any(map(_is_hidden, at.split("/"))))


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_")) or is_litter(name)


def walk(
    root: str, is_left_out: Callable[[str], bool], *, stays_inside: bool = False
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All that lies in a local folder and is no folder: path inside it, in UTF-8, and entry.

    Bytes of a name that are not UTF-8 are written as %XX; where another name is that text, its
    percent signs as %25. So each has a path of its own.

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
        for name, entry in _named(entries):
            if not _is_folder(entry) or (stays_inside and leads_out(entry, real_root)):
                yield prefix + name, entry
            elif (real := os.path.realpath(entry)) not in parents:
                pending.append((entry.path, f"{prefix}{name}/", parents | {real}))


def _named(entries: list[os.DirEntry[str]]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The entries of one folder with names in UTF-8, none of them twice."""
    others = [entry for entry in entries if not is_utf8(entry.name)]
    yield from ((entry.name, entry) for entry in entries if not others or is_utf8(entry.name))
    taken = {entry.name for entry in entries} if others else set()
    for entry in sorted(others, key=lambda entry: entry.name):
        name = as_utf8(entry.name)
        while name in taken:
            name = name.replace("%", "%25")
        taken.add(name)
        yield name, entry


@dataclass(frozen=True)
class Entry:
    """What lies below a folder.

    Attributes:
        path: Relative to the folder, with "/" between its parts; "" of the folder itself.
        kind: "file", "folder", "link" (to whatever it may lead) or "other" (a pipe, a device).
        size_bytes: Of a file; 0 of all else.
    """

    path: str
    kind: str
    size_bytes: int = 0


def entries(folder: str) -> Iterator[Entry]:
    """All that lies below a folder, hidden or not, no link followed; nothing of a missing one.

    Folders of LITTER are passed over with all that they hold: no job has written them, and
    "lost+found" cannot be listed.
    The folder itself may be a link. A folder comes before what lies in it; names of one folder
    come in their order. Bytes of a name that are not UTF-8 are written as %XX.

    Raises:
        StorageError: a folder cannot be listed.

    Cost: two system calls a file, or a request per 1,000 keys.
    """
    if not is_local(folder):
        yield from _store_entries(folder)
        return
    pending = [""] if Path(absolute_uri(folder)).is_dir() else []
    while pending:
        prefix = pending.pop()
        where = join(absolute_uri(folder), prefix)
        with (
            storage_error(as_utf8(where), "listed", "Allow reading it."),
            os.scandir(where) as scan,
        ):
            found = [entry for entry in scan if not (is_litter(entry.name) and _is_folder(entry))]
            found.sort(key=lambda entry: entry.name)
        for entry in found:
            kind = _kind(entry)
            yield Entry(as_utf8(prefix + entry.name), kind, _size(entry) if kind == "file" else 0)
        inside = [f"{prefix}{entry.name}/" for entry in found if _kind(entry) == "folder"]
        pending += reversed(inside)


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "other"


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return -1  # a worker of a run just killed may still have been writing it


def _store_entries(folder: str) -> Iterator[Entry]:
    filesystem, path = open_store(folder)
    selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
    with storage_error(folder, "listed", CHECK_ADDRESS):
        infos = filesystem.get_file_info(selector)
    start = len(path.rstrip("/")) + 1
    for info in sorted(infos, key=lambda info: info.path):
        is_file = info.type == pafs.FileType.File
        if is_litter(info.path[start:].rpartition("/")[0] if is_file else info.path[start:]):
            continue
        yield Entry(info.path[start:], "file" if is_file else "folder", info.size or 0)


def entry_at(uri: str) -> Entry | None:
    """What lies at one place, a link not followed; None where nothing is.

    Raises:
        StorageError: the store or the file system does not say.
    """
    with storage_error(uri, "looked up", CHECK_ADDRESS):
        if not is_local(uri):
            filesystem, path = open_store(uri)
            kinds = {pafs.FileType.File: "file", pafs.FileType.Directory: "folder"}
            info = filesystem.get_file_info(path)
            kind = kinds.get(info.type)
            return Entry("", kind, info.size or 0) if kind else None
        try:
            status = Path(absolute_uri(uri)).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
    tests = {"link": stat.S_ISLNK, "folder": stat.S_ISDIR, "file": stat.S_ISREG}
    kind = next((kind for kind, test in tests.items() if test(status.st_mode)), "other")
    return Entry("", kind, status.st_size if kind == "file" else 0)


def first_stranger(folder: str, is_ours: Callable[[Entry], bool]) -> str | None:
    """The path of something below a folder that a job has not written; None if all is its own.

    Args:
        folder: Folder or address.
        is_ours: Tells it of a file or a folder. Links, pipes and devices no job has written.
    """
    for entry in entries(folder):
        if entry.kind not in ("file", "folder") or not is_ours(entry):
            return entry.path
    return None


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


def is_litter(path: str) -> bool:
    """Whether a file or folder is litter or lies in some, by the names of its path.

    Example:
        >>> is_litter("a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg"), is_litter("a/Thumbs.db.jpg")
        (True, False)
    """
    return any(name in LITTER or name == ".ds_store" for name in path.lower().split("/"))
