"""`retrieval-cli reindex`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

from pipelines.cli.embed_options import check_model, embed_options
from pipelines.cli.numbers import number
from pipelines.cli.rank import check_metric, parse_top_k
from pipelines.cli.shared import ReportLost, dry_run_option, print_report, site_options
from pipelines.ray_runtime.cluster_options import Site
from retrieval.errors import RetrievalError, UsageError
from retrieval.ranges import COUNT, FRACTION

__all__ = ["reindex"]

_FRACTION = number(FRACTION)


@click.command()
@click.argument("photos")
@click.argument("index")
@embed_options
@click.option("--queries", help="Index or folder of photos to rank against the new version.")
@click.option("--rankings", help="Folder of their ranking; brought up to date.")
@click.option("--report", help="HTML page of the ranking. [default: RANKINGS.html]")
@click.option(
    "--top-k",
    default="100",
    show_default=True,
    callback=parse_top_k,
    help="Images to list for each query, or all.",
)
@click.option(
    "--metric",
    default="cosine",
    show_default=True,
    metavar="cosine|ip|l2|l1|minkowski:P",
    callback=check_metric,
    help="How near two vectors are.",
)
@click.option("--exclude-self", is_flag=True, help="Leave out the image with the query's own id.")
@click.option("--probe", help="Labelled queries, an index or a folder, to measure the version on.")
@click.option("--min-top-1", type=_FRACTION, help="Least top-1 accuracy of the probe, 0 to 1.")
@click.option("--min-top-3", type=_FRACTION, help="Least top-3 accuracy.")
@click.option("--min-top-10", type=_FRACTION, help="Least top-10 accuracy.")
@click.option("--min-map", type=_FRACTION, help="Least mean average precision.")
@click.option(
    "--min-overlap",
    type=_FRACTION,
    help="Least mean share of each query's nearest that the version before listed too.",
)
@click.option(
    "--overlap-k",
    default=10,
    show_default=True,
    type=number(COUNT),
    help="How many nearest are compared.",
)
@click.option(
    "--max-removed",
    type=_FRACTION,
    metavar="SHARE",
    help="Most of the version before that may be missing, 0 to 1: images that are gone, or can no "
    "longer be read. Needs no probe.",
)
@dry_run_option
@site_options
@click.pass_context
def reindex(
    ctx: click.Context,
    /,
    photos: str,
    index: str,
    site: Site,
    dry_run: bool,
    **settings: Any,  # noqa: ANN401
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
    from pipelines import embed
    from pipelines import reindex as job
    from pipelines.rank import RankConfig

    check_model(ctx, settings["model"], embed.DECIDED_BY_MODEL)

    def taken(*names: str) -> dict[str, Any]:
        return {name: settings.pop(name) for name in names}

    gate = taken(
        "probe", "overlap_k", "max_removed", *(name for name in settings if name.startswith("min_"))
    )
    ranked = taken("top_k", "metric", "exclude_self")
    sides = taken("queries", "rankings", "report")
    try:
        config = job.ReindexConfig(
            embed=embed.EmbedConfig(**settings),
            gate=job.GateConfig(**gate),
            rank=RankConfig(**ranked),
            **sides,
        )
    except UsageError as error:  # options that go together
        raise click.UsageError(str(error), ctx) from error
    run = job.estimate if dry_run else job.run
    try:
        print_report(run(photos, index, config, site=site), result=None if dry_run else index)
    except RetrievalError as error:
        if error.record is not None:
            with suppress(ReportLost):  # why it failed matters more
                print_report(error.record)
        raise
