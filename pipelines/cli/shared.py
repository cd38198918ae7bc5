"""What the commands share: how a report is printed, and options of several of them."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import click

from pipelines.cli.numbers import number
from pipelines.cli.parameters import as_options
from pipelines.cli.streams import report_stream
from pipelines.progress import announce as say
from pipelines.ray_runtime.address import check_port
from pipelines.ray_runtime.cluster_options import Site
from retrieval.errors import UsageError
from retrieval.one_line import as_json, one_line
from retrieval.ranges import MANY

__all__ = [
    "ReportLost",
    "dry_run_option",
    "normalising_options",
    "parse_labels",
    "print_report",
    "say",
    "site_options",
]


_MAX_CHANNEL = 1e6  # the network computes in 32 bits, where far more has no room


def parse_labels(
    ctx: click.Context, option: click.Parameter, given: tuple[str, ...]
) -> dict[str, str]:
    """Labels of Ray, each given as KEY=VALUE."""
    labels: dict[str, str] = {}
    for text in given:
        key, _, value = text.partition("=")
        if key in labels and labels[key] != value:
            raise click.BadParameter(f"{key} is given twice; a node has one value of it.")
        labels[key] = value
    try:
        return dict(Site(labels=labels).labels)
    except UsageError as error:
        raise click.BadParameter(as_options(str(error), ctx)) from error


def _parse_channels(
    ctx: click.Context, option: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Three numbers, of red, green and blue."""
    if value is None:
        return None
    try:
        found = tuple(float(part) for part in value.split(","))
    except ValueError:
        found = ()
    if len(found) != 3 or not all(map(math.isfinite, found)):
        raise click.BadParameter(f"{value!r} is not three numbers R,G,B, as in 0.5,0.5,0.5.")
    if max(map(abs, found)) > _MAX_CHANNEL:
        raise click.BadParameter(f"{value!r} has one beyond {_MAX_CHANNEL:g}, far from any photo.")
    if option.name == "std" and min(found) < 1 / _MAX_CHANNEL:
        least = "0" if min(found) <= 0 else f"{1 / _MAX_CHANNEL:g}"
        raise click.BadParameter(
            f"{value!r} has one that is not above {least}; the input is divided by it."
        )
    return found


_NORMALISING = (
    click.option(
        "--mean",
        metavar="R,G,B",
        callback=_parse_channels,
        show_default="the model's or the network's, or ImageNet's",
        help="Mean of red, green and blue, on the scale from 0 to 1, that is taken off the "
        "network's input.",
    ),
    click.option(
        "--std",
        metavar="R,G,B",
        callback=_parse_channels,
        show_default="the model's or the network's, or ImageNet's",
        help="Deviation, by which it is divided then.",
    ),
)


def normalising_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every command that names a network."""
    for option in reversed(_NORMALISING):
        command = option(command)
    return command


_SITE = (
    click.option(
        "--address",
        help="Ray cluster, such as auto or HOST:6379. [default: RAY_ADDRESS, or this machine "
        "alone]",
    ),
    click.option(
        "--min-cpus",
        default=Site.min_cpus,
        show_default=True,
        type=number(MANY),
        help="CPUs to wait for before the job begins; an autoscaler is asked for them.",
    ),
    click.option(
        "--min-gpus",
        default=Site.min_gpus,
        show_default=True,
        type=number(MANY, low=0),
        help="GPUs to wait for, alike.",
    ),
    click.option(
        "--node",
        "node_labels",  # some commands have a --labels of their own
        multiple=True,
        metavar="KEY=VALUE",
        callback=parse_labels,
        help="Work only on nodes with this Ray label, as in ray.io/accelerator-type=L4. May be "
        "given again.",
    ),
)


dry_run_option = click.option(
    "--dry-run",
    is_flag=True,
    help="Print what would be read and written, what it takes and what the nodes need; write "
    "nothing, and start nothing.",
)


def site_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of every command that may use a cluster; it gets them as one argument, `site`."""

    @functools.wraps(command)
    def with_site(*args: Any, **settings: Any) -> None:  # noqa: ANN401
        labels = settings.pop("node_labels")
        found = {name: settings.pop(name) for name in ("address", "min_cpus", "min_gpus")}
        site = Site(labels=labels, **found)
        # Before the job is imported, which takes seconds.
        check_port(site.address or os.environ.get("RAY_ADDRESS") or "local")
        command(*args, site=site, **settings)

    for option in reversed(_SITE):
        with_site = option(with_site)
    return with_site


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
