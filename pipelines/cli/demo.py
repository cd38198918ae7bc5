"""`retrieval-cli demo`."""

from __future__ import annotations

import click

from pipelines.cli.shared import print_report, say

__all__ = ["demo"]


@click.command()
@click.option("--output", default="demo-output", show_default=True, help="Folder of the results.")
def demo(output: str) -> None:
    """Draw a small gallery of buildings and take it through every step, training included.

    \b
    Example:
        retrieval-cli demo --output demo-output
    """
    from pipelines import demo as job

    print_report(job.run(output, say), result=output)
