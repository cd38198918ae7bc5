"""`retrieval-cli verify`."""

from __future__ import annotations

import click

from pipelines.cli.shared import print_report

__all__ = ["verify"]


@click.command()
@click.argument("ranking")
@click.option(
    "--sample",
    default=20,
    show_default=True,
    type=click.IntRange(1),
    help="Queries to rank again by brute force; more than there are means all.",
)
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0), help="Which queries are drawn."
)
def verify(ranking: str, sample: int, seed: int) -> None:
    """Prove a ranking by brute force: ids and scores, to the last bit.

    Some queries are compared with every image of the gallery, in float64 and without the
    engine that made the ranking. All rows are checked for gaps, order and repeated images.
    The indexes are read at the versions that were ranked, where the ranking says they are.

    Exit code 1, and the first difference, if the ranking is wrong.

    \b
    Example:
        retrieval-cli verify ranking
        retrieval-cli verify ranking --sample 200 --seed 7
    """
    from pipelines import verify as job

    print_report(job.run(ranking, sample=sample, seed=seed))
