"""`retrieval-cli augment`."""

from __future__ import annotations

import click

from pipelines.augment.config import AugmentConfig
from pipelines.cli.interrupts import Interrupted
from pipelines.cli.options import options
from pipelines.cli.shared import dry_run_option, print_report, say, site_options
from pipelines.ray_runtime.cluster_options import Site

__all__ = ["augment"]

INTERRUPTED = (
    "Interrupted. What is done of {} is kept. Run the same command again: it goes on from there."
)


@click.command()
@click.argument("photos")
@click.argument("output")
@options(config=AugmentConfig)
@dry_run_option
@site_options
def augment(photos: str, output: str, config: AugmentConfig, dry_run: bool, site: Site) -> None:
    """Multiply the photos of each class by augmentation, up to --per-class images.

    OUTPUT holds a folder a class: the photos byte for byte, and beside each of them its results,
    as NAME.TECHNIQUE-NUMBER.jpg; with augmentations.png, one photo under every technique. (As
    Parquet: tables with their bytes, and the picture in OUTPUT/.augmented.) Hidden in
    OUTPUT/.augmented are the rejects and the manifest, by which `train` knows copies from
    originals. Near copies and destroyed pictures are dropped and drawn again.

    Run again, it keeps what is finished, makes what is missing, and removes what it has made by
    other settings or of photos that are gone. An OUTPUT with files of anybody else is refused.

    \b
    Example:
        retrieval-cli augment photos/train photos/augmented
        retrieval-cli augment photos/train photos/augmented --recipe light --per-class 100
        retrieval-cli augment s3://bucket/photos s3://bucket/augmented --format parquet
    """
    from pipelines import augment as job

    if dry_run:
        print_report(job.estimate(photos, output, config, site=site))
        return
    try:
        report = job.run(photos, output, config, say, site=site)
    except KeyboardInterrupt:
        raise Interrupted(INTERRUPTED.format(output)) from None
    print_report(report, result=output)
