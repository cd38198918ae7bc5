"""`retrieval-cli train`."""

from __future__ import annotations

import click

from pipelines.cli.options import options
from pipelines.cli.shared import dry_run_option, print_report, say, site_options
from pipelines.ray_runtime.cluster_options import Site
from pipelines.train.config import TrainConfig, Workers

__all__ = ["train"]


@click.command()
@click.argument("photos")
@click.argument("model")
@options(config=TrainConfig)
@options(workers=Workers)
@click.option("--tensorboard", help="Folder for TensorBoard's event files.")
@dry_run_option
@site_options
def train(
    photos: str,
    model: str,
    *,
    config: TrainConfig,
    workers: Workers,
    tensorboard: str | None,
    dry_run: bool,
    site: Site,
) -> None:
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
    from pipelines.train import estimate, run
    from pipelines.train.tensorboard import check_folder, event_writer

    check_folder(tensorboard, photos, model, config)
    if dry_run:
        print_report(estimate(photos, model, config, workers, site=site))
        return
    with event_writer(tensorboard) as on_epoch:
        report = run(photos, model, config, workers, site=site, say=say, on_epoch=on_epoch)
    print_report(report, result=model)
