"""Running Ray Train: how its workers are connected, and what is shown meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil
import ray
import torch
from ray.actor import ActorHandle
from ray.train import CheckpointConfig as KeptCheckpoints
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from pipelines.progress import live_line
from pipelines.ray_runtime.nodes import beside_the_driver, no_gpu_found
from pipelines.ray_runtime.wait import start_text
from pipelines.train.failures import EndsAtOnce, meaning
from pipelines.train.placement import Placement, WorkerPlan
from pipelines.train.worker import Journal, train_worker
from retrieval.storage import join, open_store

__all__ = ["ConnectionConfig", "Outcome", "run_trainer"]

RUN_NAME = "run"  # Ray Train goes on with the run that it finds under this name
_POLL_S = 0.5

# For the processes that Ray Train starts; a user's own setting wins.
_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # an epoch waits for it; its default is 2
    # Waiting for room, not for torch. Then an elastic training looks anew what there is: a node
    # that has just gone is counted for some seconds more, and nobody would ever fill its place.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a network of one's own may read files beside where one stands
}


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        checkpoint: The last one; None if no epoch was finished.
        diverged: Where what stopped being a number, as a clause: "in epoch 3 the loss is nan by
            step 12"; None if nothing did.
    """

    checkpoint: ray.train.Checkpoint | None
    diverged: str | None


def run_trainer(
    plan: WorkerPlan,
    place: Placement,
    folder: str,
    *,
    max_failures: int,
    on_epoch: Callable[[dict[str, Any]], None],
) -> Outcome:
    """Train, or go on with what a folder holds. Needs a connected Ray.

    Args:
        plan: For the workers.
        place: Where they go.
        folder: Of the checkpoints; local, or an object store where several machines train.
        max_failures: How often workers that died are started again.
        on_epoch: Called in this thread with the record of each epoch as it ends.

    Raises:
        RetrievalError: what a worker raised; what else went wrong, as ClusterError.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    filesystem, path = open_store(folder)
    journal = Journal.options(**beside_the_driver()).remote()  # type: ignore[attr-defined]
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"plan": plan, "journal": journal},
        torch_config=ConnectionConfig(),
        scaling_config=ScalingConfig(
            num_workers=place.num_workers,
            use_gpu=bool(place.num_gpus),
            resources_per_worker={
                name: amount
                for name, amount in (("CPU", place.num_cpus), ("GPU", place.num_gpus))
                if amount
            },
            # On CPUs one worker a node; what they book would let one node have all of them.
            placement_strategy="PACK" if place.num_gpus else "SPREAD",
            **plan.site.label_options,
        ),
        run_config=RunConfig(
            name=RUN_NAME,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=KeptCheckpoints(num_to_keep=1),  # it holds the best weights too
            callbacks=[EndsAtOnce()],
        ),
    )
    try:
        result = _fit(trainer, journal, plan.config.epochs, on_epoch, on_gpus=bool(place.num_gpus))
    except TrainingFailedError as error:
        raise meaning(error, join(folder, RUN_NAME)) from error
    diverged = (result.return_value or {}).get("diverged")
    return Outcome(result.checkpoint, diverged)


def _fit(
    trainer: TorchTrainer,
    journal: ActorHandle,
    epochs: int,
    on_epoch: Callable[[dict[str, Any]], None],
    *,
    on_gpus: bool,
) -> ray.train.Result:
    """Run the trainer in a thread of its own.

    In the main thread it would replace the handler of ctrl-C by one that neither raises nor is
    ever taken back.
    """
    ended: dict[str, Any] = {}

    def fit() -> None:
        try:
            ended["result"] = trainer.fit()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            ended["error"] = error

    thread = threading.Thread(target=fit, daemon=True)
    num_seen, step, start = 0, (0, 0, 0), time.monotonic()

    def text() -> str:
        epoch, done, num_steps = step
        if not epoch:
            return start_text("the workers", start, on_gpus=on_gpus)
        return f"epoch {epoch} of {epochs}: step {done} of {num_steps}"

    with live_line("starting the workers", text):
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_S)
            step, records = ray.get(journal.read.remote(num_seen))
            for record in records:
                on_epoch(record)
            num_seen += len(records)
    if "error" in ended:
        raise ended["error"]
    return ended["result"]


if TYPE_CHECKING:
    from ray.train._internal.base_worker_group import BaseWorkerGroup


class ConnectionConfig(TorchConfig):
    """Ray Train's own configuration of torch, on the interface of the node's address.

    On CPUs torch uses gloo, which listens where the name of its machine leads to. On many machines
    that is 127.0.0.1 or 127.0.1.1 (Debian's /etc/hosts), and workers of two machines would never
    meet. Before they are connected, their GPUs are looked at too.
    """

    @property
    def backend_cls(self) -> type:
        """What Ray Train makes to connect the workers."""
        return _Backend


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    def on_start(self, worker_group: BaseWorkerGroup, backend_config: TorchConfig) -> None:
        worker_group.execute(check_gpu)
        worker_group.execute(choose_interface)
        super().on_start(worker_group, backend_config)


def check_gpu() -> None:
    """Raise ClusterError where this worker has booked a GPU that torch does not find."""
    if ray.get_gpu_ids() and not torch.cuda.is_available():
        raise no_gpu_found()


def choose_interface() -> None:
    """Name gloo the interface with this node's address; a user's own choice wins."""
    address = ray.util.get_node_ip_address()
    for name, found in psutil.net_if_addrs().items():
        if any(one.address == address for one in found):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
