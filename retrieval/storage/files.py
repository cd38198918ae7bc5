"""Files read whole or by ranges, looked up and removed, on a local disk and on an object store."""

from __future__ import annotations

import errno
import io
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from retrieval.errors import StorageError
from retrieval.storage.addresses import absolute_uri, is_local
from retrieval.storage.clients import check_store_answers, first_line, open_store, pauses_s

__all__ = [
    "CHECK_ADDRESS",
    "DAMAGED_PARQUET",
    "FileTooLargeError",
    "file_exists",
    "file_stamp",
    "open_input",
    "read_bounded",
    "read_buffer",
    "read_bytes",
    "remove_file",
    "storage_error",
]

# What pyarrow raises for a Parquet file that is missing, torn, or lacks a column.
DAMAGED_PARQUET = (OSError, pa.ArrowException, UnicodeDecodeError, KeyError)
_SMALL_BYTES = 2**20
CHECK_ADDRESS = "Check the address and the credentials of this machine."


def read_bytes(uri: str) -> bytes:
    """The whole content of a file.

    Raises:
        OSError: as the file system raises it (FileNotFoundError, PermissionError, ...), so
            that callers can tell what is missing from what is broken.
    """
    if is_local(uri):
        with _open_plain(uri) as file:
            return file.readall()
    with open_input(uri) as source:
        return source.read()


class FileTooLargeError(ValueError):
    """A file that is larger than whoever reads it takes."""


def read_bounded(uri: str, max_bytes: int) -> bytes:
    """`read_bytes` of a file whose address others have chosen, of at most `max_bytes`.

    Never waits for whoever writes into a pipe, and reads no more than the bound of a file that
    grows, or that tells no size, as those of /proc; of one that tells a larger size, nothing.

    Raises:
        OSError: as `read_bytes`.
        FileTooLargeError: it is larger.
        StorageError, ValueError, ArrowException: the address is none, or none that can be read.
    """
    check_store_answers(uri)
    if not is_local(uri):
        with open_input(uri) as source:
            _check_size(source.size(), max_bytes)
            return source.read(source.size())
    with _open_plain(uri) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        _check_size(size_bytes, max_bytes)
        parts = [os.read(file.fileno(), size_bytes + 1)]
        num_read = len(parts[0])
        while part := os.read(file.fileno(), _SMALL_BYTES):
            parts.append(part)
            num_read += len(part)
            _check_size(num_read, max_bytes)
        _check_size(num_read, max_bytes)
        return b"".join(parts)


def _check_size(size_bytes: int, max_bytes: int) -> None:
    if size_bytes > max_bytes:
        raise FileTooLargeError(f"more than {max_bytes} bytes")


def _open_plain(uri: str) -> io.FileIO:
    """A local file; OSError for what is none, such as a pipe or a device."""
    path = absolute_uri(uri)
    _check_plain(os.stat(path))  # noqa: PTH116 - before it is opened: that winds back a tape
    # Without waiting for whoever holds the other end of a pipe.
    file = io.FileIO(path, opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK))
    try:
        _check_plain(os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


def _stat(path: str) -> os.stat_result | None:
    """What the file system says of a file; None where it does not, which opening it tells."""
    try:
        return Path(path).stat()
    except OSError:
        return None


def _check_plain(found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no plain file, but a pipe, a socket or a device")


def read_buffer(uri: str) -> pa.Buffer:
    """`read_bytes` for Arrow to read from: in memory of Arrow's own, which costs a copy.

    Its threads let go of what they read a little after the result is there, and one that lets go
    of bytes of Python while Python exits aborts the process: "terminate called without an active
    exception".
    """
    data = read_bytes(uri)
    buffer = pa.allocate_buffer(len(data))
    memoryview(buffer).cast("B")[:] = data
    return buffer


@contextmanager
def storage_error(uri: str, done: str, advice: str) -> Iterator[None]:
    """Turn what a file system raises into one line that names the file and what to do."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{uri}: cannot be {done} ({first_line(error)}). {advice}") from error


def file_stamp(uri: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds; (-1, -1) where nothing is.

    Raises:
        StorageError: the store does not say.
    """
    filesystem, path = open_store(uri)
    with storage_error(uri, "looked up", CHECK_ADDRESS):
        found = filesystem.get_file_info(path)
    return (-1, -1) if found.size is None else (found.size, found.mtime_ns or -1)


def open_input(uri: str) -> pa.NativeFile:
    """A file opened for random access; raises OSError as the file system does.

    Of an object store what is read is fetched by ranges; a file of up to 1 MiB at once, into
    memory of Arrow's own: see `read_buffer`.
    """
    filesystem, path = open_store(uri)
    found = _stat(path) if is_local(uri) else None
    if found:
        _check_plain(found)
    source = filesystem.open_input_file(path)
    if is_local(uri) or source.size() > _SMALL_BYTES:
        return source
    with source:
        return pa.BufferReader(_fetch_small(source))


def _fetch_small(source: pa.NativeFile) -> pa.Buffer:
    """A small file of a store, by as many tries as its client makes for larger ones.

    Where the text of an error is longer than what was asked for, as may be with a few hundred
    bytes, the client of AWS finds no room for it and fails instead of trying again.
    """
    for pause_s in pauses_s():
        try:
            return source.read_buffer(source.size())
        except OSError as error:
            if "flush response stream" not in str(error):
                raise
            time.sleep(pause_s)
    return source.read_buffer(source.size())


def file_exists(uri: str) -> bool:
    """Whether a file (not a folder) is there; StorageError if the store does not say."""
    filesystem, path = open_store(uri)
    with storage_error(uri, "looked up", CHECK_ADDRESS):
        return bool(filesystem.get_file_info(path).type == pafs.FileType.File)


def remove_file(uri: str) -> None:
    """Remove a file, or raise StorageError; a file that is gone already is no error."""
    filesystem, path = open_store(uri)
    with storage_error(uri, "removed", "Allow removing files there."):
        if filesystem.get_file_info(path).type == pafs.FileType.File:
            filesystem.delete_file(path)
