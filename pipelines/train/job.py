"""The job: what is checked before training, and what is written after it.

Reads       every labelled photo once to examine it, then once an epoch; decoded and augmented
            by Ray Data on the cluster's CPUs while Ray Train's workers compute.
Writes      a model folder: weights.safetensors and model.json; beside them metrics.jsonl,
            learning-curve.png, split.parquet (which photo was on which side) and rejects.parquet.
            While it runs, MODEL/training holds the last checkpoint.
Resources   one worker a GPU, or one a node; memory is bounded by the batches.
Resume      run the same command again: training goes on after the last finished epoch, with
            the very batches that it would have had. Workers that die are started again.
Fails when  there are fewer than two classes or nothing to validate on, weights do not fit, the
            loss is no number (the best epoch until then is published all the same), or the
            output cannot be written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipelines.metrics import Laps
from pipelines.progress import status_line
from pipelines.ray_runtime.cluster_options import Site
from pipelines.ray_runtime.nodes import resources
from pipelines.ray_runtime.session import session
from pipelines.train.config import TrainConfig, Workers
from pipelines.train.contents import with_contents
from pipelines.train.network import build_network, preprocessing_of, settled
from pipelines.train.placement import Placement, WorkerPlan, place_workers
from pipelines.train.places import check_places, checkpoints_of
from pipelines.train.publishing import (
    finished_model,
    publish,
    resume_split,
    say_changes,
    start_folder,
    with_decoder,
)
from pipelines.train.report import TrainCounts, TrainReport
from pipelines.train.split import Split, split_photos
from pipelines.train.trainer import run_trainer
from retrieval.augmentations import load_recipe
from retrieval.errors import UsageError
from retrieval.models.folder import ModelFolder
from retrieval.models.own_networks import describe_preprocessing
from retrieval.storage import absolute_uri, check_writable, join
from retrieval.training.network import TrainingNetwork, check_share
from retrieval.training.sampling import epoch_batches
from retrieval.training.splitting import LEFT_OUT, TRAINING, VALIDATION

__all__ = ["check_batches", "run"]


def run(  # noqa: PLR0913 - every job has `site`
    photos: str,
    model: str,
    config: TrainConfig,
    workers: Workers = Workers(),
    *,
    site: Site = Site(),
    say: Callable[[str], None] = lambda line: None,
    on_epoch: Callable[[Mapping[str, Any]], None] = lambda record: None,
) -> TrainReport:
    """Train a network and publish its best epoch as a model folder.

    Args:
        photos: Folder or address of the photos, one folder a class.
        model: Folder or address of the model.
        config: What decides the model, together with the number of workers.
        workers: Who trains.
        site: Where it runs.
        say: Called with one line for what a person should know: files left out, each epoch.
        on_epoch: Called with the figures of each epoch as it ends.

    Returns:
        The report: where things are, counts, figures of the best epoch, seconds.

    Raises:
        RetrievalError: see the head of this module.
    """
    start, laps = time.monotonic(), Laps()
    photos, model = absolute_uri(photos), absolute_uri(model)
    given, config = config.given_preprocessing, with_decoder(settled(config), model)
    settings = with_contents({"photos": photos, **config.recorded()}, config)
    if found := finished_model(model, settings):
        say_changes(photos, model, config, say)
        return _report(found, given, None, None, start)
    check_places(photos, model, config)
    check_writable(model)
    split = resume_split(model, settings)
    recipe = load_recipe(config.recipe)
    with status_line(f"loading {config.backbone}"):
        network = build_network(config, num_classes=2)  # its errors end the job before Ray starts
    laps.end("load_model")

    with session(site):
        place = place_workers(resources(site), workers.num_workers)
        laps.end("start_ray")
        if split is None:
            split = split_photos(photos, config, say, site)
            check_batches(split, config, place, network)
            start_folder(model, split, settings)
        else:
            say(f"{model}: going on with the training that was begun there")
        laps.end("examine")
        plan = WorkerPlan(
            config=config,
            recipe=recipe,
            classes=tuple(split.classes_of(TRAINING)),
            num_threads=place.num_threads,
            num_decoders=place.num_decoders,
            split_uri=join(model, "split.parquet"),
            metrics_uri=join(model, "metrics.jsonl"),
            site=site,
        )

        outcome = run_trainer(
            plan,
            place,
            checkpoints_of(model),
            max_failures=workers.max_failures,
            on_epoch=_tell(say, on_epoch, config.epochs),
        )
        laps.end("train")
        published = publish(model, plan, settings, outcome)
    counts = TrainCounts(
        num_training=split.count(TRAINING),
        num_validation=split.count(VALIDATION),
        num_left_out=split.count(LEFT_OUT),
        num_rejected=split.rejects.num_rows,
    )
    return _report(published, given, counts, laps.seconds, start)


def _tell(
    say: Callable[[str], None], on_epoch: Callable[[Mapping[str, Any]], None], epochs: int
) -> Callable[[dict[str, Any]], None]:
    """What is done with the record of each epoch."""

    def tell(record: dict[str, Any]) -> None:
        say(_describe_epoch(record, epochs))
        on_epoch(record)

    return tell


def check_batches(
    split: Split, config: TrainConfig, place: Placement, network: TrainingNetwork
) -> None:
    """Every worker needs photos of each batch to learn from, and one to validate; UsageError."""
    wanted = place.num_workers
    most = wanted if isinstance(wanted, int) else wanted[1]
    smallest = min(config.batch_size, split.count(TRAINING), split.count(VALIDATION))
    if most > smallest:
        raise UsageError(
            f"`num_workers` {most}: the smallest of batch ({config.batch_size}), training photos "
            f"({split.count(TRAINING)}) and validation photos ({split.count(VALIDATION)}) is "
            f"{smallest}, and each worker needs one of each. Use at most {smallest} workers."
        )
    share = min(config.batch_size, split.count(TRAINING)) // most
    if share < 2:  # the smallest, of the last worker
        check_share(network, preprocessing_of(config).size, share)
    _, codes = np.unique(split.labels_of(TRAINING), return_inverse=True)
    epoch_batches(
        codes, batch_size=config.batch_size, sampler=config.sampler, seed=config.seed, epoch=0
    )


def _report(
    model: ModelFolder,
    given: Mapping[str, Any],
    counts: TrainCounts | None,
    steps: Mapping[str, float] | None,
    start: float,
) -> TrainReport:
    return TrainReport(
        model=model.uri,
        fingerprint=model.fingerprint,
        backbone=model.backbone,
        mode=model.mode,
        dim=model.dim,
        preprocessing=describe_preprocessing(model.preprocessing, given),
        num_classes=len(model.classes),
        epochs=model.training["epochs_done"],
        best=dict(model.metrics),
        metrics=join(model.uri, "metrics.jsonl"),
        learning_curve=join(model.uri, "learning-curve.png"),
        rejects=join(model.uri, "rejects.parquet"),
        counts=counts,
        steps=steps,
        seconds=round(time.monotonic() - start, 1),
    )


def _describe_epoch(record: Mapping[str, Any], epochs: int) -> str:
    """One line on an epoch, for people."""
    seconds = record["train_s"] + record["validate_s"]
    best = ", best so far" if record["is_best"] else ""
    found = [f"top-{k} {record[f'top_{k}']:.3f}" for k in (1, 3, 10) if record["top_1"] is not None]
    return (
        f"epoch {record['epoch']}/{epochs}: loss {record['loss']:.3f}, accuracy "
        f"{record['accuracy']:.3f}; validation: loss {record['validation_loss']:.3f}, accuracy "
        f"{record['validation_accuracy']:.3f}, retrieval {' '.join(found) or 'not measured'} "
        f"({seconds:.1f} s{best})"
    )
