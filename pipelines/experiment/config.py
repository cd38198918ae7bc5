"""Settings of the experiment, and what they mean for a row of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from pipelines.augment.config import AugmentConfig
from pipelines.train.config import TrainConfig
from retrieval.choices import IMAGE_SIZE
from retrieval.experiments import ROWS, Row, choose_rows  # light: neither torch nor NumPy
from retrieval.settings import (
    COUNT,
    EPOCHS,
    MANY,
    MEAN_HELP,
    SEED,
    SIDE,
    STD_HELP,
    USUAL_CHANNELS,
    channels,
    check_settings,
    deviations,
    setting,
)

__all__ = ["SCALES", "ExperimentConfig"]

SCALES: Final[Mapping[str, Mapping[str, int]]] = {
    "full": {"epochs": TrainConfig.epochs, "image_size": IMAGE_SIZE, "per_class": 600},
    "small": {"epochs": 2, "image_size": 64, "per_class": 24},
}
# The data sets are drawn by this seed and by some that follow.
_SEED: Final = replace(SEED, low=0, high=SEED.high - 2**10)


def _rows(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",")]
    return tuple(row.name for row in choose_rows(ROWS, names))


def _by_scale(name: str) -> str:
    return f"[default: {SCALES['full'][name]}; small: {SCALES['small'][name]}]"


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Settings of the job.

    Attributes:
        rows: Names of the rows to run, in this order; None for the whole table.
        scale: One of SCALES, which gives what is None of epochs, image_size and per_class.
        epochs, image_size, batch_size: Of every training.
        mean, std: Of red, green and blue on the scale [0, 1], by which every network's input is
            normalised; None for ImageNet's.
        per_class: Images of a class in the augmented data sets.
        queries_per_class: Photos of a class that are held out as queries.
        num_workers: Workers that train together; None for one a GPU, or one a node.
        seed: Of the choice of queries, the augmentation and the trainings.
    """

    rows: tuple[str, ...] | None = setting(
        None,
        f"Names of rows, as below, separated by commas. [default: all {len(ROWS)}]",
        parse=_rows,
    )
    scale: str = setting(
        "full",
        "small is a quick pass, whose figures say little; it changes the defaults below.",
        choices=tuple(SCALES),
    )
    epochs: int = setting(None, f"Of each training. {_by_scale('epochs')}", numbers=EPOCHS)
    image_size: int = setting(
        None,
        f"Side of the networks' input in pixels. {_by_scale('image_size')}",
        numbers=SIDE,
        least=32,
    )
    mean: tuple[float, float, float] | None = setting(
        None, MEAN_HELP, shape="R,G,B", parse=channels, unset=USUAL_CHANNELS
    )
    std: tuple[float, float, float] | None = setting(
        None, STD_HELP, shape="R,G,B", parse=deviations, unset=USUAL_CHANNELS
    )
    per_class: int = setting(
        None,
        f"Images of a class in the augmented data sets. {_by_scale('per_class')}",
        numbers=COUNT,
    )
    queries_per_class: int = setting(3, "Photos of a class that become queries.", numbers=COUNT)
    batch_size: int = setting(
        TrainConfig.batch_size,
        "Photos of a training step, over all workers together.",
        numbers=MANY,
        least=2,
    )
    num_workers: int | None = setting(
        None, "Workers that train together. [default: one a GPU, or one a node]", numbers=MANY
    )
    seed: int = setting(0, "Of the queries, the augmentation and the trainings.", numbers=_SEED)

    def __post_init__(self) -> None:
        for name, value in SCALES[self.scale].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        check_settings(self)

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
