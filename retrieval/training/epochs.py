"""One pass over the training photos, and one over the validation photos.

A worker sees its share of every batch. Its loss is weighed by the size of that share, so that
the average over workers, which is what their gradients are averaged to, is the mean over the
whole batch, however unevenly it was dealt out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn, optim

from retrieval.errors import TrainingError
from retrieval.images import Preprocessing
from retrieval.models.network_input import as_network_input
from retrieval.training.network import TrainingNetwork

__all__ = [
    "Device",
    "EpochFigures",
    "JudgedPhotos",
    "PhotoBatch",
    "judge_photos",
    "train_epoch",
]

# Reading a loss back waits for the GPU, so it is done once in so many steps.
_CHECK_EVERY_STEPS = 50


@dataclass(frozen=True, eq=False)
class PhotoBatch:
    """A worker's share of a batch.

    Attributes:
        pixels: uint8 (B, S, S, 3).
        labels: int64 (B,).
        num_photos: Of the whole batch, over all workers.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    num_photos: int


@dataclass(frozen=True)
class Device:
    """Where and how a network computes.

    Attributes:
        torch_device: CPU or GPU.
        preprocessing: Turns pixels into the network's input.
        precision: "float32", or "bfloat16" for the convolutions.
        channels_last: Whether images lie in memory pixel by pixel, not plane by plane.
    """

    torch_device: torch.device
    preprocessing: Preprocessing
    precision: str = "float32"
    channels_last: bool = True

    def images(self, pixels: NDArray[np.uint8]) -> Tensor:
        """uint8 (B, S, S, 3) → float32 (B, 3, S, S) on the device."""
        images = as_network_input(pixels, self.preprocessing, self.torch_device)
        kind = torch.channels_last if self.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=kind)

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(
            self.torch_device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )


@dataclass(frozen=True)
class EpochFigures:
    """What one pass over the training photos gave, over all workers.

    Attributes:
        loss: Mean over the photos.
        accuracy: Share of the photos whose largest logit was their class.
        num_photos: Photos seen.
        wait_s: Seconds that this worker did not compute: it waited for photos.
        step_s: Median seconds of this worker's steps, without the wait.
    """

    loss: float
    accuracy: float
    num_photos: int
    wait_s: float
    step_s: float


def train_epoch(
    network: nn.Module,
    optimizer: optim.Optimizer,
    batches: Iterable[PhotoBatch],
    device: Device,
    *,
    rate_at: Callable[[int], float],
    on_step: Callable[[int], None],
) -> EpochFigures:
    """Train on the batches of one epoch.

    Args:
        network: A TrainingNetwork, alone or inside DistributedDataParallel.
        optimizer: Over its weights.
        batches: This worker's shares; every worker has as many.
        device: Of the network.
        rate_at: Learning rate of a step.
        on_step: Called with the number of steps done.

    Raises:
        TrainingError: the loss is no finite number; on all workers in the same step.
    """
    network.train()
    num_workers = dist.get_world_size() if dist.is_initialized() else 1
    totals = torch.zeros(3, dtype=torch.float64, device=device.torch_device)
    steps_s: list[float] = []
    step, start = 0, time.perf_counter()
    for batch in batches:
        ready = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step)
        labels = torch.tensor(batch.labels, device=device.torch_device)
        with device.autocast():
            answer = network(device.images(batch.pixels), labels)
        optimizer.zero_grad(set_to_none=True)
        (answer.loss * (len(labels) * num_workers / batch.num_photos)).backward()
        optimizer.step()
        hits = (answer.logits.argmax(dim=1) == labels).sum()
        with torch.no_grad():
            totals += torch.stack(
                [answer.loss.double() * len(labels), hits, hits * 0 + len(labels)]
            )
        step += 1
        if step % _CHECK_EVERY_STEPS == 0:
            _check_finite(totals, step)
        on_step(step)
        steps_s.append(time.perf_counter() - ready)
    loss, num_hits, num_photos = _check_finite(totals, step)
    return EpochFigures(
        loss=loss / num_photos,
        accuracy=num_hits / num_photos,
        num_photos=int(num_photos),
        wait_s=time.perf_counter() - start - sum(steps_s),
        step_s=float(np.median(steps_s)),
    )


def _check_finite(totals: Tensor, step: int) -> list[float]:
    """The sums over all workers; every worker calls this in the same steps."""
    sums = totals.clone()
    if dist.is_initialized():
        dist.all_reduce(sums)
    values = [float(value) for value in sums.tolist()]
    if not np.isfinite(values[0]):
        raise TrainingError(f"the loss is {values[0]} by step {step}")
    return values


@dataclass(frozen=True, eq=False)
class JudgedPhotos:
    """What a network says of validation photos.

    Attributes:
        features: float32 (N, D).
        labels: int64 (N,).
        losses: float64 (N,), of the photo's batch.
        hits: bool (N,), whether the largest logit is the photo's class.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    losses: NDArray[np.float64]
    hits: NDArray[np.bool_]

    @classmethod
    def concatenate(cls, parts: Sequence[JudgedPhotos]) -> JudgedPhotos:
        """Those of several workers or batches as one."""
        return cls(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            )
        )


@torch.inference_mode()
def judge_photos(
    network: TrainingNetwork, batches: Iterable[PhotoBatch], device: Device
) -> JudgedPhotos:
    """Run validation photos through the network; at least one batch."""
    network.eval()
    found = []
    for batch in batches:
        labels = torch.tensor(batch.labels, device=device.torch_device)
        with device.autocast():
            answer = network(device.images(batch.pixels), labels)
        hits = answer.logits.argmax(dim=1) == labels
        found.append(
            JudgedPhotos(
                answer.features.float().cpu().numpy(),
                batch.labels,
                np.full(len(batch.labels), float(answer.loss)),
                hits.cpu().numpy(),
            )
        )
    return JudgedPhotos.concatenate(found)
