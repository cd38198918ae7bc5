"""Settings of `augment`. Pure data: the command line reads it at once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from retrieval.choices import IMAGE_FORMATS
from retrieval.settings import COUNT, SEED, Range, check_settings, setting

__all__ = ["AugmentConfig"]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Settings of the job.

    Attributes:
        recipe: Name or file; see `retrieval.augmentations.recipes`.
        per_class: Images of a class that are wanted, photos and results together.
        seed: Of all that is drawn.
        size: Shorter side in pixels to which a larger photo is reduced before.
        quality: Of the JPEG results, 1 to 100.
        format: "jpeg" for files in class folders, "parquet" for tables of images.
        labels: Rule of `retrieval.gallery.labels`.
        follow_links: Whether links out of the folder of photos are followed.
        decoder: By which photos are read, see `retrieval.images`; None for that which the output
            was begun with, or the newest.
    """

    recipe: str = setting(
        "paper",
        "paper (every technique, one a result), light (several gentle ones a result), none (the "
        "photos alone), or a YAML file.",
    )
    per_class: int = setting(
        600, "Images of a class to reach, photos and results together.", numbers=COUNT
    )
    seed: int = setting(0, "Seed of all that is drawn.", numbers=replace(SEED, low=0))
    size: int = setting(
        256,
        "Shorter side in pixels, 16 to 2048, to which a larger photo is reduced before.",
        numbers=Range(low=16, high=2048, is_whole=True),
    )
    decoder: int | None = setting(
        None,
        "Version of the rules by which photos are read. [default: the newest, or that of what "
        "was begun there]",
        numbers=COUNT,
    )
    quality: int = setting(
        90,
        "Quality of the JPEG results, 1 to 100.",
        numbers=Range(low=1, high=100, is_whole=True),
    )
    format: str = setting(
        "jpeg",
        "jpeg (class folders of files), or parquet (tables with a column of bytes).",
        choices=IMAGE_FORMATS,
    )
    labels: str = setting(
        "folder",
        "folder (the first folder of the path), pattern:REGEX (its first group, in the file's "
        "name), or a CSV or Parquet file with image_id and label.",
    )
    follow_links: bool = setting(
        False, "Follow links that lead out of PHOTOS too; otherwise each is a reject."
    )

    def __post_init__(self) -> None:
        check_settings(self)
