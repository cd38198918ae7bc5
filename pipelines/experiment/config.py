"""Settings of the experiment, and what they mean for a row of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pipelines.augment import AugmentConfig
from pipelines.train import TrainConfig
from retrieval.experiments import Row
from retrieval.images import Preprocessing
from retrieval.ranges import COUNT, EPOCHS, MANY, SEED, SIDE, check_settings

__all__ = ["SCALES", "ExperimentConfig"]

SCALES: Final[Mapping[str, Mapping[str, int]]] = {
    "full": {"epochs": TrainConfig.epochs, "image_size": Preprocessing.size, "per_class": 600},
    "small": {"epochs": 2, "image_size": 64, "per_class": 24},
}


_RANGES: Final = {
    "epochs": EPOCHS,
    "image_size": SIDE,
    "batch_size": MANY,
    "per_class": COUNT,
    "queries_per_class": COUNT,
    "num_workers": MANY,
    # The data sets are drawn by this seed and by some that follow.
    "seed": replace(SEED, low=0, high=SEED.high - 2**10),
}


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Settings of the job.

    Attributes:
        rows: Names of the rows to run, in this order; None for the whole table.
        scale: One of SCALES, from which the others were taken that were not given.
        epochs, image_size, batch_size: Of every training.
        mean, std: Of red, green and blue on the scale [0, 1], by which every network's input is
            normalised; None for ImageNet's.
        per_class: Images of a class in the augmented data sets.
        queries_per_class: Photos of a class that are held out as queries.
        num_workers: Workers that train together; None for one a GPU, or one a node.
        seed: Of the choice of queries, the augmentation and the trainings.
    """

    rows: tuple[str, ...] | None = None
    scale: str = "full"
    epochs: int = SCALES["full"]["epochs"]
    image_size: int = SCALES["full"]["image_size"]
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    per_class: int = SCALES["full"]["per_class"]
    queries_per_class: int = 3
    batch_size: int = TrainConfig.batch_size
    num_workers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self, _RANGES)

    @classmethod
    def at_scale(cls, scale: str, **settings: Any) -> ExperimentConfig:  # noqa: ANN401
        """The settings of a scale, but for those that are given and not None."""
        given = {name: value for name, value in settings.items() if value is not None}
        return cls(scale=scale, **{**SCALES[scale], **given})

    def augment_config(self, row: Row) -> AugmentConfig:
        """How the data set of a row is made."""
        return AugmentConfig(
            recipe="paper", per_class=self.per_class, seed=self.seed + row.data_set
        )

    def train_config(self, row: Row) -> TrainConfig:
        """How a row is trained."""
        return TrainConfig(
            backbone=row.backbone,
            mode=row.mode,
            weights=row.weights,
            batch_norm="train",  # the paper's script let them follow the photos, as usual
            epochs=self.epochs,
            batch_size=self.batch_size,
            image_size=self.image_size,
            mean=self.mean,
            std=self.std,
            photos_per_class=row.photos_per_class,
            seed=self.seed,
        )

    def data_set(self, row: Row) -> str:
        """Name of what a row is trained on."""
        return f"augmented-{self.seed + row.data_set}"
