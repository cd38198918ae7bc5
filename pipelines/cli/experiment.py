"""`retrieval-cli experiment`."""

from __future__ import annotations

import click

from pipelines.cli.interrupts import Interrupted
from pipelines.cli.options import options
from pipelines.cli.shared import dry_run_option, print_report, say, site_options
from pipelines.experiment.config import ExperimentConfig
from pipelines.ray_runtime.cluster_options import Site
from retrieval.experiments import ROWS

__all__ = ["experiment"]

INTERRUPTED = (
    "Interrupted. Rows that are done are kept, and finished epochs of the one that was being "
    "trained. Run the same command again: it goes on there."
)


@click.command(epilog="\n    ".join(["\b\nRows:", *(row.name for row in ROWS)]))
@click.argument("photos")
@click.argument("output")
@options(config=ExperimentConfig)
@dry_run_option
@site_options
def experiment(
    photos: str, output: str, config: ExperimentConfig, dry_run: bool, site: Site
) -> None:
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
