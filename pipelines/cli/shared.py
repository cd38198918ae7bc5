"""What the commands share: how a report is printed, and options of several of them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import click

from pipelines.cli.options import options
from pipelines.cli.process import report_stream
from pipelines.progress import announce as say
from pipelines.ray_runtime.cluster_options import Site, check_port
from retrieval.one_line import as_json, one_line

__all__ = [
    "ReportLost",
    "dry_run_option",
    "print_report",
    "say",
    "site_options",
]


dry_run_option = click.option(
    "--dry-run",
    is_flag=True,
    help="Print what would be read and written, what it takes and what the nodes need; write "
    "nothing, and start nothing.",
)


def site_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every command that may use a cluster; it gets them as its argument `site`."""

    @functools.wraps(command)
    def checked(*args: Any, site: Site, **given: Any) -> None:  # noqa: ANN401
        # Before the job is imported, which takes seconds.
        check_port(site.address or os.environ.get("RAY_ADDRESS") or "local")
        command(*args, site=site, **given)

    return options(site=Site)(checked)


class Report(Protocol):
    """What a job has found."""

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""


def print_report(report: Mapping[str, Any] | Report, *, result: str | None = None) -> None:
    """Print a job's report as JSON on stdout.

    Args:
        report: What a job has found, or JSON values. Letters that steer a terminal are spelled as
            JSON spells them.
        result: Where the job's result is, if it is not the report itself.

    Raises:
        click.ClickException: stdout takes none; says where the result is.
    """
    found = report if isinstance(report, Mapping) else report.to_json()
    try:
        click.echo(as_json(found), file=report_stream())
    except (OSError, ValueError) as error:
        raise ReportLost(error, result) from error


class ReportLost(click.ClickException):
    """The job is done, but stdout does not take its report."""

    def __init__(self, error: OSError | ValueError, result: str | None) -> None:
        reason = getattr(error, "strerror", None) or str(error)
        where = "Run the same command again with another stdout."
        if result is not None:
            where = f"The job is done, and its result is in {result}."
        super().__init__(one_line(f"stdout: the report cannot be written ({reason}). {where}"))
