"""The runtime environment of a job: a file in YAML or JSON, for everybody to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from retrieval.errors import UsageError
from retrieval.secrets import names_secret

__all__ = ["read_runtime_env"]


def read_runtime_env(file: str) -> dict[str, Any]:
    """Read Ray's runtime environment from a file of YAML or JSON.

    Raises:
        UsageError: it cannot be read, has a key that Ray does not know or a value that Ray does
            not take, or a variable that looks like a credential.
    """
    try:
        content = yaml.safe_load(Path(file).read_text())  # JSON is YAML, too
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        what = " ".join(str(error).split())
        raise UsageError(f"--runtime-env {file}: cannot be read: {what}.") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UsageError(f"--runtime-env {file}: no mapping of keys, such as env_vars, to values.")
    _check_variables(file, content.get("env_vars"))  # first: Ray's errors quote the values
    _check_keys(file, content)
    return content


def _check_keys(file: str, content: dict[str, Any]) -> None:
    from ray.runtime_env import RuntimeEnv

    known = sorted(key for key in RuntimeEnv.known_fields if not key.startswith("_"))
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise UsageError(
            f"--runtime-env {file}: {', '.join(map(repr, unknown))} unknown. Ray knows "
            f"{', '.join(known)}."
        )
    local = {"working_dir", "py_modules"}  # become addresses only when they are sent
    try:
        RuntimeEnv(**{key: value for key, value in content.items() if key not in local})
    except (TypeError, ValueError) as error:
        raise UsageError(f"--runtime-env {file}: {' '.join(str(error).split())}") from error


def _check_variables(file: str, variables: object) -> None:
    for name in variables if isinstance(variables, dict) else ():
        if names_secret(str(name)):
            raise UsageError(
                f"--runtime-env {file}: {name} looks like a credential, and everybody who sees "
                "Ray's dashboard would read it. Give the nodes a role, or their own credentials."
            )
