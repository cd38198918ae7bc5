"""A backbone with an objective on top, and which of its weights learn.

full, from-scratch  every weight learns.
last-layer          the head alone learns. As the head is cut off before embedding, the features
                    then change only through the statistics of batch normalisation (means and
                    variances), which a forward pass in training mode updates although nothing
                    there has a gradient. `batch_norm="train"` lets them, as the usual scripts
                    do without saying so; "frozen" keeps them, and then the embeddings stay
                    those of the network before training, to the last bit.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from retrieval.choices import BATCH_NORMS, MODES
from retrieval.errors import UsageError
from retrieval.models.backbones import BackboneSpec, build_backbone
from retrieval.training.objectives import (
    HeadSettings,
    MultiSimilarity,
    Objective,
    build_objective,
)

__all__ = ["BATCH_NORMS", "TrainingNetwork", "build_network", "check_share", "has_unused_weights"]


class Answer(NamedTuple):
    """loss float32 scalar, logits float32 (B, classes), features float32 (B, D)."""

    loss: Tensor
    logits: Tensor
    features: Tensor


class TrainingNetwork(nn.Module):
    """Images float32 (B, 3, S, S) and labels int64 (B,) → loss, logits and features."""

    def __init__(
        self, body: nn.Module, objective: Objective, *, learns_body: bool, batch_norm: str
    ) -> None:
        super().__init__()
        self.body = body.requires_grad_(learns_body)
        self.objective = objective
        self._freezes_statistics = batch_norm == "frozen"

    def forward(self, images: Tensor, labels: Tensor) -> Answer:
        """Judge a batch."""
        # Half precision is for the convolutions: losses add up many small terms.
        features = self.body(images).float()
        with torch.autocast(images.device.type, enabled=False):
            loss, logits = self.objective(features, labels)
        return Answer(loss, logits, features)

    def train(self, mode: bool = True) -> TrainingNetwork:
        """Set training or evaluation mode; frozen statistics stay in evaluation mode."""
        super().train(mode)
        if self._freezes_statistics:
            for module in self.body.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def build_network(
    backbone: BackboneSpec, head: HeadSettings, *, mode: str, batch_norm: str, size: int
) -> TrainingNetwork:
    """Build what is trained, on the CPU; the same weights for the same arguments.

    Args:
        backbone: Network and starting weights; its seed is the head's as well.
        head: What stands on top.
        mode: One of `retrieval.choices.MODES`.
        batch_norm: One of BATCH_NORMS: whether statistics of batch normalisation are updated.
        size: Side S of the photos in pixels.

    Raises:
        UsageError: a name is unknown, or settings contradict each other.
        ModelError: the weights cannot be used.
    """
    for name, value, known in (("mode", mode, MODES), ("batch_norm", batch_norm, BATCH_NORMS)):
        if value not in known:
            raise UsageError(f"`{name}` {value}: unknown. Use one of {', '.join(known)}.")
    if mode == "from-scratch" and backbone.weights != "none":
        raise UsageError(
            f"`weights` {backbone.weights}: `mode` from-scratch starts from random weights. "
            f"Leave `weights` out, or use `mode` full."
        )
    body = build_backbone(backbone)
    with torch.inference_mode():
        dim = int(body(torch.zeros(1, 3, size, size)).shape[1])
    objective = build_objective(dim, head, seed=backbone.seed)
    learns_body = mode != "last-layer"
    if not learns_body and isinstance(objective, MultiSimilarity):
        raise UsageError(
            "`loss` multi-similarity: judges the features, which `mode` last-layer does not "
            "train. Use `mode` full, or `loss` cross-entropy."
        )
    return TrainingNetwork(body, objective, learns_body=learns_body, batch_norm=batch_norm)


def has_unused_weights(network: TrainingNetwork, size: int) -> bool:
    """Whether some weights that learn get no gradient from a step, as those of a head not called.

    Cost: one step with two black images, on a copy of the network.
    """
    try:
        stepped = _step(network, size, num_images=2, learns=True)
    except Exception:  # noqa: BLE001 - somebody's network need not like black images
        return False
    weights = [weight for weight in stepped.parameters() if weight.requires_grad]
    return any(weight.grad is None for weight in weights)


def check_share(network: TrainingNetwork, size: int, num_images: int) -> None:
    """Refuse a worker's share of a batch that the network cannot be trained on.

    Batch normalisation needs two values a channel: two images, where a feature map is one pixel.

    Raises:
        UsageError: it cannot, with what torch says.

    Cost: a forward pass of so many black images, on a copy of the network.
    """
    try:
        _step(network, size, num_images=num_images, learns=False)
    except Exception as error:
        if "more than 1 value per channel" not in str(error):
            return  # somebody's network need not like black images
        raise UsageError(
            f"`batch_size`: a worker gets {num_images} photo of a batch, and the network's batch "
            f"normalisation needs two of {size} pixels. Use a larger `batch_size` or fewer "
            f"`num_workers`, so that each has two, a larger `image_size`, or `batch_norm` frozen."
        ) from error


def _step(network: TrainingNetwork, size: int, *, num_images: int, learns: bool) -> TrainingNetwork:
    copied = copy.deepcopy(network).train()
    device = next(copied.parameters()).device
    with torch.random.fork_rng(), torch.set_grad_enabled(learns):
        images = torch.zeros(num_images, 3, size, size, device=device)
        answer = copied(images, torch.arange(num_images, device=device) % 2)
        if learns:
            answer.loss.backward()
    return copied
