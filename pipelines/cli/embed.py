"""`retrieval-cli embed`."""

from __future__ import annotations

import click

from pipelines.cli.options import options
from pipelines.cli.shared import dry_run_option, print_report, site_options
from pipelines.embed.config import EmbedConfig
from pipelines.ray_runtime.cluster_options import Site

__all__ = ["embed"]


@click.command()
@click.argument("photos")
@click.argument("index")
@options(config=EmbedConfig)
@dry_run_option
@site_options
def embed(photos: str, index: str, config: EmbedConfig, dry_run: bool, site: Site) -> None:
    """Embed the photos of a folder into an index; run again, only what has changed.

    PHOTOS is searched with all its folders, or is a manifest: a Parquet file with image_id, uri,
    size_bytes and modified_at. New and changed photos are embedded, those that are gone leave
    the index, moved ones keep their embedding; what cannot be read as a photo becomes a row of
    the rejects, with a reason. INDEX is a Delta Lake table of Parquet shards; one commit makes
    the next version, and readers keep the one they have opened. A killed run goes on where it
    was.

    The network is one of --backbone with --weights, or the trained one of --model, a folder that
    `retrieval-cli train` has made; its weights must be those that the folder describes. If it is
    one of your own, name its function too: no folder has code run by what it says. What is left
    out is as the index has it. Another network embeds all photos anew, and needs --new-model.

    \b
    Example:
        retrieval-cli embed photos/gallery index/gallery --backbone resnet50
        retrieval-cli embed photos/gallery index/gallery --model models/buildings --new-model
        retrieval-cli embed photos/gallery index/gallery --backbone networks:mine --std 1,1,1
        retrieval-cli embed photos/gallery index/gallery --model models/mine \\
            --backbone networks:mine
        retrieval-cli embed s3://bucket/photos s3://bucket/index \\
            --labels 'pattern:class_([0-9]+)_'
    """
    from pipelines import embed as job

    run = job.estimate if dry_run else job.run
    print_report(run(photos, index, config, site=site), result=None if dry_run else index)
