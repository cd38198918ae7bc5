"""`retrieval-cli embed`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from pipelines.cli.shared import address_option, print_report

__all__ = ["embed"]


@click.command()
@click.argument("photos")
@click.argument("index")
@click.option(
    "--model",
    help="Folder that `retrieval-cli train` has made: its network, weights and image size.",
)
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
    "--image-size",
    default=224,
    show_default="224, or the model's",
    type=click.IntRange(1),
    help="Side in pixels of the square to which a photo is stretched.",
)
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
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="In which the network computes. auto: float16 on a GPU, bfloat16 on a CPU that has it, "
    "else float32; each worker compares photos of its first batch with float32, and falls "
    "back to it where a cosine is below 0.999.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    help="Photos in a forward pass. [default: 8, on a GPU 256; halved where a GPU has not "
    "enough memory]",
)
@click.option(
    "--num-actors",
    type=click.IntRange(1),
    help="Copies of the network. [default: one a GPU, or one per 16 CPUs]",
)
@address_option
@click.pass_context
def embed(
    ctx: click.Context,
    /,
    photos: str,
    index: str,
    address: str | None,
    **settings: Any,  # noqa: ANN401
) -> None:
    """Embed the photos of a folder into an index.

    PHOTOS is searched with all its folders; what cannot be read as a photo becomes a row of
    the rejects, with a reason. INDEX is a Delta Lake table of Parquet shards; one commit
    replaces its content, and readers keep the version they have opened.

    The network is one of --backbone with --weights, or the trained one of --model, a folder that
    `retrieval-cli train` has made; its weights must be those that the folder describes.

    \b
    Example:
        retrieval-cli embed photos/gallery index/gallery --backbone resnet50
        retrieval-cli embed photos/gallery index/gallery --model models/buildings
        retrieval-cli embed s3://bucket/photos s3://bucket/index \\
            --labels 'pattern:class_([0-9]+)_'
    """
    from pipelines import embed as job

    if settings["model"] is not None:
        for name in job.DECIDED_BY_MODEL:
            if ctx.get_parameter_source(name) != ParameterSource.DEFAULT:
                option = name.replace("_", "-")
                raise click.UsageError(f"--model decides --{option} too: give one of them.", ctx)
    print_report(job.run(photos, index, job.EmbedConfig(**settings), address=address))
