"""A file is given a name that nobody has yet: the compare-and-swap of a local disk.

By a link, as POSIX has it; where a file system has none (exFAT, SMB, many in user space), by a
renaming that replaces nothing; and where it does not know that either, by a new file into which
the content is copied. Of these three only the last can leave part of the content, if the power
or the process is lost meanwhile: whoever reads the file must be able to tell.
"""

from __future__ import annotations

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path

from retrieval.failpoints import reached

__all__ = ["give_new_name", "link_or_copy"]

# What a file system answers that has no hard links, or none more for this file.
_NO_LINKS = {
    errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL,
    errno.EMLINK, errno.EXDEV,
}  # fmt: skip
_HERE, _REPLACING_NOTHING = -100, 1  # AT_FDCWD, RENAME_NOREPLACE of Linux


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
