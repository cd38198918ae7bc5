"""What training minimises, and the head that tells classes apart.

cross-entropy     dropout and a linear layer, softmax over the classes: the paper's.
arcface           the angle to each class's own direction, with a margin (Deng et al., CVPR 2019).
multi-similarity  pairs of photos of one batch (Wang et al., CVPR 2019). It knows no classes, so
                  a linear head learns beside it from detached features: it gives an accuracy
                  to watch and does not influence the features.

The two metric losses are those of pytorch-metric-learning. Pairs are formed among the photos of
one worker; give it batches with several photos a class (the sampler "balanced").
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - everybody's name for it
from torch import Tensor, nn

from retrieval.errors import UsageError

__all__ = ["OBJECTIVES", "HeadSettings", "Judgement", "Objective", "build_objective"]


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """What stands on top of a backbone.

    Attributes:
        loss: One of OBJECTIVES.
        num_classes: At least 2.
        dropout: Share of the head's inputs dropped, in [0, 1).
        label_smoothing: In [0, 1), for cross-entropy only.
    """

    loss: str = "cross-entropy"
    num_classes: int
    dropout: float = 0.0
    label_smoothing: float = 0.0


class Judgement(NamedTuple):
    """loss: float32 scalar, mean over the batch; logits: float32 (B, classes)."""

    loss: Tensor
    logits: Tensor


class Objective(nn.Module, ABC):
    """Features float32 (B, D) and labels int64 (B,) → loss and logits."""

    @abstractmethod
    def forward(self, features: Tensor, labels: Tensor) -> Judgement:
        """Judge a batch."""

    @abstractmethod
    def linear_head(self) -> nn.Linear:
        """The head as a layer from features (B, D) to classes; for the model folder."""


class CrossEntropy(Objective):
    """Dropout, a linear head, softmax."""

    def __init__(self, dim: int, settings: HeadSettings) -> None:
        super().__init__()
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(dim, settings.num_classes)
        self._label_smoothing = settings.label_smoothing

    def forward(self, features: Tensor, labels: Tensor) -> Judgement:
        logits = self.head(self.dropout(features))
        loss = F.cross_entropy(logits, labels, label_smoothing=self._label_smoothing)
        return Judgement(loss, logits)

    def linear_head(self) -> nn.Linear:
        return self.head


class ArcFace(Objective):
    """Additive angular margin; margin 28.6 degrees and scale 64, the published values."""

    def __init__(self, dim: int, settings: HeadSettings) -> None:
        from pytorch_metric_learning.losses import ArcFaceLoss  # takes a second to load

        super().__init__()
        _refuse_smoothing(settings)
        self.dropout = nn.Dropout(settings.dropout)
        self.margin_loss = ArcFaceLoss(settings.num_classes, dim)

    def forward(self, features: Tensor, labels: Tensor) -> Judgement:
        features = self.dropout(features)
        return Judgement(
            self.margin_loss(features, labels), self.margin_loss.get_logits(features).detach()
        )

    def linear_head(self) -> nn.Linear:
        # With unit directions the largest logit is the nearest class, as for the angles.
        directions = nn.functional.normalize(self.margin_loss.W.detach(), dim=0).T
        head = nn.Linear(directions.shape[1], directions.shape[0])
        with torch.no_grad():
            head.weight.copy_(directions)
            head.bias.zero_()
        return head


class MultiSimilarity(Objective):
    """Pairs of the batch, the hard ones mined; a head beside it, for the accuracy alone."""

    def __init__(self, dim: int, settings: HeadSettings) -> None:
        from pytorch_metric_learning.losses import MultiSimilarityLoss
        from pytorch_metric_learning.miners import MultiSimilarityMiner

        super().__init__()
        _refuse_smoothing(settings)
        self.miner = MultiSimilarityMiner()
        self.pair_loss = MultiSimilarityLoss()
        self.beside = CrossEntropy(dim, settings)

    def forward(self, features: Tensor, labels: Tensor) -> Judgement:
        pairs = self.miner(features, labels)
        head_loss, logits = self.beside(features.detach(), labels)
        return Judgement(self.pair_loss(features, labels, pairs) + head_loss, logits)

    def linear_head(self) -> nn.Linear:
        return self.beside.head


OBJECTIVES: Mapping[str, Callable[[int, HeadSettings], Objective]] = {
    "cross-entropy": CrossEntropy,
    "arcface": ArcFace,
    "multi-similarity": MultiSimilarity,
}


def _refuse_smoothing(settings: HeadSettings) -> None:
    if settings.label_smoothing:
        raise UsageError(
            f"`label_smoothing` {settings.label_smoothing}: has no effect with `loss` "
            f"{settings.loss}. Leave it out, or use `loss` cross-entropy."
        )


def build_objective(dim: int, settings: HeadSettings, *, seed: int) -> Objective:
    """Build an objective.

    Args:
        dim: Dimensions D of the features.
        settings: Of the head.
        seed: Of the head's weights.

    Raises:
        UsageError: the loss is unknown, or a setting has no effect with it.
    """
    if settings.loss not in OBJECTIVES:
        raise UsageError(f"`loss` {settings.loss}: unknown. Use one of {', '.join(OBJECTIVES)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return OBJECTIVES[settings.loss](dim, settings)
