"""Settings of a training, and what of them travels to the workers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipelines.ray_runtime.cluster_options import Site
from retrieval.augmentations import Recipe
from retrieval.errors import UsageError
from retrieval.images import Preprocessing, newest_decoder
from retrieval.models.backbones import BackboneSpec, build_backbone, inner_network
from retrieval.models.own_networks import choose_preprocessing, is_own, stated_preprocessing
from retrieval.ranges import (
    COUNT,
    DECAY,
    EPOCHS,
    MANY,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    SIDE,
    check_settings,
)
from retrieval.training.network import TrainingNetwork, build_network
from retrieval.training.objectives import HeadSettings
from retrieval.training.optimizer import Schedule

__all__ = ["TrainConfig", "WorkerPlan", "Workers"]


_RANGES = {
    "dropout": SHARE,
    "label_smoothing": SHARE,
    "learning_rate": POSITIVE,
    "weight_decay": NOT_NEGATIVE,
    "lr_decay": DECAY,
    "warmup_epochs": NOT_NEGATIVE,
    "epochs": EPOCHS,
    "batch_size": MANY,
    "image_size": SIDE,
    "photos_per_class": COUNT,
    "seed": SEED,
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of the job; the defaults are the paper's where it names them.

    Attributes:
        backbone: Name of the network, or "package.module:function".
        mode: "full", "last-layer" or "from-scratch".
        weights: "imagenet", "none" or a file; None for imagenet, or none from scratch and for
            what a function returns.
        batch_norm: "train" or "frozen": whether its statistics are updated; see
            `retrieval.training.network` on what that means for last-layer.
        loss: "cross-entropy", "arcface" or "multi-similarity".
        dropout: Before the head, in [0, 1).
        label_smoothing: For cross-entropy, in [0, 1).
        optimizer: "adam", "adamw" or "sgd".
        learning_rate, weight_decay: Of the optimizer.
        lr_decay: Factor from one epoch to the next.
        warmup_epochs: Over which the rate rises from near 0.
        epochs: How many in all.
        batch_size: Photos of a step, over all workers together.
        sampler: "shuffled" or "balanced".
        recipe: Augmentation on the fly: "none", "light", "paper" or a YAML file.
        image_size: Side of the network's input in pixels; None for what the network states
            (`retrieval.models.own_networks.stated_preprocessing`), or 224.
        mean, std: Of red, green and blue on the scale [0, 1], by which the network's input is
            normalised; None for what the network states, or ImageNet's.
        decoder: By which photos are read, see `retrieval.images`; None for the newest, or for
            that of the training that was begun there.
        validation: Folder of validation photos, or the share of each class to hold out.
        photos_per_class: Original photos to train on in a class; None for all.
        labels: Rule of `retrieval.gallery.labels`.
        follow_links: Whether links out of the folders of photos are followed.
        precision: "float32" or "bfloat16".
        channels_last: Layout of images in memory.
        seed: Of weights, split, order, dropout and augmentation.
    """

    backbone: str = "resnet18"
    mode: str = "full"
    weights: str | None = None
    batch_norm: str = "train"
    loss: str = "cross-entropy"
    dropout: float = 0.5
    label_smoothing: float = 0.0
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    lr_decay: float = 0.96
    warmup_epochs: float = 0.0
    epochs: int = 10
    batch_size: int = 32
    sampler: str = "shuffled"
    recipe: str = "none"
    image_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    decoder: int | None = None
    validation: str | float = 0.2
    photos_per_class: int | None = None
    labels: str = "folder"
    follow_links: bool = False
    precision: str = "float32"
    channels_last: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self, _RANGES)
        if not (isinstance(self.validation, str) or 0 < self.validation < 1):
            raise UsageError(
                f"`validation` {self.validation}: a folder, or a share above 0 and below 1, is "
                f"needed."
            )

    @property
    def validation_folder(self) -> str | None:
        """The folder of validation photos; None where a share is held out."""
        return self.validation if isinstance(self.validation, str) else None

    @property
    def weights_file(self) -> str | None:
        """The file of starting weights, where one is named."""
        return None if self.weights in (None, "imagenet", "none") else self.weights

    def backbone_spec(self) -> BackboneSpec:
        """Network and starting weights."""
        weights = self.weights or ("none" if self.mode == "from-scratch" else "")
        return BackboneSpec(name=self.backbone, weights=weights, seed=self.seed)

    @property
    def given_preprocessing(self) -> dict[str, Any]:
        """What is said of the network's input, by the names of `Preprocessing`."""
        return {"size": self.image_size, "mean": self.mean, "std": self.std}

    def preprocessing(self) -> Preprocessing:
        """How photos become the network's input; of one's own network, see `settled`."""
        decoder = newest_decoder() if self.decoder is None else self.decoder
        return replace(choose_preprocessing(self.given_preprocessing), decoder=decoder)

    def settled(self) -> TrainConfig:
        """The same with what the network states of its input, for all that is not said here.

        Mean and deviation stay None where they are the usual ones.

        Raises:
            UsageError: the network cannot be built, or states what cannot be.

        Cost: builds a network of one's own, without weights from a file.
        """
        stated = {}
        if is_own(self.backbone):
            network = build_backbone(BackboneSpec(name=self.backbone, weights="none"))
            stated = stated_preprocessing(inner_network(network), self.backbone)
        found = choose_preprocessing(self.given_preprocessing, stated)
        return replace(
            self,
            image_size=found.size,
            mean=None if found.mean == Preprocessing.mean else found.mean,
            std=None if found.std == Preprocessing.std else found.std,
        )

    def recorded(self) -> dict[str, Any]:
        """The settings as JSON gives them back."""
        return dict(json.loads(json.dumps(asdict(self))))

    def schedule(self) -> Schedule:
        """Learning rate over time."""
        return Schedule(
            learning_rate=self.learning_rate,
            decay=self.lr_decay,
            warmup_epochs=self.warmup_epochs,
        )

    def build_network(self, num_classes: int) -> TrainingNetwork:
        """The network as training begins, on the CPU; raises what is wrong with the settings."""
        return build_network(
            self.backbone_spec(),
            HeadSettings(
                loss=self.loss,
                num_classes=num_classes,
                dropout=self.dropout,
                label_smoothing=self.label_smoothing,
            ),
            mode=self.mode,
            batch_norm=self.batch_norm,
            size=self.preprocessing().size,
        )


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who trains. Nothing of this changes what a model is for but rounding and statistics.

    Attributes:
        num_workers: How many; (least, most) lets it change as machines come and go; None for
            one a GPU, or one a node.
        max_failures: How often workers that died are started again.
    """

    num_workers: int | tuple[int, int] | None = None
    max_failures: int = 3


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """All that a worker needs to know. Plain values: each builds its own network.

    Attributes:
        config: Settings of the job.
        recipe: The recipe that it names, read once by the driver.
        classes: Labels in the order of the head's rows.
        num_threads: Threads of a worker on the CPU.
        num_decoders: Tasks that decode for a worker at a time; None for as many as find room.
        split_uri: Parquet file with the photos, rows of SPLIT_SCHEMA.
        metrics_uri: Where the figures of the epochs are written, as JSON lines.
        site: Where photos are decoded.
    """

    config: TrainConfig
    recipe: Recipe
    classes: tuple[str, ...]
    num_threads: int
    num_decoders: int | None
    split_uri: str
    metrics_uri: str
    site: Site
