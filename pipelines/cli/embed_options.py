"""Options that all commands have which embed photos."""

from __future__ import annotations

from collections.abc import Callable

import click

from pipelines.cli.numbers import number
from pipelines.cli.shared import normalising_options
from retrieval.ranges import COUNT, MANY, SEED, SIDE

__all__ = ["check_model", "embed_options"]

_Command = Callable[..., None]

_OPTIONS: list[Callable[[_Command], _Command]] = [
    click.option(
        "--model",
        help="Folder that `retrieval-cli train` has made: its network, weights and preprocessing. "
        "A network of your own is named too, by --backbone: no folder has its code run alone.",
    ),
    click.option(
        "--new-model",
        is_flag=True,
        help="Allow another model, size, type or seed than the index was embedded by: all images "
        "are embedded anew.",
    ),
    click.option(
        "--backbone",
        show_default="that of the index, or the model's; resnet18",
        help="resnet18, resnet50, resnet101, resnet152, resnext101_32x8d, wide_resnet101_2, "
        "googlenet, or package.module:function for a network of your own, which Python finds by "
        "PYTHONPATH. The network may state the preprocessing that it needs, in a dict "
        "`preprocessing` with size, mean, std.",
    ),
    click.option(
        "--weights",
        show_default="those of the index; imagenet, or what your own function returns",
        help="imagenet (from torchvision's cache, or downloaded), none (random), or a .safetensors "
        "or .pth state dict.",
    ),
    click.option(
        "--seed",
        type=number(SEED),
        show_default="that of the index; 0",
        help="Seed of random weights.",
    ),
    click.option(
        "--image-size",
        show_default="that of the index, the model or the network; 224",
        type=number(SIDE),
        help="Side in pixels of the square to which a photo is stretched.",
    ),
    normalising_options,
    click.option(
        "--decoder",
        show_default="that of the index, or the model's; 1",
        type=number(COUNT),
        help="Version of the rules by which photos are read.",
    ),
    click.option(
        "--labels",
        default="folder",
        show_default=True,
        help="folder (the first folder of the path), none, pattern:REGEX (its first group, in the "
        "file's name), or a CSV or Parquet file with image_id and label.",
    ),
    click.option(
        "--follow-links",
        is_flag=True,
        help="Follow links that lead out of PHOTOS too; otherwise each is a reject.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float16", "float32"]),
        show_default="that of the index; float16",
        help="Stored type of a component.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        show_default=True,
        help="In which the network computes. auto: float16 on a GPU, bfloat16 on a CPU that has "
        "it, else float32; each worker compares photos of its first batch with float32, and falls "
        "back to it where a cosine is below 0.999.",
    ),
    click.option(
        "--batch-size",
        type=number(MANY),
        help="Photos in a forward pass. [default: 8, on a GPU 256; halved where a GPU has not "
        "enough memory]",
    ),
    click.option(
        "--num-actors",
        type=number(MANY),
        help="Copies of the network. [default: one a GPU, or one per 16 CPUs]",
    ),
    click.option(
        "--verify-content",
        is_flag=True,
        help="Read every photo: its content alone decides whether it has changed, not its size and "
        "time.",
    ),
    click.option(
        "--heal",
        is_flag=True,
        help="Read every shard of the index, and embed again what damaged ones held.",
    ),
    click.option(
        "--rebase",
        is_flag=True,
        help="If another run commits meanwhile, go on from its version instead of failing.",
    ),
]


def embed_options(command: _Command) -> _Command:
    """Add the options to a command, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_model(ctx: click.Context, model: str | None, decided: tuple[str, ...]) -> None:
    """Refuse an option that the folder of a model decides."""
    for name in decided if model is not None else ():
        if ctx.params[name] is not None:
            option = name.replace("_", "-")
            raise click.UsageError(f"--model decides --{option} too: give one of them.", ctx)
