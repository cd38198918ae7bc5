"""Numba, before it is used: its settings come from the environment, not from the current folder.

By itself it reads a `.numba_config.yaml` that lies there, also before each compilation. One that
names a folder as its cache has it unpickle what lies in that.

What it compiles is kept beside the code, or in the user's home. Where neither can be written, as
in a container, a folder of the user's own keeps it; where nothing can, it is compiled each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from numba.core import caching, config

from retrieval.private_folder import private_folder

__all__ = ["PrivateFolder"]

config._config_fname = os.devnull
config.reload_config()


class PrivateFolder(caching.UserProvidedCacheLocator):  # type: ignore[misc]
    """Where compiled code is kept if there is no other place; nowhere, if this is none either."""

    def __init__(self, py_func: object, py_file: str) -> None:
        self._py_file = py_file
        self._lineno = py_func.__code__.co_firstlineno  # type: ignore[attr-defined]
        folder = private_folder("retrieval-numba") or Path(os.devnull)
        self._cache_path = str(folder / self.get_suitable_cache_subpath(py_file))

    @classmethod
    def from_function(cls, py_func: object, py_file: str) -> PrivateFolder:
        """A place is always found."""
        return cls(py_func, py_file)


def _has_home() -> bool:
    try:
        return Path.home().is_absolute()
    except RuntimeError:  # neither HOME nor an entry of this user
        return False


@contextmanager
def _without_io_errors(cache: object) -> Iterator[None]:
    """A full disk, or one that may not be written, costs time and no more."""
    with suppress(OSError):
        yield


caching.CacheImpl._locator_classes = [
    found
    for found in caching.CacheImpl._locator_classes
    # Without a home its folder would be one called "~" in the current folder.
    if _has_home() or found is not caching.UserWideCacheLocator
] + [PrivateFolder]
caching.Cache._guard_against_spurious_io_errors = _without_io_errors
