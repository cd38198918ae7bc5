"""Settings of `embed`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from retrieval.errors import UsageError
from retrieval.images import Preprocessing

__all__ = ["DECIDED_BY_MODEL", "EmbedConfig"]

DECIDED_BY_MODEL = ("backbone", "weights", "seed", "image_size")  # its folder says them


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """Settings of the job.

    Attributes:
        backbone: Name of the network, or "package.module:function".
        weights: "imagenet", "none" or a file.
        seed: Seed of random weights.
        image_size: Side in pixels of the square to which a photo is stretched.
        model: A trained model's folder, which decides all of DECIDED_BY_MODEL.
        labels: Rule of `retrieval.labels`.
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

    backbone: str = "resnet18"
    weights: str = "imagenet"
    seed: int = 0
    image_size: int = Preprocessing.size
    model: str | None = None
    labels: str = "folder"
    follow_links: bool = False
    dtype: str = "float16"
    precision: str = "auto"
    batch_size: int | None = None
    num_actors: int | None = None
    verify_content: bool = False
    retry_rejects: bool = False
    heal: bool = False
    rebase: bool = False

    def __post_init__(self) -> None:
        default = {field.name: field.default for field in fields(self)}
        given = [name for name in DECIDED_BY_MODEL if getattr(self, name) != default[name]]
        if self.model is not None and given:
            raise UsageError(f"model={self.model!r}: decides {', '.join(given)} too; leave it out.")

    def recorded(self) -> dict[str, Any]:
        """The settings that had a say."""
        without = () if self.model is None else DECIDED_BY_MODEL
        return {name: value for name, value in asdict(self).items() if name not in without}
