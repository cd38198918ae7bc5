"""`retrieval-cli retry-rejects`."""

from __future__ import annotations

from dataclasses import replace

import click

from pipelines.cli.options import options
from pipelines.cli.shared import dry_run_option, print_report, site_options
from pipelines.embed.config import EmbedConfig
from pipelines.ray_runtime.cluster_options import Site

__all__ = ["retry_rejects"]


@click.command("retry-rejects")
@click.argument("photos")
@click.argument("index")
@options(config=EmbedConfig)
@dry_run_option
@site_options
def retry_rejects(photos: str, index: str, config: EmbedConfig, dry_run: bool, site: Site) -> None:
    """Try again the photos that an index has rejected.

    For photos that failed for a reason outside of them: a decoder that has been mended, a
    machine that was too slow. Photos that have changed since are embedded too, as by `embed`.

    \b
    Example:
        retrieval-cli retry-rejects photos/gallery index/gallery --model models/buildings
    """
    from pipelines import embed as job

    config = replace(config, retry_rejects=True)
    run = job.estimate if dry_run else job.run
    print_report(run(photos, index, config, site=site), result=None if dry_run else index)
