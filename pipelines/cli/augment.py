"""`retrieval-cli augment`."""

from __future__ import annotations

from typing import Any

import click

from pipelines.cli.interrupts import Interrupted
from pipelines.cli.numbers import number
from pipelines.cli.shared import dry_run_option, print_report, say, site_options
from pipelines.ray_runtime.cluster_options import Site
from retrieval.ranges import COUNT, SEED

__all__ = ["augment"]

INTERRUPTED = (
    "Interrupted. What is done of {} is kept. Run the same command again: it goes on from there."
)


@click.command()
@click.argument("photos")
@click.argument("output")
@click.option(
    "--recipe",
    default="paper",
    show_default=True,
    help="paper (every technique, one a result), light (several gentle ones a result), none (the "
    "photos alone), or a YAML file.",
)
@click.option(
    "--per-class",
    default=600,
    show_default=True,
    type=number(COUNT),
    help="Images of a class to reach, photos and results together.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=number(SEED, low=0),
    help="Seed of all that is drawn.",
)
@click.option(
    "--size",
    default=256,
    show_default=True,
    type=click.IntRange(16, 2048),
    help="Shorter side in pixels to which a larger photo is reduced before.",
)
@click.option(
    "--decoder",
    type=number(COUNT),
    help="Version of the rules by which photos are read. [default: the newest, or that of what "
    "was begun there]",
)
@click.option(
    "--quality",
    default=90,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Quality of the JPEG results.",
)
@click.option(
    "--format",
    type=click.Choice(["jpeg", "parquet"]),
    default="jpeg",
    show_default=True,
    help="jpeg (class folders of files), or parquet (tables with a column of bytes).",
)
@click.option(
    "--labels",
    default="folder",
    show_default=True,
    help="folder (the first folder of the path), pattern:REGEX (its first group, in the file's "
    "name), or a CSV or Parquet file with image_id and label.",
)
@click.option(
    "--follow-links",
    is_flag=True,
    help="Follow links that lead out of PHOTOS too; otherwise each is a reject.",
)
@dry_run_option
@site_options
def augment(photos: str, output: str, site: Site, dry_run: bool, **settings: Any) -> None:  # noqa: ANN401
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

    config = job.AugmentConfig(**settings)
    if dry_run:
        print_report(job.estimate(photos, output, config, site=site))
        return
    try:
        report = job.run(photos, output, config, say, site=site)
    except KeyboardInterrupt:
        raise Interrupted(INTERRUPTED.format(output)) from None
    print_report(report, result=output)
