"""Settings of a training. Pure data: the command line reads it at once.

`network` builds what they describe, `plan` is what of them travels to the workers.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from retrieval.choices import (
    BACKBONES,
    BATCH_NORMS,
    IMAGE_SIZE,
    LOSSES,
    MODES,
    OPTIMIZERS,
    SAMPLERS,
    TRAINING_PRECISIONS,
)
from retrieval.errors import UsageError
from retrieval.settings import (
    COUNT,
    DECAY,
    EPOCHS,
    MANY,
    MEAN_HELP,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    SIDE,
    STD_HELP,
    USUAL_CHANNELS,
    channels,
    check_settings,
    deviations,
    setting,
)

__all__ = ["TrainConfig", "Workers"]

_WORKERS: Final = re.compile(r"([1-9][0-9]{0,5})(?:-([1-9][0-9]{0,5}))?")


def _share_or_folder(text: str) -> str | float:
    try:
        fraction = float(text)
    except ValueError:
        return text  # a folder
    if not 0 < fraction < 1:
        raise ValueError(f"{text} is no share between 0 and 1; a folder called so is ./{text}.")
    return fraction


def _number_or_range(text: str) -> int | tuple[int, int]:
    found = _WORKERS.fullmatch(text)
    if not found or (found[2] and int(found[2]) < int(found[1])):
        raise ValueError(f"{text!r} is neither a number nor a range, as in 2 or 1-4.")
    return (int(found[1]), int(found[2])) if found[2] else int(found[1])


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

    backbone: str = setting(
        "resnet18",
        f"{', '.join(BACKBONES)}, or package.module:function for a network of your own, which "
        "Python finds by PYTHONPATH. It may state the preprocessing that it needs, in a dict "
        "`preprocessing` with size, mean, std.",
    )
    mode: str = setting(
        "full",
        "What learns: every weight; the head alone; or every weight, from random ones.",
        choices=MODES,
    )
    weights: str | None = setting(
        None,
        "Where training starts: imagenet (from torchvision's cache, or downloaded), none "
        "(random), or a .safetensors or .pth state dict. [default: imagenet; none from scratch, "
        "and of your own network what the function returns]",
    )
    epochs: int = setting(10, numbers=EPOCHS)
    recipe: str = setting(
        "none",
        "Augmentation on the fly: none, light (keeps the label), paper (one of all techniques a "
        "photo), or a YAML file.",
    )
    validation: str | float = setting(
        0.2,
        "Share of each class to hold out, or a folder of validation photos.",
        parse=_share_or_folder,
    )
    image_size: int | None = setting(
        None,
        "Side of the network's input in pixels.",
        numbers=SIDE,
        least=32,
        unset=f"the network's, or {IMAGE_SIZE}",
    )
    mean: tuple[float, float, float] | None = setting(
        None, MEAN_HELP, shape="R,G,B", parse=channels, unset=USUAL_CHANNELS
    )
    std: tuple[float, float, float] | None = setting(
        None, STD_HELP, shape="R,G,B", parse=deviations, unset=USUAL_CHANNELS
    )
    decoder: int | None = setting(
        None,
        "Version of the rules by which photos are read. [default: the newest, or that of what "
        "was begun there]",
        numbers=COUNT,
    )
    loss: str = setting("cross-entropy", choices=LOSSES)
    sampler: str = setting(
        "shuffled",
        "balanced: four photos of each class of a batch, small classes as often as large ones.",
        choices=SAMPLERS,
    )
    batch_size: int = setting(
        32, "Photos of a step, over all workers together.", numbers=MANY, least=2
    )
    optimizer: str = setting("adam", choices=OPTIMIZERS)
    learning_rate: float = setting(1e-4, numbers=POSITIVE)
    lr_decay: float = setting(0.96, "Factor from one epoch to the next.", numbers=DECAY)
    warmup_epochs: float = setting(
        0.0, "Over which the learning rate rises from near 0.", numbers=NOT_NEGATIVE
    )
    weight_decay: float = setting(0.0, numbers=NOT_NEGATIVE)
    dropout: float = setting(0.5, "Share of the head's inputs dropped.", numbers=SHARE)
    label_smoothing: float = setting(0.0, "For cross-entropy.", numbers=SHARE)
    batch_norm: str = setting(
        "train",
        "Whether statistics of batch normalisation follow the photos. With `mode` last-layer they "
        "are all that changes the embeddings: frozen leaves these as they were.",
        choices=BATCH_NORMS,
    )
    photos_per_class: int | None = setting(
        None, "Original photos to train on in a class. [default: all]", numbers=COUNT
    )
    follow_links: bool = setting(
        False,
        "Follow links that lead out of the folders of photos too; otherwise each is a reject.",
    )
    labels: str = setting(
        "folder", "folder (the first folder of the path), pattern:REGEX, or a CSV or Parquet file."
    )
    precision: str = setting(
        "float32",
        "bfloat16 is for GPUs: about twice as fast, half the memory.",
        choices=TRAINING_PRECISIONS,
    )
    channels_last: bool = setting(
        True,
        "How images lie in memory; first is faster for some networks on some CPUs.",
        opposite="channels_first",
    )
    seed: int = setting(0, "Of everything that is random.", numbers=SEED)

    def __post_init__(self) -> None:
        check_settings(self)
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

    @property
    def given_preprocessing(self) -> dict[str, Any]:
        """What is said of the network's input, by the names of `Preprocessing`."""
        return {"size": self.image_size, "mean": self.mean, "std": self.std}

    def recorded(self) -> dict[str, Any]:
        """The settings as JSON gives them back."""
        return dict(json.loads(json.dumps(asdict(self))))


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who trains. Nothing of this changes what a model is for but rounding and statistics.

    Attributes:
        num_workers: How many; (least, most) lets it change as machines come and go; None for
            one a GPU, or one a node.
        max_failures: How often workers that died are started again.
    """

    num_workers: int | tuple[int, int] | None = setting(
        None,
        "Workers that train together, or a range such as 1-4: as many as there are GPUs at the "
        "time; without GPUs the most. [default: one a GPU, or one a node]",
        parse=_number_or_range,
    )
    max_failures: int = setting(
        3, "How often workers that died are started again.", numbers=replace(COUNT, low=0)
    )
