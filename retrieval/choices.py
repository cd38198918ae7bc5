"""The names that settings choose among, each list in its one place. Pure data.

What is built by a name lies in a module of its own, which may be heavy: `retrieval.search.scores`
(METRICS), `retrieval.models.backbones` (BACKBONES), `retrieval.training.objectives` (LOSSES),
`optimizer` and `sampling`, `retrieval.augmentations.recipes` (RECIPES).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = [
    "BACKBONES",
    "BATCH_NORMS",
    "COMPONENT_TYPES",
    "DEVICES",
    "FIRST_DECODER",
    "IMAGE_FORMATS",
    "IMAGE_SIZE",
    "LOSSES",
    "METRICS",
    "MODES",
    "OPTIMIZERS",
    "PRECISIONS",
    "RECIPES",
    "SAMPLERS",
    "STORED_TYPES",
    "TRAINING_PRECISIONS",
    "minkowski_power",
]

METRICS: Final = ("cosine", "ip", "l2", "l1")  # and "minkowski:P"
DEVICES: Final = ("auto", "cpu", "cuda")
COMPONENT_TYPES: Final = ("float16", "float32", "float64")  # of vectors of other tools
STORED_TYPES: Final = ("float16", "float32")  # of an index

# Name → dimensions D of its pooled features.
BACKBONES: Final[Mapping[str, int]] = {
    "resnet18": 512,
    "resnet50": 2048,
    "resnet101": 2048,
    "resnet152": 2048,
    "resnext101_32x8d": 2048,
    "wide_resnet101_2": 2048,
    "googlenet": 1024,
}
IMAGE_SIZE: Final = 224  # side of a network's input in pixels, where nothing else is said
FIRST_DECODER: Final = 1  # of a network that is named without a model folder
# "auto": what the device does fast, as `retrieval.models.inference.choose_dtype` says.
PRECISIONS: Final = ("auto", "float32", "bfloat16", "float16")

MODES: Final = ("full", "last-layer", "from-scratch")
LOSSES: Final = ("cross-entropy", "arcface", "multi-similarity")
SAMPLERS: Final = ("shuffled", "balanced")
OPTIMIZERS: Final = ("adam", "adamw", "sgd")
BATCH_NORMS: Final = ("train", "frozen")
TRAINING_PRECISIONS: Final = ("float32", "bfloat16")

RECIPES: Final = ("paper", "light", "none")
IMAGE_FORMATS: Final = ("jpeg", "parquet")  # of augmented images


def minkowski_power(metric: str) -> float | None:
    """P of "minkowski:P"; None for anything else, and for a P below 1 or without end.

    Example:
        >>> minkowski_power("minkowski:3")
        3.0
    """
    name, _, power = metric.partition(":")
    try:
        value = float(power) if name == "minkowski" else 0.0
    except ValueError:
        return None
    return value if 1 <= value < float("inf") else None
