"""Where, and with what, something was made: for the records that people read afterwards."""

from __future__ import annotations

import json
import os
import platform
import socket
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

__all__ = ["provenance"]

_PACKAGES: Final = ("retrieval-cli", "ray", "torch", "pyarrow", "deltalake")
_JOB_CONFIG: Final = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray's job server for what it runs


def provenance() -> dict[str, Any]:
    """The machine, the versions, and the Ray job if this is one; nothing else of the environment.

    Returns:
        `host`; `python`; `versions`, None for what is not installed; `submission_id`, None if
        this process was not submitted as a job.
    """
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "submission_id": _submission_id(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _submission_id() -> str | None:
    try:
        found = json.loads(os.environ.get(_JOB_CONFIG, ""))["metadata"]["job_submission_id"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None
