"""Settings of `embed`. Pure data: the command line reads it at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from retrieval.choices import BACKBONES, FIRST_DECODER, PRECISIONS, STORED_TYPES
from retrieval.errors import UsageError
from retrieval.settings import (
    COUNT,
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

if TYPE_CHECKING:
    from retrieval.images import Preprocessing

__all__ = ["DECIDED_BY_MODEL", "DEFAULTS", "EmbedConfig"]

DECIDED_BY_MODEL = ("weights", "seed", "image_size", "mean", "std")  # its folder says them
_OF_NETWORK = ("backbone", *DECIDED_BY_MODEL)
# Of a new index, where the network states nothing. A decoder is that of a model's folder, where
# one is named.
DEFAULTS: Final[Mapping[str, Any]] = {
    "backbone": "resnet18",
    "seed": 0,
    "decoder": FIRST_DECODER,
    "dtype": "float16",
}


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Settings of the job.

    Attributes:
        backbone: Name of the network, or "package.module:function"; by default resnet18. Beside a
            model it must be the model's, and is needed where that is a function.
        weights: "imagenet", "none" or a file; by default imagenet, or what a function returns.
        seed: Seed of random weights.
        image_size: Side in pixels of the square to which a photo is stretched; by default what
            the network states (`retrieval.models.own_networks.stated_preprocessing`), or 224.
        mean, std: Of red, green and blue on the scale [0, 1], by which the network's input is
            normalised; by default what the network states, or ImageNet's.
        decoder: By which photos are read; see `retrieval.images`.
        model: A trained model's folder, which decides all of DECIDED_BY_MODEL.
        new_model: Whether an index of another model may be embedded anew. Without it, None above
            and for dtype means: as the index has it. With it, or for a new index: DEFAULTS.
        labels: Rule of `retrieval.gallery.labels`.
        follow_links: Whether links out of the gallery are followed.
        dtype: Stored type, "float16" or "float32".
        precision: In which the network computes: "auto" (float16 on a GPU, bfloat16 on a CPU
            that has it, else float32), or one of these types. Each worker compares photos
            of its first batch with float32, and falls back to it below a cosine of 0.999.
        batch_size: Photos in a forward pass; by default 8, on a GPU 256.
        num_actors: Copies of the network; by default one a GPU, or one per 16 CPUs.
        verify_content: Trust neither size nor time of a photo that is in the index already:
            read all, and embed those with another content.
        retry_rejects: Try again what was refused; otherwise only what changed since, or could
            not be read.
        heal: Read every shard of the index whole, and embed again what damaged ones held.
        rebase: Where another run has committed meanwhile, go on from its version.
    """

    model: str | None = setting(
        None,
        "Folder that `retrieval-cli train` has made: its network, weights and preprocessing. A "
        "network of your own is named too, by `backbone`: no folder has its code run alone.",
    )
    new_model: bool = setting(
        False,
        "Allow another model, size, type or seed than the index was embedded by: all images are "
        "embedded anew.",
    )
    backbone: str | None = setting(
        None,
        f"{', '.join(BACKBONES)}, or package.module:function for a network of your own, which "
        "Python finds by PYTHONPATH. The network may state the preprocessing that it needs, in a "
        "dict `preprocessing` with size, mean, std.",
        unset="that of the index, or the model's; resnet18",
    )
    weights: str | None = setting(
        None,
        "imagenet (from torchvision's cache, or downloaded), none (random), or a .safetensors or "
        ".pth state dict.",
        unset="those of the index; imagenet, or what your own function returns",
    )
    seed: int | None = setting(
        None, "Seed of random weights.", numbers=SEED, unset="that of the index; 0"
    )
    image_size: int | None = setting(
        None,
        "Side in pixels of the square to which a photo is stretched.",
        numbers=SIDE,
        unset="that of the index, the model or the network; 224",
    )
    mean: tuple[float, float, float] | None = setting(
        None, MEAN_HELP, shape="R,G,B", parse=channels, unset=USUAL_CHANNELS
    )
    std: tuple[float, float, float] | None = setting(
        None, STD_HELP, shape="R,G,B", parse=deviations, unset=USUAL_CHANNELS
    )
    decoder: int | None = setting(
        None,
        "Version of the rules by which photos are read.",
        numbers=COUNT,
        unset="that of the index, or the model's; 1",
    )
    labels: str = setting(
        "folder",
        "folder (the first folder of the path), none, pattern:REGEX (its first group, in the "
        "file's name), or a CSV or Parquet file with image_id and label.",
    )
    follow_links: bool = setting(
        False, "Follow links that lead out of PHOTOS too; otherwise each is a reject."
    )
    dtype: str | None = setting(
        None,
        "Stored type of a component.",
        choices=STORED_TYPES,
        unset="that of the index; float16",
    )
    precision: str = setting(
        "auto",
        "In which the network computes. auto: float16 on a GPU, bfloat16 on a CPU that has it, "
        "else float32; each worker compares photos of its first batch with float32, and falls "
        "back to it where a cosine is below 0.999.",
        choices=PRECISIONS,
    )
    batch_size: int | None = setting(
        None,
        "Photos in a forward pass. [default: 8, on a GPU 256; halved where a GPU has not enough "
        "memory]",
        numbers=MANY,
    )
    num_actors: int | None = setting(
        None, "Copies of the network. [default: one a GPU, or one per 16 CPUs]", numbers=MANY
    )
    verify_content: bool = setting(
        False,
        "Read every photo: its content alone decides whether it has changed, not its size and "
        "time.",
    )
    retry_rejects: bool = False
    heal: bool = setting(
        False, "Read every shard of the index, and embed again what damaged ones held."
    )
    rebase: bool = setting(
        False, "If another run commits meanwhile, go on from its version instead of failing."
    )

    def __post_init__(self) -> None:
        given = [name for name in DECIDED_BY_MODEL if getattr(self, name) is not None]
        if self.model is not None and given:
            raise UsageError(f"`model` decides `{given[0]}` too: give one of them.")
        check_settings(self)

    @property
    def network(self) -> str:
        """Name of the network; a model has its own."""
        return self.backbone or DEFAULTS["backbone"]

    @property
    def start_weights(self) -> str:
        """Weights of the network; a model has its own."""
        from retrieval.models.own_networks import default_weights  # loads NumPy

        return self.weights or default_weights(self.network)

    @property
    def given_preprocessing(self) -> dict[str, Any]:
        """What is said of the network's input, by the names of `Preprocessing`."""
        names = {"size": "image_size", "mean": "mean", "std": "std", "decoder": "decoder"}
        return {name: getattr(self, setting) for name, setting in names.items()}

    def recorded(self, preprocessing: Preprocessing | None = None) -> dict[str, Any]:
        """The settings that had a say, for the record of the run.

        Args:
            preprocessing: What came of them, once the network is known. Mean and deviation are
                recorded where they are not the usual ones.
        """
        from retrieval.images import Preprocessing  # loads NumPy
        from retrieval.models.own_networks import choose_preprocessing

        found = preprocessing or choose_preprocessing(self.given_preprocessing)
        settings = {**asdict(self), "decoder": found.decoder}
        del settings["new_model"]
        if self.model is not None:
            return {name: value for name, value in settings.items() if name not in _OF_NETWORK}
        settings |= {
            "backbone": self.network, "weights": self.start_weights, "image_size": found.size
        }  # fmt: skip
        for name in ("mean", "std"):
            settings[name] = list(getattr(found, name))
            if getattr(found, name) == getattr(Preprocessing, name):
                del settings[name]
        return settings
