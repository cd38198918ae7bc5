"""`retrieval-cli retry-rejects`."""

from __future__ import annotations

from typing import Any

import click

from pipelines.cli.embed_options import check_model, embed_options
from pipelines.cli.shared import dry_run_option, print_report, site_options
from pipelines.ray_runtime.cluster_options import Site

__all__ = ["retry_rejects"]


@click.command("retry-rejects")
@click.argument("photos")
@click.argument("index")
@embed_options
@dry_run_option
@site_options
@click.pass_context
def retry_rejects(
    ctx: click.Context,
    /,
    photos: str,
    index: str,
    site: Site,
    dry_run: bool,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Try again the photos that an index has rejected.

    For photos that failed for a reason outside of them: a decoder that has been mended, a
    machine that was too slow. Photos that have changed since are embedded too, as by `embed`.

    \b
    Example:
        retrieval-cli retry-rejects photos/gallery index/gallery --model models/buildings
    """
    from pipelines import embed as job

    check_model(ctx, settings["model"], job.DECIDED_BY_MODEL)
    config = job.EmbedConfig(**settings, retry_rejects=True)
    run = job.estimate if dry_run else job.run
    print_report(run(photos, index, config, site=site), result=None if dry_run else index)
