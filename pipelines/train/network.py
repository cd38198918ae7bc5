"""The network that the settings of a training describe, and what it takes."""

from __future__ import annotations

from dataclasses import replace

from pipelines.train.config import TrainConfig
from retrieval.images import Preprocessing, newest_decoder
from retrieval.models.backbones import BackboneSpec, build_backbone, inner_network
from retrieval.models.own_networks import choose_preprocessing, is_own, stated_preprocessing
from retrieval.training.network import TrainingNetwork
from retrieval.training.network import build_network as build
from retrieval.training.objectives import HeadSettings

__all__ = ["backbone_spec", "build_network", "preprocessing_of", "settled"]


def backbone_spec(config: TrainConfig) -> BackboneSpec:
    """Network and starting weights."""
    weights = config.weights or ("none" if config.mode == "from-scratch" else "")
    return BackboneSpec(name=config.backbone, weights=weights, seed=config.seed)


def preprocessing_of(config: TrainConfig) -> Preprocessing:
    """How photos become the network's input; of one's own network, see `settled`."""
    decoder = newest_decoder() if config.decoder is None else config.decoder
    return replace(choose_preprocessing(config.given_preprocessing), decoder=decoder)


def settled(config: TrainConfig) -> TrainConfig:
    """The same with what the network states of its input, for all that is not said there.

    Mean and deviation stay None where they are the usual ones.

    Raises:
        UsageError: the network cannot be built, or states what cannot be.

    Cost: builds a network of one's own, without weights from a file.
    """
    stated = {}
    if is_own(config.backbone):
        network = build_backbone(BackboneSpec(name=config.backbone, weights="none"))
        stated = stated_preprocessing(inner_network(network), config.backbone)
    found = choose_preprocessing(config.given_preprocessing, stated)
    return replace(
        config,
        image_size=found.size,
        mean=None if found.mean == Preprocessing.mean else found.mean,
        std=None if found.std == Preprocessing.std else found.std,
    )


def build_network(config: TrainConfig, num_classes: int) -> TrainingNetwork:
    """The network as training begins, on the CPU; raises what is wrong with the settings."""
    return build(
        backbone_spec(config),
        HeadSettings(
            loss=config.loss,
            num_classes=num_classes,
            dropout=config.dropout,
            label_smoothing=config.label_smoothing,
        ),
        mode=config.mode,
        batch_norm=config.batch_norm,
        size=preprocessing_of(config).size,
    )
