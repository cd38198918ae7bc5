"""`retrieval-cli reindex`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import click

from pipelines.cli.options import options
from pipelines.cli.shared import ReportLost, dry_run_option, print_report, site_options
from pipelines.embed.config import EmbedConfig
from pipelines.ray_runtime.cluster_options import Site
from pipelines.reindex.config import GateConfig, ReindexConfig
from retrieval.errors import RetrievalError
from retrieval.ranking.settings import RankConfig

__all__ = ["reindex"]


@click.command()
@click.argument("photos")
@click.argument("index")
@options(embed=EmbedConfig)
@options(config=ReindexConfig)
@options(("top_k", "metric", "exclude_self"), rank=ReindexConfig().rank)
@options(gate=GateConfig)
@dry_run_option
@site_options
def reindex(
    photos: str,
    index: str,
    *,
    embed: EmbedConfig,
    config: ReindexConfig,
    rank: RankConfig,
    gate: GateConfig,
    dry_run: bool,
    site: Site,
) -> None:
    """A night: bring an index up to date with its gallery, and a ranking with the index.

    As `embed`, then: with --probe the new version is measured before it is committed, and
    refused if a figure is below its bound: exit code 1, and the version before stays. So it is
    if more than --max-removed of the images are gone. With
    --queries and --rankings the queries are ranked against it (only what has changed), and
    the report is written. Without a change nothing is read, committed or ranked.

    Prints the record of the night as JSON, also of one that fails, and keeps it in INDEX/_runs.
    Killed anywhere, the same command goes on; two at once cannot both commit.

    \b
    Example:
        retrieval-cli reindex photos/gallery index/gallery --model models/buildings
        retrieval-cli reindex s3://bucket/photos s3://bucket/index --model s3://bucket/model \\
            --queries s3://bucket/queries --rankings s3://bucket/ranking \\
            --probe s3://bucket/probe --min-top-1 0.9 --max-removed 0.05 --rebase
    """
    from pipelines import reindex as job

    config = replace(config, embed=embed, gate=gate, rank=rank)
    run = job.estimate if dry_run else job.run
    try:
        print_report(run(photos, index, config, site=site), result=None if dry_run else index)
    except RetrievalError as error:
        if error.record is not None:
            with suppress(ReportLost):  # why it failed matters more
                print_report(error.record)
        raise
