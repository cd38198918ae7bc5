"""The one way in which a job removes files.

A job removes only files whose names it has written down itself, below the folder that its command
names, and follows no link: whatever else lies there belongs to somebody else. So there is nothing
here that removes a folder with all inside it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pyarrow.fs as pafs

from retrieval.errors import StorageError
from retrieval.storage.addresses import absolute_uri, is_local, join
from retrieval.storage.clients import open_store
from retrieval.storage.files import storage_error

__all__ = ["is_path_below", "remove_written"]

_ADVICE = "Allow removing files there."
_AT_ONCE = 16  # keys removed side by side: hides the latency of an object store
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
# What rmdir says of a folder that is to stay: it holds something, is gone, or is a link.
_STAYS = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR}


def remove_written(folder: str, names: Iterable[str], *, folders: Iterable[str] = ()) -> None:
    """Remove files that the calling job has written below a folder.

    Every name is looked at before the first file goes. On a local disk each folder on the way is
    opened by its own name in the one above, without following a link, and what is removed is
    a name in the folder that was opened: nobody who moves folders or makes links meanwhile can
    lead it elsewhere.

    Args:
        folder: Folder or address that the command names; it may itself be a link. One that is
            missing holds no file.
        names: Paths of files relative to it, with "/" between the parts. One that is missing is no
            error.
        folders: Paths of folders likewise. Those that are empty then are removed, the deepest
            first; others stay, with all that they hold. An object store has no folders.

    Raises:
        StorageError: a name leads out of the folder (absolute, "..", ".", an empty part, a zero
            byte); a link lies at its end or on its way, or a folder, or what is no plain file:
            none of these was written by a job. Nothing has been removed then. Or a file cannot be
            removed.

    Cost: two system calls a file, and two a folder; on an object store two requests a file, 16
        files at once.
    """
    files = [_parts(folder, name) for name in names]
    empty = [_parts(folder, name) for name in folders]
    if not is_local(folder):
        _remove_keys(folder, files)
        return
    _remove_files(folder, files)
    _remove_folders(folder, empty)


def _remove_files(folder: str, files: Iterable[list[str]]) -> None:
    in_folder: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for *parents, name in files:
        in_folder[tuple(parents)].append(name)
    for remove in (_check, _unlink):
        for path, names in in_folder.items():
            with _opened(folder, path) as descriptor:
                if descriptor is None:
                    continue
                for name in names:
                    remove(descriptor, name, join(folder, *path, name))


def _remove_folders(folder: str, empty: Iterable[list[str]]) -> None:
    for *parents, name in sorted(empty, key=len, reverse=True):
        with _opened(folder, tuple(parents)) as descriptor:
            if descriptor is not None:
                _remove_empty(descriptor, name, join(folder, *parents, name))


def is_path_below(name: str) -> bool:
    """Whether a name is a relative path that leads nowhere but down, as "a/b.jpg"."""
    return "\0" not in name and not {"", ".", ".."} & set(name.split("/"))


def _parts(folder: str, name: str) -> list[str]:
    if not is_path_below(name):
        raise StorageError(
            f"{folder}: {name!r} is no path of a file below it, so nothing is removed. A file that "
            f"lists names of files has been changed or damaged."
        )
    return name.split("/")


@contextmanager
def _opened(folder: str, path: tuple[str, ...]) -> Iterator[int | None]:
    """A folder below another, opened without following a link; None where there is none."""
    try:
        descriptor = os.open(absolute_uri(folder), _FOLDER)
    except OSError as error:
        below_a_file = error.errno == errno.ENOTDIR and not os.path.lexists(absolute_uri(folder))
        if error.errno != errno.ENOENT and not below_a_file:
            with storage_error(folder, "opened", _ADVICE):
                raise
        yield None
        return
    try:
        for number, name in enumerate(path, 1):
            try:
                inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            except FileNotFoundError:
                yield None
                return
            except OSError as error:
                where = join(folder, *path[:number])
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise _strange(where, "a link or no folder") from error
                with storage_error(where, "opened", _ADVICE):
                    raise
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _check(descriptor: int, name: str, uri: str) -> None:
    with storage_error(uri, "looked up", _ADVICE), suppress(FileNotFoundError):
        mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
        if not stat.S_ISREG(mode):
            raise _strange(uri, "a link" if stat.S_ISLNK(mode) else "no plain file")


def _unlink(descriptor: int, name: str, uri: str) -> None:
    # A link that has come since is removed itself: what it leads to stays.
    with storage_error(uri, "removed", _ADVICE), suppress(FileNotFoundError):
        os.unlink(name, dir_fd=descriptor)


def _remove_empty(descriptor: int, name: str, uri: str) -> None:
    with storage_error(uri, "removed", _ADVICE):
        try:
            os.rmdir(name, dir_fd=descriptor)
        except OSError as error:
            if error.errno not in _STAYS:
                raise


def _strange(uri: str, what: str) -> StorageError:
    return StorageError(
        f"{uri}: is {what}, which no job has written, so nothing is removed. Move it elsewhere."
    )


def _remove_keys(folder: str, files: Iterable[list[str]]) -> None:
    def remove(parts: list[str]) -> None:
        uri = join(folder, *parts)
        filesystem, path = open_store(uri)
        # Somebody else may remove it between the two requests.
        with storage_error(uri, "removed", _ADVICE), suppress(FileNotFoundError):
            if filesystem.get_file_info(path).type == pafs.FileType.File:
                filesystem.delete_file(path)

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for _ in threads.map(remove, files):
            pass
