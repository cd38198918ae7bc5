"""`retrieval-cli experiment`."""

from __future__ import annotations

from typing import Any

import click

from pipelines.cli.interrupts import Interrupted
from pipelines.cli.numbers import number
from pipelines.cli.shared import (
    dry_run_option,
    normalising_options,
    print_report,
    say,
    site_options,
)
from pipelines.ray_runtime.cluster_options import Site
from retrieval.errors import UsageError
from retrieval.experiments import ROWS, choose_rows  # light: neither torch nor NumPy
from retrieval.ranges import COUNT, EPOCHS, MANY, SEED, SIDE

__all__ = ["experiment"]

INTERRUPTED = (
    "Interrupted. Rows that are done are kept, and finished epochs of the one that was being "
    "trained. Run the same command again: it goes on there."
)


def _parse_rows(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    try:
        return tuple(row.name for row in choose_rows(ROWS, names))
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.command(epilog="\n    ".join(["\b\nRows:", *(row.name for row in ROWS)]))
@click.argument("photos")
@click.argument("output")
@click.option(
    "--rows",
    callback=_parse_rows,
    help="Names of rows, as below, separated by commas. [default: all 17]",
)
@click.option(
    "--scale",
    type=click.Choice(["full", "small"]),
    default="full",
    show_default=True,
    help="small is a quick pass, whose figures say little; it changes the defaults below.",
)
@click.option("--epochs", type=number(EPOCHS), help="Of each training. [default: 10; small: 2]")
@click.option(
    "--image-size",
    type=number(SIDE, low=32),
    help="Side of the networks' input in pixels. [default: 224; small: 64]",
)
@normalising_options
@click.option(
    "--per-class",
    type=number(COUNT),
    help="Images of a class in the augmented data sets. [default: 600; small: 24]",
)
@click.option(
    "--queries-per-class",
    default=3,
    show_default=True,
    type=number(COUNT),
    help="Photos of a class that become queries.",
)
@click.option(
    "--batch-size",
    default=32,
    show_default=True,
    type=number(MANY, low=2),
    help="Photos of a training step, over all workers together.",
)
@click.option(
    "--num-workers",
    type=number(MANY),
    help="Workers that train together. [default: one a GPU, or one a node]",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=number(SEED, low=0),
    help="Of the queries, the augmentation and the trainings.",
)
@dry_run_option
@site_options
def experiment(photos: str, output: str, site: Site, dry_run: bool, **settings: Any) -> None:  # noqa: ANN401
    """Train and measure the paper's 17 configurations; write ours beside the paper's figures.

    PHOTOS has one folder a class. Some photos of each class become the queries, the others the
    gallery. Its photos are augmented, each row trains a network on them, and the gallery is
    ranked by it for each query. OUTPUT/experiment.md, .csv and .json are written after every
    row; OUTPUT/rows/NAME holds a row's model, indexes and ranking.

    Run again with the same settings, rows that are done are kept. A row that fails, or whose
    ImageNet weights are not to be had, is listed with the reason and stops no other; exit code
    1 if any failed.

    \b
    Example:
        retrieval-cli experiment photos results
        retrieval-cli experiment photos quick --scale small \\
            --rows Resnet18-full_layer-1,Resnet18-full_layer-not_pretrained
    """
    from pipelines import experiment as job

    config = job.ExperimentConfig.at_scale(settings.pop("scale"), **settings)
    if dry_run:
        print_report(job.estimate(photos, output, config, site=site))
        return
    try:
        report = job.run(photos, output, config, say, site=site)
    except KeyboardInterrupt:
        raise Interrupted(INTERRUPTED) from None
    print_report(report, result=output)
    if report["failed"]:
        raise click.ClickException(
            f"Failed rows: {', '.join(report['failed'])}. Mend what {report['markdown']} says of "
            f"them, and run the same command again: rows that are done are kept."
        )
