"""What each worker of `train` does: epochs, validation, a checkpoint after each epoch.

All that is random is a function of (seed, epoch, photo), so a worker that starts again from
the checkpoint of an epoch goes on exactly as the killed one would have done.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train.torch
import torch
import torch.distributed as dist
from ray.actor import ActorHandle
from torch import nn

from pipelines.train.config import TrainConfig
from pipelines.train.network import build_network, preprocessing_of
from pipelines.train.photos import TrainingPhotos
from pipelines.train.placement import WorkerPlan
from pipelines.train.prefetcher import StreamsAhead
from retrieval.errors import TrainingError
from retrieval.storage import write_bytes
from retrieval.training.checkpoints import Progress, is_better, load_checkpoint
from retrieval.training.epochs import (
    Device,
    JudgedPhotos,
    PhotoBatch,
    judge_photos,
    train_epoch,
)
from retrieval.training.network import has_unused_weights
from retrieval.training.optimizer import Schedule, build_optimizer
from retrieval.training.sampling import seed_of
from retrieval.training.validation import validation_figures

__all__ = ["Journal", "train_worker"]

# Starting a stream takes 0.5 s on two cores: some two steps of resnet18 there, even at 64 pixels.
_BATCHES_AHEAD = 4


@ray.remote(num_cpus=0)
class Journal:
    """What the driver shows while workers train."""

    def __init__(self) -> None:
        self._step = (0, 0, 0)
        self._records: list[dict[str, Any]] = []

    def step(self, epoch: int, step: int, num_steps: int) -> None:
        """Note how far an epoch is."""
        self._step = (epoch, step, num_steps)

    def record(self, record: dict[str, Any]) -> None:
        """Note a finished epoch."""
        self._records.append(record)

    def read(self, start: int) -> tuple[tuple[int, int, int], list[dict[str, Any]]]:
        """The last step, and the records from a number on."""
        return self._step, self._records[start:]


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Train from the last checkpoint to the last epoch; runs in every worker.

    Args:
        config: "plan": WorkerPlan, "journal": handle of a Journal.

    Returns:
        {"diverged": None}, or a clause that says in which epoch what was no number any more; the
        checkpoint of the last good epoch is the last one reported then.
    """
    plan: WorkerPlan = config["plan"]
    if not torch.cuda.is_available():
        torch.set_num_threads(plan.num_threads)
    worker = _Worker(plan, config["journal"])
    epochs = range(len(worker.progress.history), plan.config.epochs)
    with StreamsAhead(worker.photos.streams(epochs), _BATCHES_AHEAD) as streams:
        for epoch in epochs:
            try:
                record = worker.run_epoch(epoch, streams)
            except TrainingError as error:
                return {"diverged": f"in epoch {epoch + 1} {error}"}
            worker.keep(record)
    return {"diverged": None}


class _Worker:
    """One worker's network, optimizer and photos."""

    def __init__(self, plan: WorkerPlan, journal: ActorHandle) -> None:
        context = ray.train.get_context()
        self.config, self.journal, self.metrics_uri = plan.config, journal, plan.metrics_uri
        self.rank, self.num_workers = context.get_world_rank(), context.get_world_size()
        config = plan.config
        self.device = Device(
            ray.train.torch.get_device(),
            preprocessing_of(config),
            config.precision,
            config.channels_last,
        )
        self.network = build_network(plan.config, len(plan.classes))
        if config.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
        self.network.to(self.device.torch_device)
        self.optimizer = build_optimizer(
            config.optimizer,
            self.network.parameters(),
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.progress = self._resume()
        self.trained: nn.Module = self.network
        if self.num_workers > 1:
            # Only where need be: it has each step look for them.
            finds_unused = has_unused_weights(self.network, preprocessing_of(config).size)
            self.trained = ray.train.torch.prepare_model(
                self.network,
                move_to_device=False,
                parallel_strategy_kwargs={"find_unused_parameters": finds_unused},
            )
        self.photos = TrainingPhotos(plan, self.rank, self.num_workers)

    def _resume(self) -> Progress:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return Progress()
        with checkpoint.as_directory() as folder:
            return load_checkpoint(Path(folder), self.network, self.optimizer)

    def run_epoch(self, epoch: int, streams: StreamsAhead[PhotoBatch]) -> dict[str, Any]:
        """Train and validate on the next two streams; the same record on every worker."""
        start, schedule = time.perf_counter(), _schedule(self.config)
        # Dropout: the same draws again after a restart, others for each worker.
        torch.manual_seed(seed_of(self.config.seed, "dropout", epoch, self.rank))
        num_steps = self.photos.num_steps
        figures = train_epoch(
            self.trained,
            self.optimizer,
            streams.next_stream(),
            self.device,
            rate_at=lambda step: schedule.at(epoch, step, num_steps),
            on_step=partial(self._note, epoch, num_steps),
        )
        trained = time.perf_counter()
        record = {
            "epoch": epoch + 1,
            "loss": figures.loss,
            "accuracy": figures.accuracy,
            **self._validate(streams.next_stream()),
            "learning_rate": schedule.at(epoch, num_steps - 1, num_steps),
            "num_photos": figures.num_photos,
            "num_steps": num_steps,
            "num_workers": self.num_workers,
            "train_s": round(trained - start, 3),
            "wait_s": round(figures.wait_s, 3),
            "step_s": round(figures.step_s, 4),
            "validate_s": round(time.perf_counter() - trained, 3),
        }
        best = self.progress.best
        return {**record, "is_best": best is None or is_better(record, best)}

    def _note(self, epoch: int, num_steps: int, step: int) -> None:
        if self.rank == 0:
            self.journal.step.remote(epoch + 1, step, num_steps)

    def _validate(self, batches: Iterator[PhotoBatch]) -> dict[str, float | None]:
        if self.num_workers > 1:
            for value in self.network.buffers():  # statistics differ by worker; rank 0's count
                dist.broadcast(value, src=0)
        found = judge_photos(self.network, batches, self.device)
        if self.num_workers > 1:
            parts: list[Any] = [None] * self.num_workers
            dist.all_gather_object(parts, found)
            found = JudgedPhotos.concatenate(parts)
        return validation_figures(found)

    def keep(self, record: dict[str, Any]) -> None:
        """Make the epoch lasting: checkpoint first, then the figures for people."""
        self.progress.add(record, self.network)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = None
            if self.rank == 0:
                self.progress.save(Path(folder), self.network, self.optimizer)
                checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(record, checkpoint)  # waits for all workers and for the upload
        # ... but not for the controller to note it, without which a restart would not know it.
        ray.train.get_all_reported_checkpoints()
        if self.rank == 0:
            lines = "".join(json.dumps(line) + "\n" for line in self.progress.history)
            write_bytes(self.metrics_uri, lines.encode())
            self.journal.record.remote(record)


def _schedule(config: TrainConfig) -> Schedule:
    return Schedule(
        learning_rate=config.learning_rate,
        decay=config.lr_decay,
        warmup_epochs=config.warmup_epochs,
    )
