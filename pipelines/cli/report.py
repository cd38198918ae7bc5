"""`retrieval-cli report`."""

from __future__ import annotations

import click

from pipelines.cli.options import number
from pipelines.cli.shared import print_report
from retrieval.settings import COUNT

__all__ = ["report"]


@click.command()
@click.argument("ranking")
@click.argument("output")
@click.option("--queries", help="Index of the queries. [default: where it was ranked]")
@click.option("--gallery", help="Index of the gallery. [default: where it was ranked]")
@click.option(
    "--max-queries",
    default=2000,
    show_default=True,
    type=number(COUNT),
    help="Queries on the page; the figures are those of all.",
)
def report(
    ranking: str, output: str, queries: str | None, gallery: str | None, max_queries: int
) -> None:
    """Write an HTML page: the figures, and each query with what was found for it.

    The page is one file that needs no network.

    \b
    Example:
        retrieval-cli report ranking report.html
    """
    from pipelines.progress import STDERR
    from retrieval.report_page import write_report

    written = write_report(
        ranking,
        output,
        queries=queries,
        gallery=gallery,
        max_queries=max_queries,
        progress=STDERR,
    )
    print_report(written.to_json(), result=output)
