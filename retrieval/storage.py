"""Local paths and object-store addresses behind one small set of operations.

A location travels between processes as its URI, a plain string: an absolute local path, or
an address such as s3://bucket/key that `pyarrow.fs` understands. Credentials come from the
standard chain of the store (environment, profile, instance role) and never through here.

A file is written whole: on a local disk to a temporary name, synced and renamed; on an
object store by one upload, which is atomic there. So a reader never sees half a file.
"""

from __future__ import annotations

import glob
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from retrieval.errors import StorageError, UsageError

__all__ = [
    "DAMAGED_PARQUET",
    "absolute_uri",
    "as_utf8",
    "check_writable",
    "expand",
    "file_exists",
    "file_stamp",
    "is_local",
    "join",
    "list_files",
    "open_input",
    "open_store",
    "read_bytes",
    "remove_file",
    "remove_folder",
    "unfinished_files",
    "walk",
    "write_bytes",
]

# What pyarrow raises for a Parquet file that is missing, torn, or lacks a column.
DAMAGED_PARQUET = (OSError, pa.ArrowException, UnicodeDecodeError, KeyError)

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")  # as write_bytes names what it renames then
_CHECK_ADDRESS = "Check the address and the credentials of this machine."
_CHECK_FOLDER = "Its files would be taken for deleted; allow reading it, or move it elsewhere."


def is_local(uri: str) -> bool:
    """Whether a URI is a path on this machine (no scheme, or file://)."""
    return "://" not in uri or uri.startswith("file://")


def absolute_uri(uri: str) -> str:
    """The form in which a location is stored and handed to workers.

    Args:
        uri: A local path (relative ones and ~ allowed), a file:// address or
            an object-store address.

    Returns:
        An absolute local path without trailing slash, or the address without one.
    """
    if not uri.strip():
        raise UsageError("An empty path was given; a folder, file or s3:// address is needed.")
    if not is_local(uri):
        if not uri.partition("://")[2].partition("/")[0]:
            raise UsageError(f"{uri}: names no bucket; scheme://bucket/key is needed.")
        return uri.rstrip("/")
    local = uri.removeprefix("file://")
    return str(Path(local).expanduser().absolute())


def join(uri: str, *names: str) -> str:
    """The URI of something inside a folder; names may hold slashes."""
    return "/".join([uri.rstrip("/"), *names])


@lru_cache(maxsize=64)
def _object_store(scheme_and_bucket: str) -> tuple[pafs.FileSystem, str]:
    """One client per bucket and process; making one costs a look-up of credentials.

    S3 takes its settings from the environment at that moment, as deltalake does at each
    call: AWS_ENDPOINT_URL and AWS_REGION, and for deltalake AWS_ALLOW_HTTP=true if the
    endpoint is http://.
    """
    filesystem, root = pafs.FileSystem.from_uri(scheme_and_bucket)
    return filesystem, root.rstrip("/")


def open_store(uri: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow file system of a URI, and the path inside it.

    Raises:
        UsageError: the scheme is unknown to pyarrow.
        StorageError: the store cannot be reached.
    """
    if is_local(uri):
        return pafs.LocalFileSystem(), absolute_uri(uri)
    scheme, _, rest = uri.partition("://")
    bucket, slash, key = rest.partition("/")
    try:
        filesystem, root = _object_store(f"{scheme}://{bucket}")
    except pa.ArrowInvalid as error:
        raise UsageError(
            f"{uri}: no file system for it ({first_line(error)}). Use a local path, s3://, gs:// "
            f"or another address that pyarrow knows."
        ) from error
    except OSError as error:
        raise StorageError(f"{uri}: the store cannot be reached ({first_line(error)}).") from error
    return filesystem, f"{root}{slash}{key}"


def first_line(error: BaseException) -> str:
    """What went wrong, in one line without the path (the caller names that)."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # pyarrow's own text names the path once more
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_bytes(uri: str) -> bytes:
    """The whole content of a file.

    Raises:
        OSError: as the file system raises it (FileNotFoundError, PermissionError, ...), so
            that callers can tell what is missing from what is broken.
    """
    if is_local(uri):
        return Path(absolute_uri(uri)).read_bytes()
    with open_input(uri) as source:
        return bytes(source.read())


def file_stamp(uri: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds; (-1, -1) where nothing is."""
    filesystem, path = open_store(uri)
    found = filesystem.get_file_info(path)
    return (-1, -1) if found.size is None else (found.size, found.mtime_ns or -1)


def open_input(uri: str) -> pa.NativeFile:
    """A file opened for random access; raises OSError as the file system does."""
    filesystem, path = open_store(uri)
    return filesystem.open_input_file(path)


def write_bytes(uri: str, data: bytes | memoryview | pa.Buffer) -> None:
    """Write a file whole or not at all, replacing what was there.

    Raises:
        StorageError: the folder cannot be made or written.
    """
    with _storage_error(uri, "written", "Choose a folder that you may write to and that has room."):
        if is_local(uri):
            _write_local(Path(absolute_uri(uri)), data)
            return
        filesystem, path = open_store(uri)
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)


@contextmanager
def _storage_error(uri: str, done: str, advice: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{uri}: cannot be {done} ({first_line(error)}). {advice}") from error


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
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # without it a power loss can undo the rename
    finally:
        os.close(folder)


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
    for path in missing:  # a job that fails later leaves no empty folder behind
        path.rmdir()


def file_exists(uri: str) -> bool:
    """Whether a file (not a folder) is there; StorageError if the store does not say."""
    filesystem, path = open_store(uri)
    with _storage_error(uri, "looked up", _CHECK_ADDRESS):
        return bool(filesystem.get_file_info(path).type == pafs.FileType.File)


def remove_file(uri: str) -> None:
    """Remove a file, or raise StorageError; a file that is gone already is no error."""
    filesystem, path = open_store(uri)
    with _storage_error(uri, "removed", "Allow removing files there."):
        if filesystem.get_file_info(path).type == pafs.FileType.File:
            filesystem.delete_file(path)


def remove_folder(uri: str) -> None:
    """Remove a folder and all inside it, or raise StorageError; one that is gone is no error."""
    filesystem, path = open_store(uri)
    with _storage_error(uri, "removed", "Allow removing files there."):
        if filesystem.get_file_info(path).type == pafs.FileType.Directory:
            filesystem.delete_dir(path)


def unfinished_files(folder: str) -> list[str]:
    """What a killed process left of `write_bytes` in a local folder; a store keeps nothing."""
    found = Path(absolute_uri(folder)).glob(".*.tmp") if is_local(folder) else ()
    return [join(folder, path.name) for path in found if _UNFINISHED.fullmatch(path.name)]


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
    with _storage_error(folder, "listed", _CHECK_ADDRESS):
        infos = filesystem.get_file_info(selector)
    start = len(path.rstrip("/")) + 1
    inside = [info.path[start:] for info in infos if info.type == pafs.FileType.File]
    return sorted(join(folder, at) for at in inside if not any(map(_is_hidden, at.split("/"))))


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))


def walk(root: str, is_left_out: Callable[[str], bool]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All that lies in a local folder and is no folder: path inside it, and entry.

    Links are followed; a folder that contains itself through a link is entered once. Not by
    pyarrow: that fails on a name that is not UTF-8 and follows such a link forty levels deep.

    Args:
        root: The folder.
        is_left_out: Tells by its name what to pass over.

    Raises:
        StorageError: a folder cannot be listed.
    """
    pending = [(root, "", frozenset({os.path.realpath(root)}))]
    while pending:
        folder, prefix, parents = pending.pop()
        with _storage_error(as_utf8(folder), "listed", _CHECK_FOLDER), os.scandir(folder) as scan:
            entries = [entry for entry in scan if not is_left_out(entry.name)]
        for entry in entries:
            if not _is_folder(entry):
                yield prefix + entry.name, entry
            elif (real := os.path.realpath(entry)) not in parents:
                pending.append((entry.path, f"{prefix}{entry.name}/", parents | {real}))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself


def as_utf8(name: str) -> str:
    """Write bytes of a file's name that are not UTF-8 as %XX, so that it fits a Parquet string."""
    return "".join(
        f"%{ord(letter) - 0xDC00:02X}" if 0xDC80 <= ord(letter) <= 0xDCFF else letter
        for letter in name
    )


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
