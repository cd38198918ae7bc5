"""What is to run: a command line, its environment, and the id that keeps it from running twice."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.submit.environment import check_sizes, texts
from retrieval.errors import UsageError
from retrieval.one_line import is_control
from retrieval.secrets import holds_secret, without_secrets

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
        UsageError: an argument cannot be shown to everybody, the folder is no source tree, or Ray
            takes no folder of this size.
    """
    environment = dict(runtime_env or {})
    if working_dir is not None:
        if "working_dir" in environment:
            raise UsageError("`working_dir`, and working_dir in `runtime_env`: give one of them.")
        if not (Path(working_dir) / "pipelines" / "cli" / "__main__.py").is_file():
            raise UsageError(
                f"`working_dir` {working_dir}: pipelines/cli is not there. Name a checkout of "
                "retrieval-cli, or leave it out to run the package installed on the cluster."
            )
        environment["working_dir"] = working_dir
    check_sizes(environment)
    _check_public(command, [python, submission_id or "", *texts(environment), *texts(node)])
    when = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    return Request(
        submission_id=submission_id or f"{command[0]}-{when}-{secrets.token_hex(4)}",
        entrypoint=shlex.join([python, "-m", "pipelines.cli", *command]),
        runtime_env=environment,
        node=dict(node or {}),
    )


def _check_public(command: Sequence[str], others: Sequence[str]) -> None:
    """Whoever sees the dashboard reads the command, its environment and what else is sent."""
    for text in [*command, *others]:
        if holds_secret(text) or without_secrets(text) != text:
            raise UsageError(
                f"{_shown(text)}: credentials stand in it, such as a password, a token or a "
                "signature, and everybody who sees Ray's dashboard would read them. Give the nodes "
                "a role or their own credentials, and a plain address here."
            )
    for text in command:
        if any(map(is_control, text)):
            raise UsageError(f"{text}: a submitted command cannot have control characters.")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UsageError(f"{text}: is not UTF-8, as a submitted command must be.")


def _shown(text: str) -> str:
    """Where a text with credentials comes from, without them."""
    found = re.match(r"(?i)[a-z][a-z0-9+.-]{0,15}:", text)
    return f"{found[0]}//..." if found else "An argument or a value of `runtime_env`"
