"""What a training has found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["TrainCounts", "TrainReport"]


@dataclass(frozen=True, kw_only=True)
class TrainCounts:
    """Images on each side of the split, and those that cannot be read."""

    num_training: int
    num_validation: int
    num_left_out: int
    num_rejected: int


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """A trained model.

    Attributes:
        model: Address of its folder.
        fingerprint, backbone, mode, dim: Of the model.
        preprocessing: What the network's input is, and what says so.
        num_classes: That it tells apart.
        epochs: That it was trained.
        best: Figures of the best epoch, which is the one that is published.
        metrics, learning_curve, rejects: Addresses of files beside the model.
        counts, steps: Images, and seconds of each step; None where it was trained before.
        seconds: Of the run.
    """

    model: str
    fingerprint: str
    backbone: str
    mode: str
    dim: int
    preprocessing: Mapping[str, Any]
    num_classes: int
    epochs: int
    best: Mapping[str, Any]
    metrics: str
    learning_curve: str
    rejects: str
    counts: TrainCounts | None
    steps: Mapping[str, float] | None
    seconds: float

    @property
    def already_trained(self) -> bool:
        """Whether there was nothing to do."""
        return self.counts is None

    def to_json(self) -> dict[str, Any]:
        """The report as it is printed."""
        return {
            "model": self.model,
            "fingerprint": self.fingerprint,
            "backbone": self.backbone,
            "mode": self.mode,
            "dim": self.dim,
            "preprocessing": dict(self.preprocessing),
            "num_classes": self.num_classes,
            "epochs": self.epochs,
            "best": dict(self.best),
            "metrics": self.metrics,
            "learning_curve": self.learning_curve,
            "rejects": self.rejects,
            "already_trained": self.already_trained,
            **(asdict(self.counts) if self.counts else {}),
            **({"steps": dict(self.steps)} if self.steps is not None else {}),
            "seconds": self.seconds,
        }
