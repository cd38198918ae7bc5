"""What results of augmentation are called, and which photo such a name is of.

A result lies beside its photo as PHOTO.TECHNIQUE-NUMBER.jpg. The manifest says of each file whether
it is one, but it is hidden, and whoever copies the visible files alone leaves it behind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from retrieval.augmentations.registry import CATALOGUE

__all__ = ["photo_of", "result_name", "source_of"]

_EXTENSIONS: Final = frozenset(
    ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff"]
)

_TECHNIQUES: Final = "|".join([*CATALOGUE, "chain"])
_RESULT_NAME: Final = re.compile(rf"(?s)(.+)\.(?:{_TECHNIQUES})-[0-9]+\.jpg")
# As other tools may have changed it since: case, format, and the number of a second download.
_CHANGED_NAME: Final = re.compile(
    rf"(?is)(.+)\.(?:{_TECHNIQUES})-[0-9]+(?: ?\([0-9]+\))?(?:\.[a-z0-9]{{1,5}})*"
)


def result_name(image_id: str, technique: str, copy: int) -> str:
    """The name of a photo's result."""
    return f"{image_id}.{technique}-{copy}.jpg"


def source_of(image_id: str) -> str | None:
    """The photo of which a file is a result, by its name; None where it has not such a name."""
    match = _RESULT_NAME.fullmatch(image_id)
    return match[1] if match else None


def photo_of(image_ids: Sequence[str], labels: Sequence[str]) -> list[str | None]:
    """The photo of which each file is a result, by names that may have been changed since.

    Case does not count, nor the format of a file: other tools change both. A result of a result is
    one of the first photo.

    Args:
        image_ids: Of the files (N,).
        labels: Their classes (N,).

    Returns:
        For each file None where it has no such name. Else the photo, if it is among the files:
        under its path, or under another one if a single file of that name and class comes nearest
        to it. Else its path as the names have it, in lower case: equal for all its results. (Then
        the photo's name must be that of an image, for a photo may be called house.crop-1.jpg.)

    Example:
        >>> photo_of(["a/1.jpg", "a/1.JPG.CHAIN-1.JPG", "a/2.jpg.chain-1.jpg"], ["a"] * 3)
        [None, 'a/1.jpg', 'a/2.jpg']
    """
    sources = [_oldest(image_id) for image_id in image_ids]
    photos: dict[str, str] = {}
    of_name: dict[tuple[str, str], list[str]] = {}
    for image_id, label, source in zip(image_ids, labels, sources, strict=True):
        if source is None or not _is_image(source):
            photos.setdefault(image_id.casefold(), image_id)
            of_name.setdefault((_name(image_id), label), []).append(image_id)
    exact = set(photos.values())

    def find(source: str | None, label: str) -> str | None:
        if source is None or source in exact:
            return source
        if (same := photos.get(source.casefold())) is not None:
            return same
        moved = _nearest(source, of_name.get((_name(source), label), []))
        return moved or (source.casefold() if _is_image(source) else None)

    return [find(source, label) for source, label in zip(sources, labels, strict=True)]


def _oldest(image_id: str) -> str | None:
    match = _CHANGED_NAME.fullmatch(image_id)
    if match is None:
        return None
    source = match[1]
    while (match := _CHANGED_NAME.fullmatch(source)) and _is_image(match[1]):
        source = match[1]
    return source


def _nearest(path: str, others: Sequence[str]) -> str | None:
    """Of files of the same name the one with the most folders above it alike, if it is one."""
    ranked = sorted(((_num_alike(path, other), other) for other in others), reverse=True)
    is_clear = len(ranked) == 1 or (len(ranked) > 1 and ranked[0][0] > ranked[1][0])
    return ranked[0][1] if is_clear else None


def _num_alike(one: str, other: str) -> int:
    pairs = zip(reversed(one.casefold().split("/")), reversed(other.casefold().split("/")))  # noqa: B905
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _name(image_id: str) -> str:
    return image_id.rpartition("/")[2].casefold()


def _is_image(path: str) -> bool:
    return _name(path).rpartition(".")[2] in _EXTENSIONS
