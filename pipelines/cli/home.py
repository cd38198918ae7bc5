"""A home for a process that has none, as a container's with a user who is in no list."""

from __future__ import annotations

import os
from pathlib import Path

from retrieval.private_folder import private_folder

__all__ = ["ensure_home"]


def ensure_home() -> None:
    """Where there is no home, take a folder of this user's own for one, in Ray's workers too.

    Ray Train, Torch, Matplotlib and others look for theirs in it; some fail without, and some
    make a folder called "~" in the current one. A home that is there stays, though it may not be
    written: it can hold tokens and weights.
    """
    try:
        has_home = os.environ.get("HOME") != "" and Path.home().is_dir()
    except (RuntimeError, OSError):  # this user has no entry, or it may not be looked at
        has_home = False
    if not has_home and (folder := private_folder("retrieval-home")):
        os.environ["HOME"] = str(folder)
    if "USER" not in os.environ and not _has_name():
        os.environ["USER"] = f"user{os.geteuid()}"  # Torch names its caches by it


def _has_name() -> bool:
    import pwd

    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return True
