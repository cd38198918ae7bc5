"""What the commands share: how a report is printed, and options of several of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from pipelines.progress import announce as say

__all__ = ["address_option", "print_report", "say"]

address_option = click.option(
    "--address",
    help="Ray cluster, such as auto or HOST:6379. [default: RAY_ADDRESS, or this machine alone]",
)


def print_report(report: Mapping[str, Any]) -> None:
    """Print a job's report as JSON on stdout."""
    click.echo(json.dumps(report, indent=2, ensure_ascii=False))
