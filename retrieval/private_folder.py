"""A folder of this user's own below the one for temporary files, that no other user can fill."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["private_folder"]


def private_folder(name: str, parent: str | None = None) -> Path | None:
    """A folder that only this user may use, the same one in each process.

    What is read from it may be run: one that another user has made, or may write to, is not taken.

    Args:
        name: What it is for; part of its name.
        parent: Where; by default the folder for temporary files.

    Returns:
        The folder, which is there; None if it cannot be had.
    """
    with suppress(OSError):
        folder = Path(parent or tempfile.gettempdir(), f"{name}-{os.geteuid()}").absolute()
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        is_own = found.st_uid == os.geteuid() and not found.st_mode & 0o077
        if stat.S_ISDIR(found.st_mode) and is_own and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return None
