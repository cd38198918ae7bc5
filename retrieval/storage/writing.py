"""Files written whole or not at all, on a local disk and on an object store.

A file can also be given a name that nobody has yet: the compare-and-swap of a local disk. By a
link, as POSIX has it; where a file system has none (exFAT, SMB, many in user space), by a renaming
that replaces nothing; and where it does not know that either, by a new file into which the content
is copied. Of these three only the last can leave part of the content, if the power or the process
is lost meanwhile: whoever reads the file must be able to tell.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from retrieval.errors import StorageError
from retrieval.failpoints import reached
from retrieval.storage.addresses import absolute_uri, is_local, join
from retrieval.storage.clients import open_store
from retrieval.storage.files import remove_file, storage_error

__all__ = [
    "check_writable",
    "give_new_name",
    "link_or_copy",
    "sync_folder",
    "unfinished_files",
    "write_bytes",
    "written_as",
]

# What a file system answers that cannot sync a folder.
_CANNOT_SYNC = {
    errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES,
    errno.EPERM, errno.EISDIR,
}  # fmt: skip

# As write_bytes names what it renames then.
_UNFINISHED = re.compile(r"\.(.+)\.[0-9a-f]{32}\.tmp", re.DOTALL)

# What a file system answers that has no hard links, or none more for this file.
_NO_LINKS = {
    errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL,
    errno.EMLINK, errno.EXDEV,
}  # fmt: skip
_HERE, _REPLACING_NOTHING = -100, 1  # AT_FDCWD, RENAME_NOREPLACE of Linux


def write_bytes(uri: str, data: bytes | memoryview | pa.Buffer) -> None:
    """Write a file whole or not at all, replacing what was there.

    Raises:
        StorageError: the folder cannot be made or written.
    """
    with storage_error(uri, "written", "Choose a folder that you may write to and that has room."):
        if is_local(uri):
            _write_local(Path(absolute_uri(uri)), data)
            return
        filesystem, path = open_store(uri)
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)


def _write_local(path: Path, data: bytes | memoryview | pa.Buffer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)  # without it a power loss can undo the rename


def sync_folder(folder: Path) -> None:
    """Make the names in a local folder last; raises OSError, as of a broken disk.

    Some file systems, of other systems' or of a network, cannot do so, or a folder may be written
    and not be read: that is passed over, for there is nothing to do about it.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def check_writable(folder: str) -> None:
    """Fail now rather than after hours of work if a folder cannot be written.

    Raises:
        StorageError: it cannot be made, or a file cannot be written in it.
    """
    probe = join(absolute_uri(folder), f".writable-{uuid.uuid4().hex}")
    missing = [path for path in Path(probe).parents if is_local(folder) and not path.exists()]
    try:
        write_bytes(probe, b"")
        remove_file(probe)
    except StorageError as error:
        raise StorageError(str(error).replace(probe, folder)) from error
    finally:
        if is_local(folder):
            with suppress(OSError):  # what is told is why it could not be written
                Path(probe).unlink(missing_ok=True)
            for path in missing:  # a job that fails, now or later, leaves no empty folder behind
                with suppress(OSError):
                    path.rmdir()


def unfinished_files(folder: str) -> list[str]:
    """What a killed process left of `write_bytes` in a local folder; a store keeps nothing."""
    found = Path(absolute_uri(folder)).glob(".*.tmp") if is_local(folder) else ()
    return [join(folder, path.name) for path in found if _UNFINISHED.fullmatch(path.name)]


def written_as(path: str) -> str:
    """The path that a file has got, or would have got from `write_bytes` if that was killed."""
    folder, slash, name = path.rpartition("/")
    found = _UNFINISHED.fullmatch(name)
    return f"{folder}{slash}{found[1]}" if found else path


def give_new_name(temporary: Path, name: Path) -> None:
    """Have a file, whose content is synced, under a new name in the same folder.

    Args:
        temporary: The file; may be gone afterwards, or still be there.
        name: Its new name, which one caller alone can get.

    Raises:
        FileExistsError: somebody has the name.
        OSError: as the file system raises it.
    """
    try:
        os.link(temporary, name)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not _renamed(temporary, name):
            _copy_to_new(temporary.read_bytes(), name)


def link_or_copy(path: Path, to: Path) -> None:
    """The same content under another name; a link where there are any."""
    try:
        os.link(path, to)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        to.write_bytes(path.read_bytes())


def _renamed(temporary: Path, name: Path) -> bool:
    """Whether the file system can rename without replacing; if so, it has."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    old, new = os.fsencode(temporary), os.fsencode(name)
    if rename(_HERE, old, _HERE, new, _REPLACING_NOTHING) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_LINKS:
        return False
    raise OSError(number, os.strerror(number), str(name))


def _copy_to_new(content: bytes, name: Path) -> None:
    with name.open("xb") as stream:
        reached("entry begun")
        try:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        except OSError:
            # Unless it was set aside meanwhile, and another file has the name.
            with suppress(OSError):
                if os.path.samestat(os.fstat(stream.fileno()), name.stat()):
                    name.unlink()
            raise
    if name.read_bytes() != content:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(name))
