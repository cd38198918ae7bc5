"""`retrieval-cli evaluate`."""

from __future__ import annotations

import click

from pipelines.cli.shared import print_report
from retrieval.settings import COUNT

__all__ = ["evaluate"]

# Of the figures whose names are used for several things; docs/metrics.md has all.
_DEFINITIONS = {
    "map": "over the ranks that are listed, divided by R; trec_eval's map_cut_K at depth K",
    "map_at_K": "over the first K ranks, divided by min(R, K); not trec_eval's map_cut_K",
    "R": "relevant images in the gallery",
}


def _parse_ks(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    try:
        found = None if value is None else tuple(int(k) for k in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no list of numbers, as in 1,3,10.", ctx, param
        ) from None
    if found and max(map(abs, found)) > COUNT.high:
        raise click.BadParameter(f"{value!r} has a number that is not {COUNT}.", ctx, param)
    return found


@click.command()
@click.argument("ranking")
@click.option("--queries", required=True, help="Index of the queries.")
@click.option("--gallery", required=True, help="Index of the gallery.")
@click.option(
    "--k", "ks", callback=_parse_ks, help="Which k to report, as in 1,5,20. [default: 1,3,10]"
)
def evaluate(ranking: str, queries: str, gallery: str, ks: tuple[int, ...] | None) -> None:
    """Measure a ranking: top-k accuracy, mAP, precision, a table of the classes.

    Labels come from the indexes, of the versions that were ranked: these are found by what
    they hold, also where an index has moved. A query counts for top-k if one of its first k
    images has its label; gallery images of other or no classes are distractors. docs/metrics.md
    defines each figure. Of a ranking that stops early `map` is a lower bound, as it says:
    --top-k all of `rank` lists the whole gallery.

    \b
    Example:
        retrieval-cli evaluate ranking --queries index/queries --gallery index/gallery --k 1,5
    """
    from retrieval import evaluation

    found = evaluation.evaluate(ranking, queries, gallery, ks)
    print_report({**found.to_json(), "definitions": _DEFINITIONS})
