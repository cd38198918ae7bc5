"""Settings of `embed`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from retrieval.errors import UsageError
from retrieval.images import FIRST_DECODER, Preprocessing
from retrieval.models.own_networks import choose_preprocessing, default_weights
from retrieval.ranges import MANY, SEED, SIDE, check_settings

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

    backbone: str | None = None
    weights: str | None = None
    seed: int | None = None
    image_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    decoder: int | None = None
    model: str | None = None
    new_model: bool = False
    labels: str = "folder"
    follow_links: bool = False
    dtype: str | None = None
    precision: str = "auto"
    batch_size: int | None = None
    num_actors: int | None = None
    verify_content: bool = False
    retry_rejects: bool = False
    heal: bool = False
    rebase: bool = False

    def __post_init__(self) -> None:
        given = [name for name in DECIDED_BY_MODEL if getattr(self, name) is not None]
        if self.model is not None and given:
            raise UsageError(f"model={self.model!r}: decides {', '.join(given)} too; leave it out.")
        ranges = {"seed": SEED, "image_size": SIDE, "batch_size": MANY, "num_actors": MANY}
        check_settings(self, ranges)

    @property
    def network(self) -> str:
        """Name of the network; a model has its own."""
        return self.backbone or DEFAULTS["backbone"]

    @property
    def start_weights(self) -> str:
        """Weights of the network; a model has its own."""
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
