"""`retrieval-cli rank`."""

from __future__ import annotations

from dataclasses import replace

import click

from pipelines.cli.options import options
from pipelines.cli.shared import print_report, site_options
from pipelines.ray_runtime.cluster_options import Site
from retrieval.ranking.settings import RankConfig
from retrieval.vector_columns import VectorColumns

__all__ = ["rank"]


@click.command()
@click.argument("queries")
@click.argument("gallery")
@click.argument("ranking")
@options(config=RankConfig)
@click.option(
    "--dry-run", is_flag=True, help="Print what would be read and about how long it takes."
)
@options(columns=VectorColumns)
@site_options
def rank(
    queries: str,
    gallery: str,
    ranking: str,
    *,
    config: RankConfig,
    dry_run: bool,
    columns: VectorColumns,
    site: Site,
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

    config = replace(config, columns=columns)
    if dry_run:
        print_report(job.estimate(queries, gallery, config, ranking=ranking, site=site))
    else:
        print_report(job.run(queries, gallery, ranking, config, site=site), result=ranking)
