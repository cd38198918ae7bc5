"""`retrieval-cli train`."""

from __future__ import annotations

import re
from typing import Any

import click

from pipelines.cli.numbers import number
from pipelines.cli.shared import (
    dry_run_option,
    normalising_options,
    print_report,
    say,
    site_options,
)
from pipelines.ray_runtime.cluster_options import Site
from retrieval.ranges import COUNT, DECAY, EPOCHS, MANY, NOT_NEGATIVE, POSITIVE, SEED, SHARE, SIDE

__all__ = ["train"]


def _parse_workers(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> int | tuple[int, int] | None:
    if value is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,5})(?:-([1-9][0-9]{0,5}))?", value)
    if not found or (found[2] and int(found[2]) < int(found[1])):
        raise click.BadParameter(
            f"{value!r} is neither a number nor a range, as in 2 or 1-4.", ctx, param
        )
    return (int(found[1]), int(found[2])) if found[2] else int(found[1])


def _parse_validation(ctx: click.Context, param: click.Parameter, value: str) -> str | float:
    try:
        fraction = float(value)
    except ValueError:
        return value  # a folder
    if not 0 < fraction < 1:
        raise click.BadParameter(
            f"{value} is no share between 0 and 1; a folder called so is ./{value}.", ctx, param
        )
    return fraction


@click.command()
@click.argument("photos")
@click.argument("model")
@click.option(
    "--backbone",
    default="resnet18",
    show_default=True,
    help="resnet18, resnet50, resnet101, resnet152, resnext101_32x8d, wide_resnet101_2, "
    "googlenet, or package.module:function for a network of your own, which Python finds by "
    "PYTHONPATH. It may state the preprocessing that it needs, in a dict `preprocessing` with "
    "size, mean, std.",
)
@click.option(
    "--mode",
    type=click.Choice(["full", "last-layer", "from-scratch"]),
    default="full",
    show_default=True,
    help="What learns: every weight; the head alone; or every weight, from random ones.",
)
@click.option(
    "--weights",
    help="Where training starts: imagenet (from torchvision's cache, or downloaded), none "
    "(random), or a .safetensors or .pth state dict. [default: imagenet; none from scratch, and "
    "of your own network what the function returns]",
)
@click.option("--epochs", default=10, show_default=True, type=number(EPOCHS))
@click.option(
    "--num-workers",
    callback=_parse_workers,
    help="Workers that train together, or a range such as 1-4: as many as there are GPUs at "
    "the time; without GPUs the most. [default: one a GPU, or one a node]",
)
@click.option(
    "--recipe",
    default="none",
    show_default=True,
    help="Augmentation on the fly: none, light (keeps the label), paper (one of all techniques "
    "a photo), or a YAML file.",
)
@click.option(
    "--validation",
    default="0.2",
    show_default=True,
    callback=_parse_validation,
    help="Share of each class to hold out, or a folder of validation photos.",
)
@click.option(
    "--image-size",
    show_default="the network's, or 224",
    type=number(SIDE, low=32),
    help="Side of the network's input in pixels.",
)
@normalising_options
@click.option(
    "--decoder",
    type=number(COUNT),
    help="Version of the rules by which photos are read. [default: the newest, or that of what "
    "was begun there]",
)
@click.option(
    "--loss",
    type=click.Choice(["cross-entropy", "arcface", "multi-similarity"]),
    default="cross-entropy",
    show_default=True,
)
@click.option(
    "--sampler",
    type=click.Choice(["shuffled", "balanced"]),
    default="shuffled",
    show_default=True,
    help="balanced: four photos of each class of a batch, small classes as often as large ones.",
)
@click.option(
    "--batch-size",
    default=32,
    show_default=True,
    type=number(MANY, low=2),
    help="Photos of a step, over all workers together.",
)
@click.option(
    "--optimizer",
    type=click.Choice(["adam", "adamw", "sgd"]),
    default="adam",
    show_default=True,
)
@click.option(
    "--learning-rate",
    default=1e-4,
    show_default=True,
    type=number(POSITIVE),
)
@click.option(
    "--lr-decay",
    default=0.96,
    show_default=True,
    type=number(DECAY),
    help="Factor from one epoch to the next.",
)
@click.option(
    "--warmup-epochs",
    default=0.0,
    show_default=True,
    type=number(NOT_NEGATIVE),
    help="Over which the learning rate rises from near 0.",
)
@click.option("--weight-decay", default=0.0, show_default=True, type=number(NOT_NEGATIVE))
@click.option(
    "--dropout",
    default=0.5,
    show_default=True,
    type=number(SHARE),
    help="Share of the head's inputs dropped.",
)
@click.option(
    "--label-smoothing",
    default=0.0,
    show_default=True,
    type=number(SHARE),
    help="For cross-entropy.",
)
@click.option(
    "--batch-norm",
    type=click.Choice(["train", "frozen"]),
    default="train",
    show_default=True,
    help="Whether statistics of batch normalisation follow the photos. With --mode last-layer "
    "they are all that changes the embeddings: frozen leaves these as they were.",
)
@click.option(
    "--photos-per-class",
    type=number(COUNT),
    help="Original photos to train on in a class. [default: all]",
)
@click.option(
    "--follow-links",
    is_flag=True,
    help="Follow links that lead out of the folders of photos too; otherwise each is a reject.",
)
@click.option(
    "--labels",
    default="folder",
    show_default=True,
    help="folder (the first folder of the path), pattern:REGEX, or a CSV or Parquet file.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="bfloat16 is for GPUs: about twice as fast, half the memory.",
)
@click.option(
    "--channels-last/--channels-first",
    default=True,
    show_default=True,
    help="How images lie in memory; first is faster for some networks on some CPUs.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=number(SEED),
    help="Of everything that is random.",
)
@click.option(
    "--max-failures",
    default=3,
    show_default=True,
    type=number(COUNT, low=0),
    help="How often workers that died are started again.",
)
@click.option("--tensorboard", help="Folder for TensorBoard's event files.")
@dry_run_option
@site_options
def train(photos: str, model: str, site: Site, dry_run: bool, **settings: Any) -> None:  # noqa: ANN401
    """Fine-tune a network on photos in class folders.

    PHOTOS has one folder a class; it may be what `augment` wrote as class folders (not as
    Parquet): copies of a photo that is held out are not trained on, and their names tell them
    where the hidden list stayed behind. MODEL becomes a folder that `embed --model` takes: the
    epoch that retrieved best among the validation photos, its learning curves and its figures.
    Killed, and run again with the same settings, training goes on after its last epoch; the
    content of a recipe, of labels and of weights is compared, and not the name of the file.

    \b
    Example:
        retrieval-cli train photos/gallery model --backbone resnet50 --epochs 20 --recipe light
        retrieval-cli train photos/gallery model --mode last-layer --batch-norm frozen
        retrieval-cli train photos/gallery model --loss multi-similarity --sampler balanced
        retrieval-cli train s3://bucket/photos s3://bucket/model --num-workers 2-8
        retrieval-cli train photos/gallery model --backbone networks:mine --mean 0.5,0.5,0.5
    """
    from pipelines.train import TrainConfig, Workers, estimate, run
    from pipelines.train.tensorboard import check_folder, event_writer

    workers = Workers(**{name: settings.pop(name) for name in ("num_workers", "max_failures")})
    tensorboard = settings.pop("tensorboard")
    config = TrainConfig(**settings)
    check_folder(tensorboard, photos, model, config)
    if dry_run:
        print_report(estimate(photos, model, config, workers, site=site))
        return
    with event_writer(tensorboard) as on_epoch:
        report = run(photos, model, config, workers, site=site, say=say, on_epoch=on_epoch)
    print_report(report, result=model)
