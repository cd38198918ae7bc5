"""`retrieval-cli verify`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from pipelines.cli.options import number
from pipelines.cli.shared import print_report, say
from retrieval.settings import COUNT, SEED

__all__ = ["verify"]


@click.command()
@click.argument("path")
@click.option(
    "--sample",
    default=20,
    show_default=True,
    type=number(COUNT),
    help="Queries of a ranking to rank again by brute force; more than there are means all.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=number(SEED, low=0),
    help="Which queries are drawn.",
)
@click.option("--queries", help="Index of a ranking's queries. [default: where it was ranked]")
@click.option("--gallery", help="Index of its gallery. [default: where it was ranked]")
@click.pass_context
def verify(
    context: click.Context,
    path: str,
    sample: int,
    seed: int,
    queries: str | None,
    gallery: str | None,
) -> None:
    """Prove a ranking by brute force, or check all that can be told of an index.

    Of a RANKING some queries are compared with every image of the gallery, in float64 and
    without the engine that made it, ids and scores to the last bit. All rows are checked for
    gaps, order and repeated images. The indexes are read at the versions that were ranked,
    where the ranking says they are; name them where they have moved.

    Of an INDEX, or INDEX@VERSION, every byte is read: hashes and checksums of the shards, their
    vectors, ids that occur twice, rejects, counts, and the log.

    Exit code 1, and the first fault, if something is wrong.

    \b
    Example:
        retrieval-cli verify ranking
        retrieval-cli verify ranking --sample 200 --seed 7
        retrieval-cli verify index/gallery
        retrieval-cli verify index/gallery@12
    """
    from retrieval.index.history import split_version
    from retrieval.index.table import is_index, may_hold_index

    uri, version = split_version(path)
    if version is not None or (may_hold_index(uri) and is_index(uri)):
        for name in ("sample", "seed", "queries", "gallery"):
            if context.get_parameter_source(name) != ParameterSource.DEFAULT:
                raise click.UsageError(f"--{name} is for rankings, but {path} is an index.")
        print_report(_verify_index(uri, version))
        return
    from dataclasses import asdict

    from pipelines.progress import STDERR
    from retrieval.ranking.verification.verify import verify as verify_ranking

    found = verify_ranking(
        path, sample=sample, seed=seed, queries=queries, gallery=gallery, progress=STDERR
    )
    print_report(asdict(found))


def _verify_index(uri: str, version: int | None) -> dict[str, Any]:
    from pipelines.progress import STDERR
    from retrieval.errors import IndexFormatError
    from retrieval.index import open_index
    from retrieval.maintenance.check import check_index

    found = check_index(open_index(uri, version), STDERR)
    for fault in found.faults:
        say(fault)
    if not found.is_sound:
        num = len(found.faults)
        raise IndexFormatError(
            f"{uri}: version {found.version} has {num} fault{'s' * (num > 1)}: "
            f"{found.faults[0]} Go back to a sound version: retrieval-cli restore {uri} VERSION"
        )
    return {**found.to_json(), "index": uri}
