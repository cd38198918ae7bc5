"""retrieval-cli: one thin command a job.

A command parses, calls its job and prints one JSON report to stdout; progress and messages
go to stderr. Exit codes: 0 done, 1 an error said in one line, 2 wrong usage. Jobs are
imported inside their commands, so that --help loads neither torch nor ray.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from retrieval.errors import RetrievalError

__all__ = ["main"]

INTERRUPTED = (
    "Interrupted. Nothing unfinished was published: what was there before is unchanged. "
    "Run the same command again."
)


class Cli(click.Group):
    """A group that shows the library's own errors as one line, exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; errors of the library and ctrl-C become one line."""
        try:
            return super().invoke(ctx)
        except RetrievalError as error:
            raise click.ClickException(_one_line(str(error))) from error
        except KeyboardInterrupt:
            raise click.ClickException(INTERRUPTED) from None


def _one_line(text: str) -> str:
    """Newlines and control characters come from file names; they must not fake a line."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _on_terminate(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _print_report(report: Mapping[str, Any]) -> None:
    click.echo(json.dumps(report, indent=2, ensure_ascii=False))


def _parse_top_k(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    if value == "all":
        return None
    try:
        return int(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number nor 'all'.", ctx, param) from None


def _parse_ks(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    try:
        return None if value is None else tuple(int(k) for k in value.split(","))
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no list of numbers, as in 1,3,10.", ctx, param
        ) from None


_address = click.option(
    "--address",
    help="Ray cluster, such as auto or HOST:6379. [default: RAY_ADDRESS, or a Ray of this "
    "process alone]",
)


@click.group(cls=Cli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="retrieval-cli")
def main() -> None:
    """Batch image retrieval on Ray: embed a gallery, rank it exactly, evaluate, report.

    Paths may be local or object-store addresses (s3://, gs://). Reports are JSON on stdout.

    \b
    Example:
        retrieval-cli embed photos/queries index/queries
        retrieval-cli embed photos/gallery index/gallery
        retrieval-cli rank index/queries index/gallery ranking
        retrieval-cli evaluate ranking --queries index/queries --gallery index/gallery
        retrieval-cli report ranking report.html
    """
    # A scheduler's kill ends like ctrl-C: Ray is shut down and one line is printed.
    signal.signal(signal.SIGTERM, _on_terminate)


@main.command()
@click.option("--output", default="demo-output", show_default=True, help="Folder of the results.")
def demo(output: str) -> None:
    """Draw a small gallery of buildings, then embed, rank, evaluate and report it.

    \b
    Example:
        retrieval-cli demo --output demo-output
    """
    from pipelines import demo as job

    _print_report(job.run(output, lambda line: click.echo(line, err=True)))


@main.command()
@click.argument("photos")
@click.argument("index")
@click.option(
    "--backbone",
    default="resnet18",
    show_default=True,
    help="resnet18, resnet50, resnet101, resnet152, resnext101_32x8d, wide_resnet101_2, "
    "googlenet, or package.module:function for a network of your own.",
)
@click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    help="imagenet (from torchvision's cache, or downloaded), none (random), or a .safetensors "
    "or .pth state dict.",
)
@click.option("--seed", default=0, show_default=True, help="Seed of random weights.")
@click.option(
    "--labels",
    default="folder",
    show_default=True,
    help="folder (the first folder of the path), none, pattern:REGEX (its first group, in the "
    "file's name), or a CSV or Parquet file with image_id and label.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Stored type of a component.",
)
@click.option(
    "--batch-size",
    default=32,
    show_default=True,
    type=click.IntRange(1),
    help="Photos in a forward pass.",
)
@click.option(
    "--num-actors",
    type=click.IntRange(1),
    help="Copies of the network. [default: one a GPU, or one per four CPUs]",
)
@_address
def embed(photos: str, index: str, address: str | None, **settings: Any) -> None:  # noqa: ANN401
    """Embed the photos of a folder into an index.

    PHOTOS is searched with all its folders; what cannot be read as a photo becomes a row of
    the rejects, with a reason. INDEX is a Delta Lake table of Parquet shards; one commit
    replaces its content, and readers keep the version they have opened.

    \b
    Example:
        retrieval-cli embed photos/gallery index/gallery --backbone resnet50
        retrieval-cli embed s3://bucket/photos s3://bucket/index \\
            --labels 'pattern:class_([0-9]+)_'
    """
    from pipelines import embed as job

    _print_report(job.run(photos, index, job.EmbedConfig(**settings), address=address))


@main.command()
@click.argument("queries")
@click.argument("gallery")
@click.argument("ranking")
@click.option(
    "--top-k",
    default="10",
    show_default=True,
    callback=_parse_top_k,
    help="Images to list for each query, or all.",
)
@click.option(
    "--metric",
    type=click.Choice(["cosine", "ip", "l2", "l1"]),
    default="cosine",
    show_default=True,
    help="How near two vectors are; l2 and l1 are distances: smaller is nearer.",
)
@click.option("--exclude-self", is_flag=True, help="Leave out the image with the query's own id.")
@click.option(
    "--memory-gib",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="What one actor may hold.",
)
@click.option(
    "--num-actors",
    type=click.IntRange(1),
    help="Actors that share the gallery's files, at most one a CPU. [default: as many as have "
    "work]",
)
@click.option("--id-column", help="Column of the ids in other tools' Parquet.")
@click.option("--vector-column", help="Column of the vectors in other tools' Parquet.")
@click.option(
    "--vector-dtype",
    type=click.Choice(["float16", "float32", "float64"]),
    help="Type of a component where the vectors are bare bytes.",
)
@_address
def rank(
    queries: str,
    gallery: str,
    ranking: str,
    address: str | None,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Rank the gallery for each query, exactly.

    QUERIES and GALLERY are indexes, or other tools' vectors: Parquet files with a column of
    ids and one of vectors, or folders of .npy and Parquet pairs. RANKING is a folder: Parquet
    parts with query_id, rank, gallery_id and score, and ranking.json. Ids and scores are the
    same to the last bit for any number of shards and actors.

    \b
    Example:
        retrieval-cli rank index/queries index/gallery ranking --top-k 10
        retrieval-cli rank index/gallery index/gallery near-copies --exclude-self --top-k 3
        retrieval-cli rank 'queries/*.parquet' s3://bucket/vectors ranking --metric l2
    """
    from pipelines import rank as job
    from retrieval.vectors import VectorColumns

    columns = VectorColumns(
        settings.pop("id_column"), settings.pop("vector_column"), settings.pop("vector_dtype")
    )
    memory_bytes = int(settings.pop("memory_gib") * 2**30)
    config = job.RankConfig(columns=columns, memory_bytes=memory_bytes, **settings)
    _print_report(job.run(queries, gallery, ranking, config, address=address))


@main.command()
@click.argument("ranking")
@click.option("--queries", required=True, help="Index of the queries.")
@click.option("--gallery", required=True, help="Index of the gallery.")
@click.option(
    "--k", "ks", callback=_parse_ks, help="Which k to report, as in 1,5,20. [default: 1,3,10]"
)
def evaluate(ranking: str, queries: str, gallery: str, ks: tuple[int, ...] | None) -> None:
    """Measure a ranking: top-k accuracy, mAP, precision, a table of the classes.

    Labels come from the indexes. A query counts for top-k if one of its first k images has
    its label; gallery images of other or no classes are distractors.

    \b
    Example:
        retrieval-cli evaluate ranking --queries index/queries --gallery index/gallery --k 1,5
    """
    from pipelines import evaluate as job

    _print_report(job.run(ranking, queries, gallery, ks=ks))


@main.command()
@click.argument("ranking")
@click.argument("output")
@click.option("--queries", help="Index of the queries. [default: where it was ranked]")
@click.option("--gallery", help="Index of the gallery. [default: where it was ranked]")
@click.option(
    "--max-queries",
    default=2000,
    show_default=True,
    type=click.IntRange(1),
    help="Queries on the page; the figures are those of all.",
)
def report(ranking: str, output: str, **settings: Any) -> None:  # noqa: ANN401
    """Write an HTML page: the figures, and each query with what was found for it.

    The page is one file that needs no network.

    \b
    Example:
        retrieval-cli report ranking report.html
    """
    from pipelines import report as job

    _print_report(job.run(ranking, output, **settings))


if __name__ == "__main__":
    sys.exit(main())
