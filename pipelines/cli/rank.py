"""`retrieval-cli rank`."""

from __future__ import annotations

from typing import Any

import click

from pipelines.cli.numbers import number
from pipelines.cli.shared import print_report, site_options
from pipelines.ray_runtime.cluster_options import Site
from retrieval.ranges import COUNT, GIBIBYTES, MANY

__all__ = ["check_metric", "parse_top_k", "rank"]


def parse_top_k(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """A number, or None for all."""
    if value == "all":
        return None
    try:
        found = int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor 'all'.", ctx, param) from None
    if abs(found) > COUNT.high:
        raise click.BadParameter(f"{value[:60]!r} is not {COUNT}.", ctx, param)
    return found


def check_metric(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuse an unknown metric as wrong usage."""
    # As the library has them: loading that would take longer than the answer.
    name, _, power = value.partition(":")
    try:
        is_known = name == "minkowski" and 1 <= float(power) < float("inf")
    except ValueError:
        is_known = False
    if is_known or value in ("cosine", "ip", "l2", "l1"):
        return value
    known = "cosine, ip, l2, l1, or minkowski:P with P ≥ 1, as in minkowski:3"
    raise click.BadParameter(f"{value!r} is none of {known}.", ctx, param)


@click.command()
@click.argument("queries")
@click.argument("gallery")
@click.argument("ranking")
@click.option(
    "--top-k",
    default="10",
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
    help="How near two vectors are; of l2, l1 and minkowski:P smaller is nearer.",
)
@click.option("--exclude-self", is_flag=True, help="Leave out the image with the query's own id.")
@click.option(
    "--memory-gib",
    type=number(GIBIBYTES),
    help="What one process may hold. [default: 1, and 1/32 a thread]",
)
@click.option(
    "--num-threads",
    type=number(MANY),
    help="Threads; asks for this machine alone. [default: without a cluster, one a core]",
)
@click.option(
    "--num-actors",
    type=number(MANY),
    help="Ray actors, at most one a CPU or GPU; asks for Ray. [default: on a cluster, as many as "
    "have work]",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="cuda: a GPU; auto: where there is one. That engine has run on one kind of GPU alone so "
    "far, and so it has to be asked for: check what it ranks by `verify`.",
)
@click.option(
    "--previous",
    metavar="RANKING",
    help="Ranking of earlier versions of the same indexes: rank only what has changed since.",
)
@click.option("--allow-duplicates", is_flag=True, help="Rank a gallery with equal ids.")
@click.option(
    "--dry-run", is_flag=True, help="Print what would be read and about how long it takes."
)
@click.option("--id-column", help="Column of the ids in other tools' Parquet.")
@click.option("--vector-column", help="Column of the vectors in other tools' Parquet.")
@click.option(
    "--vector-dtype",
    type=click.Choice(["float16", "float32", "float64"]),
    help="Type of a component where the vectors are bare bytes.",
)
@site_options
def rank(
    queries: str,
    gallery: str,
    ranking: str,
    site: Site,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Rank the gallery for each query, exactly.

    QUERIES and GALLERY are indexes, or other tools' vectors: Parquet files with a column of
    ids and one of vectors, or folders of .npy and Parquet pairs. RANKING is a folder: Parquet
    parts with query_id, rank, gallery_id and score, and _ranking.json. Ids and scores are the
    same to the last bit for any number of shards, threads and actors.

    Without --address this machine ranks alone, without Ray; with one, too, where that takes it
    some seconds. A killed run goes on where it was: give the same command again.

    \b
    Example:
        retrieval-cli rank index/queries index/gallery ranking --top-k 10
        retrieval-cli rank index/gallery index/gallery near-copies --exclude-self --top-k 3
        retrieval-cli rank 'queries/*.parquet' s3://bucket/vectors ranking --metric l2
        retrieval-cli rank index/queries index/gallery tuesday --previous monday
    """
    from pipelines import rank as job
    from retrieval.vectors import VectorColumns

    columns = VectorColumns(
        settings.pop("id_column"), settings.pop("vector_column"), settings.pop("vector_dtype")
    )
    memory_gib = settings.pop("memory_gib")
    memory_bytes = None if memory_gib is None else int(memory_gib * 2**30)
    is_dry = settings.pop("dry_run")
    config = job.RankConfig(columns=columns, memory_bytes=memory_bytes, **settings)
    if is_dry:
        print_report(job.estimate(queries, gallery, config, ranking=ranking, site=site))
    else:
        print_report(job.run(queries, gallery, ranking, config, site=site), result=ranking)
