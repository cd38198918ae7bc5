"""`retrieval-cli diff`."""

from __future__ import annotations

import click

from pipelines.cli.options import number
from pipelines.cli.shared import print_report
from pipelines.ray_runtime.cluster_options import Site
from retrieval.settings import COUNT

__all__ = ["diff"]


@click.command()
@click.argument("index")
@click.argument("before", type=number(COUNT, low=0))
@click.argument("after", type=number(COUNT, low=0))
@click.option(
    "--list",
    "num_listed",
    is_flag=False,
    flag_value=20,
    default=0,
    metavar="[N]",
    type=number(COUNT, low=0),
    help="Name the first ids of each kind of change; 20 where no number follows.",
)
@click.option("--probe", metavar="QUERIES", help="Rank both versions for these queries, too.")
@click.option(
    "--top-k",
    type=number(COUNT),
    help="Images of each query of --probe. [default: 10]",
)
def diff(
    index: str, before: int, after: int, num_listed: int, probe: str | None, top_k: int | None
) -> None:
    """Compare two versions of an index: ids added, removed, moved, changed, relabelled.

    Shards that both versions share are not read. With --probe both are ranked for some queries,
    and the report tells how many of the nearest images stayed, and which queries changed most.

    \b
    Example:
        retrieval-cli diff index/gallery 11 12 --list
        retrieval-cli diff index/gallery 11 12 --probe index/queries --top-k 10
    """
    if top_k is not None and probe is None:
        raise click.UsageError("--top-k is for --probe: name queries to rank.")
    from pipelines.progress import STDERR
    from pipelines.rank.executor import choose_executor
    from retrieval.index import open_index
    from retrieval.maintenance.diff import add_churn, diff_versions
    from retrieval.ranking.settings import RankConfig
    from retrieval.ranking.sides import open_side

    found = diff_versions(index, before, after, num_listed=num_listed)
    if probe is not None:
        top_k = top_k or 10
        queries, gallery = open_side(probe), open_side(open_index(found.index, before))
        executor = choose_executor(queries, gallery, RankConfig(top_k=top_k), Site())
        found = add_churn(found, queries, top_k, executor=executor, progress=STDERR)
    print_report(found)
