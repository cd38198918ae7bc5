"""A disk whose file operations are counted, recorded or made to fail, under one folder."""

from __future__ import annotations

import errno
import io
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

NAMES = ["open", "fsync", "link", "replace", "rename", "unlink", "mkdir", "stat", "scandir"]
NAMES += ["listdir"]


def path_of(target, dir_fd=None):
    """The path that an operation is on: given as such, as a descriptor or in an open folder."""
    if isinstance(target, int):
        return str(Path(f"/proc/self/fd/{target}").readlink())
    return os.fspath(target) if dir_fd is None else f"{path_of(dir_fd)}/{os.fspath(target)}"


@contextmanager
def watched(root, before, after=lambda *_: None):
    """Call `before` and `after` around each operation on a path under a folder.

    Both are given the operation's name, its path and, for a link or a new name, the other one.
    """

    def is_watched(path):
        return str(path).startswith(f"{root}/") or str(path) == str(root)

    def wrap(name, real):
        def operate(target, *rest, dir_fd=None, **settings):
            path = path_of(target, dir_fd)
            if not is_watched(path):
                extra = {} if dir_fd is None else {"dir_fd": dir_fd}
                return real(target, *rest, **extra, **settings)
            other = os.fspath(rest[0]) if name in ("link", "replace", "rename") else None
            before(name, path, other)
            extra = {} if dir_fd is None else {"dir_fd": dir_fd}
            result = real(target, *rest, **extra, **settings)
            after(name, path, other)
            return result

        return operate

    def open_stream(file, mode="r", *rest, **settings):
        path = path_of(file)
        if not is_watched(path):
            return real_open(file, mode, *rest, **settings)
        name = "create" if set(mode) & set("wxa") else "read"
        before(name, path, None)
        stream = real_open(file, mode, *rest, **settings)
        after(name, path, None)
        return _Written(stream, lambda: before("write", path, None)) if name == "create" else stream

    real_open = io.open
    wrapped = {name: wrap(name, getattr(os, name)) for name in NAMES}
    with mock.patch.multiple(os, **wrapped), mock.patch.object(io, "open", open_stream):
        yield


class _Written:
    """A stream whose writing is an operation too."""

    def __init__(self, stream, before_write):
        self._stream, self._before_write = stream, before_write

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, data):
        self._before_write()
        return self._stream.write(data)


class Faults:
    """Counts operations; the n-th fails with an I/O error, and all after it if they are to."""

    def __init__(self, fails_at=None, *, stays_broken=False):
        self.num_operations, self._fails_at, self._stays_broken = 0, fails_at, stays_broken

    def __call__(self, name, path, other):
        self.num_operations += 1
        if self._fails_at is None:
            return
        late = self.num_operations - self._fails_at
        if late == 0 or (late > 0 and self._stays_broken):
            raise OSError(errno.EIO, f"{os.strerror(errno.EIO)} at {name}", path)


def copied(base, to):
    """A copy of a folder to work on."""
    if base.exists():
        shutil.copytree(base, to)
    return to
