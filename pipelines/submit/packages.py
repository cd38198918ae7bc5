"""The folders that are sent along with a job: found too large before anything is uploaded."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from retrieval.errors import UsageError

__all__ = ["check_sizes"]

_NUM_NAMED = 3
_MIB = 2**20
_PER_FILE = (
    200  # bytes that a zip file, as Ray makes it, spends on one, with a name of usual length
)


def check_sizes(environment: Mapping[str, Any]) -> None:
    """Refuse folders that Ray would pack, send and refuse after minutes; walks them, reads none.

    Raises:
        UsageError: one is larger than Ray takes, or is not there.
    """
    from ray._private.runtime_env.packaging import GCS_STORAGE_MAX_SIZE

    excludes = environment.get("excludes") or []
    for option, place in _local(environment):
        sizes = _sizes(option, place, excludes)
        total = sum(sizes.values())
        if total < GCS_STORAGE_MAX_SIZE:
            continue
        largest = ", ".join(
            f"{name} ({size / _MIB:,.0f} MiB)" for name, size in sizes.most_common(_NUM_NAMED)
        )
        raise UsageError(
            f"{option} {place}: {total / _MIB:,.0f} MiB, and Ray takes less than "
            f"{GCS_STORAGE_MAX_SIZE / _MIB:,.0f} MiB. The largest in it: {largest}. Leave out what "
            "the job does not need: name it in .gitignore or .rayignore there, or in excludes of "
            "`runtime_env`."
        )


def _local(environment: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    modules = environment.get("py_modules")
    found = [("working_dir", environment.get("working_dir"))]
    found += [("py_modules", module) for module in (modules if isinstance(modules, list) else [])]
    for option, place in found:
        if isinstance(place, str) and "://" not in place:
            yield option, Path(place).absolute()


def _sizes(option: str, place: Path, excludes: list[str]) -> Counter[str]:
    """Bytes of what Ray would pack, by the first and second folder inside."""
    from ray._private.ray_constants import (
        RAY_RUNTIME_ENV_IGNORE_GITIGNORE,
        get_runtime_env_default_excludes,
    )
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    sizes: Counter[str] = Counter()

    def add(path: Path) -> None:
        if path.is_file():
            inside = path.relative_to(place).parts
            name = "/".join(inside[: min(2, len(inside) - 1)] or inside) or path.name
            sizes[name] += path.stat().st_size + _PER_FILE

    usual = get_runtime_env_default_excludes() if option == "working_dir" else []
    ignored = [*usual, *excludes]
    try:
        _dir_travel(
            place,
            [_get_excludes(place, ignored)],
            add,
            include_gitignore=os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1",
        )
    except OSError as error:
        raise UsageError(f"{option} {place}: cannot be sent: {error.strerror or error}.") from error
    return sizes
