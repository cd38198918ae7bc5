"""What is to run: a command line, its environment, and the id that keeps it from running twice."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from retrieval.errors import UsageError
from retrieval.secrets import holds_secret

__all__ = ["Request", "make_request"]


@dataclass(frozen=True)
class Request:
    """A job to be placed.

    Attributes:
        submission_id: The same id never runs twice.
        entrypoint: A shell's command line.
        runtime_env: Ray's runtime environment; `working_dir` may be a folder of this machine.
        node: Labels of Ray that the node of the entry point must carry. Default: the head runs it.
    """

    submission_id: str
    entrypoint: str
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    node: Mapping[str, str] = field(default_factory=dict)


def make_request(
    command: Sequence[str],
    *,
    python: str = "python3",
    working_dir: str | None = None,
    runtime_env: Mapping[str, Any] | None = None,
    submission_id: str | None = None,
    node: Mapping[str, str] | None = None,
) -> Request:
    """Turn a verb and its arguments into a job.

    Args:
        command: The verb and its arguments.
        python: The cluster's interpreter; its package runs where no source tree is shipped.
        working_dir: A source tree that is shipped with the job, and runs there.
        runtime_env: As `read_runtime_env` gives it.
        submission_id: Default: the verb, the time (UTC) and eight random digits.
        node: Labels of the node for the entry point.

    Raises:
        UsageError: an argument cannot be shown to everybody, or the folder is no source tree.
    """
    environment = dict(runtime_env or {})
    if working_dir is not None:
        if "working_dir" in environment:
            raise UsageError("--working-dir, and working_dir in --runtime-env: give one of them.")
        if not (Path(working_dir) / "pipelines" / "cli" / "__main__.py").is_file():
            raise UsageError(
                f"--working-dir {working_dir}: pipelines/cli is not there. Name a checkout of "
                "retrieval-cli, or leave it out to run the package installed on the cluster."
            )
        environment["working_dir"] = working_dir
    _check_public(command, environment)
    when = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    return Request(
        submission_id=submission_id or f"{command[0]}-{when}-{secrets.token_hex(4)}",
        entrypoint=shlex.join([python, "-m", "pipelines.cli", *command]),
        runtime_env=environment,
        node=dict(node or {}),
    )


def _check_public(command: Sequence[str], environment: Mapping[str, Any]) -> None:
    """Whoever sees the dashboard reads the command and its environment."""
    for text in [*command, *_texts(environment)]:
        if holds_secret(text):
            shown = text.partition("://")[0] + "://..."
            raise UsageError(
                f"{shown}: an address with a password or a signature in it, which everybody who "
                "sees Ray's dashboard would read. Give the nodes a role, and a plain address here."
            )
    for text in command:
        if not text.isprintable():
            raise UsageError(f"{text!r}: a submitted command cannot have control characters.")


def _texts(value: object) -> list[str]:
    """All texts in what YAML or JSON can hold."""
    if isinstance(value, Mapping):
        return [text for item in value.items() for text in _texts(item)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []
