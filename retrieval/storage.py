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
import uuid
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from retrieval.errors import StorageError, UsageError

__all__ = [
    "absolute_uri",
    "check_writable",
    "expand",
    "file_exists",
    "is_local",
    "join",
    "list_files",
    "open_input",
    "open_store",
    "read_bytes",
    "remove_file",
    "write_bytes",
]


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
        return uri.rstrip("/")
    local = uri.removeprefix("file://")
    return str(Path(local).expanduser().absolute())


def join(uri: str, *names: str) -> str:
    """The URI of something inside a folder; names may hold slashes."""
    return "/".join([uri.rstrip("/"), *names])


@lru_cache(maxsize=64)
def _object_store(scheme_and_bucket: str) -> pafs.FileSystem:
    """One client per bucket and process; making one costs a look-up of credentials."""
    return pafs.FileSystem.from_uri(scheme_and_bucket)[0]


def open_store(uri: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow file system of a URI, and the path inside it.

    Raises:
        UsageError: the scheme is unknown to pyarrow.
        StorageError: the store cannot be reached.
    """
    if is_local(uri):
        return pafs.LocalFileSystem(), absolute_uri(uri)
    scheme, _, rest = uri.partition("://")
    try:
        filesystem = _object_store(f"{scheme}://{rest.split('/', 1)[0]}")
    except pa.ArrowInvalid as error:
        raise UsageError(
            f"{uri}: no file system for {scheme}://. Use a local path, s3://, gs:// or another "
            f"address that pyarrow knows."
        ) from error
    except OSError as error:
        raise StorageError(f"{uri}: the store cannot be reached ({first_line(error)}).") from error
    return filesystem, rest


def first_line(error: BaseException) -> str:
    """What went wrong, in one line without the path (the caller names that)."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
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


def open_input(uri: str) -> pa.NativeFile:
    """A file opened for random access; raises OSError as the file system does."""
    filesystem, path = open_store(uri)
    return filesystem.open_input_file(path)


def write_bytes(uri: str, data: bytes | memoryview | pa.Buffer) -> None:
    """Write a file whole or not at all, replacing what was there.

    Raises:
        StorageError: the folder cannot be made or written.
    """
    try:
        if is_local(uri):
            _write_local(Path(absolute_uri(uri)), data)
            return
        filesystem, path = open_store(uri)
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)
    except OSError as error:
        raise StorageError(
            f"{uri}: cannot be written ({first_line(error)}). "
            f"Choose a folder that you may write to and that has room."
        ) from error


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
    probe = join(folder, f".writable-{uuid.uuid4().hex}")
    write_bytes(probe, b"")
    remove_file(probe)


def file_exists(uri: str) -> bool:
    """Whether a file (not a folder) is there."""
    filesystem, path = open_store(uri)
    return bool(filesystem.get_file_info(path).type == pafs.FileType.File)


def remove_file(uri: str) -> None:
    """Remove a file; a file that is gone already is no error."""
    filesystem, path = open_store(uri)
    if filesystem.get_file_info(path).type == pafs.FileType.File:
        filesystem.delete_file(path)


def list_files(folder: str) -> list[str]:
    """URIs of the files directly and deeper inside a folder, sorted; hidden ones left out.

    Hidden is what pyarrow, Spark and DuckDB skip too: a name that begins with "." or "_".
    """
    filesystem, path = open_store(folder)
    selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
    found = []
    for info in filesystem.get_file_info(selector):
        inside = info.path[len(path.rstrip("/")) + 1 :]
        hidden = any(part[0] in "._" for part in inside.split("/") if part)
        if info.type == pafs.FileType.File and not hidden:
            found.append(join(folder, inside))
    return sorted(found)


def expand(pattern: str) -> list[str]:
    """URIs that a file, a folder or a local glob stands for, sorted.

    Raises:
        StorageError: nothing is there.
    """
    if is_local(pattern) and glob.has_magic(pattern) and not Path(absolute_uri(pattern)).exists():
        # Not Path.glob, which wants a relative pattern.
        matches = glob.glob(absolute_uri(pattern), recursive=True)  # noqa: PTH207
        found = sorted(match for match in matches if Path(match).is_file())
    else:
        uri = absolute_uri(pattern)
        found = [uri] if file_exists(uri) else list_files(uri)
    if not found:
        raise StorageError(f"{pattern}: no file found there. Name a folder, a file or a glob.")
    return found
