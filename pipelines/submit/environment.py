"""The runtime environment of a job: a file in YAML or JSON, for everybody to read.

Folders that are sent along are found too large before anything is uploaded.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from retrieval.errors import UsageError
from retrieval.secrets import holds_secret, names_secret, without_secrets

__all__ = ["check_sizes", "read_runtime_env", "shown_runtime_env", "texts"]

_PLAIN = re.compile(r"(?i)-?\d{0,4}(\.\d{1,4})?|true|false")
# As of a container's options; pip's "pyjwt==2" and conda's "pyjwt=2" are none.
_ASSIGNMENT = re.compile(r"(?:-e\s?|--env[= ])?([A-Z][A-Z0-9_]*)=(?!=)")


def read_runtime_env(file: str) -> dict[str, Any]:
    """Read Ray's runtime environment from a file of YAML or JSON.

    Raises:
        UsageError: it cannot be read, has a key that Ray does not know or a value that Ray does
            not take, or a credential, by its name or its looks.
    """
    try:
        content = yaml.safe_load(Path(file).read_text())  # JSON is YAML, too
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise UsageError(f"`runtime_env` {file}: cannot be read: {what}.") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"`runtime_env` {file}: no mapping of keys, such as env_vars, to values.")
    _check_names(file, content)  # first: Ray's errors quote the values
    _check_keys(file, content)
    return content


def _check_keys(file: str, content: dict[str, Any]) -> None:
    from ray.runtime_env import RuntimeEnv

    known = sorted(key for key in RuntimeEnv.known_fields if not key.startswith("_"))
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise UsageError(
            f"`runtime_env` {file}: {', '.join(map(repr, unknown))} unknown. Ray knows "
            f"{', '.join(known)}."
        )
    local = {"working_dir", "py_modules"}  # become addresses only when they are sent
    try:
        RuntimeEnv(**{key: value for key, value in content.items() if key not in local})
    except (TypeError, ValueError) as error:
        raise UsageError(f"`runtime_env` {file}: {' '.join(str(error).split())}") from error


def _check_names(file: str, value: object) -> None:
    """Find what is called as a credential is, at any depth, also as NAME=VALUE."""
    for name in _names(value):
        if names_secret(name):
            raise UsageError(
                f"`runtime_env` {file}: {name} looks like a credential, and everybody who sees "
                "Ray's dashboard would read it. Give the nodes a role, or their own credentials."
            )
    for text in texts(value):
        if holds_secret(text) or without_secrets(text) != text:
            raise UsageError(
                f"`runtime_env` {file}: credentials stand in one of its values, and everybody who "
                "sees Ray's dashboard would read them. Give the nodes a role, or their own "
                "credentials."
            )


def _names(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from _names(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _names(inner)
    elif isinstance(value, str) and (found := _ASSIGNMENT.match(value)):
        yield found[1]


def texts(value: object) -> list[str]:
    """All texts in what YAML or JSON can hold."""
    if isinstance(value, Mapping):
        return [text for item in value.items() for text in texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


def shown_runtime_env(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What is printed of it: of variables the names, and only values that can be no secret."""
    variables = environment.get("env_vars")
    if not isinstance(variables, Mapping):
        return dict(environment)
    shown = {
        name: value if _PLAIN.fullmatch(str(value)) else "***" for name, value in variables.items()
    }
    return {**environment, "env_vars": shown}


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
