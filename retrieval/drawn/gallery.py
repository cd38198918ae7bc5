"""A drawn gallery in a folder: photos to search in, photos to search with, and odd files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageEnhance

from retrieval.drawn.buildings import BUILDINGS
from retrieval.drawn.photo import draw_distractor, draw_photo
from retrieval.errors import StorageError, UsageError
from retrieval.format_version import FORMAT_VERSION, check_format_version
from retrieval.storage import JsonObject, read_json

NUM_CLASSES = len(BUILDINGS)
SETTINGS_FILE = "drawn.json"
_FORMAT = 1  # of that file
DRAWING_VERSION = 2  # raise it when the same settings give other pictures
# Photos 0, 1, 2 ... of a building are the gallery's: more of them never move a query.
FIRST_QUERY_PHOTO, FIRST_ODD_PHOTO = 1_000_000, 2_000_000

Record = dict[str, int]  # the settings of a gallery
Files = dict[str, tuple[int, int]]  # building and photo in each file, by its path


@dataclass(frozen=True)
class DrawnGallery:
    """A gallery in a folder."""

    queries: Path  # folder of the photos to search with, one folder a class
    gallery: Path  # folder of those to search in; distractors lie beside the folders of classes
    num_queries: int  # files under `queries`
    num_gallery: int  # files under `gallery`: photos, odd files and distractors
    num_distractors: int  # of which show a building of no class
    unreadable: tuple[str, ...]  # ids, relative to `gallery`, of files without a whole picture


def draw_gallery(  # noqa: PLR0913  (each is one number of the gallery; all but the folder named)
    folder: Path,
    *,
    num_classes: int = NUM_CLASSES,
    num_gallery_per_class: int = 12,
    num_queries_per_class: int = 3,
    num_distractors: int = 12,
    with_odd_files: bool = True,
    seed: int = 0,
) -> DrawnGallery:
    """Draw a gallery of buildings; a folder that already holds this very gallery is kept.

    Args:
        folder: Where to draw; new, empty, or drawn with the same settings.
        num_classes: Buildings, at most 12.
        num_gallery_per_class: Photos of each building in the gallery.
        num_queries_per_class: Further photos of each building, to search with.
        num_distractors: Photos of other houses in the gallery, without a class.
        with_odd_files: Add nine broken or unusual files, spread over the classes.
        seed: Another seed gives other photos.

    Raises:
        UsageError: A number is negative or too large, or there is no class.
        StorageError: The folder holds something else, or cannot be written.
    """
    record = {
        "drawing_version": DRAWING_VERSION,
        "num_classes": num_classes,
        "num_gallery_per_class": num_gallery_per_class,
        "num_queries_per_class": num_queries_per_class,
        "num_distractors": num_distractors,
        "with_odd_files": with_odd_files,
        "seed": seed,
    }
    _check(record)
    files = _plan(record)
    try:
        if not _is_drawn(folder, record, files):
            _draw(folder, record, files)
    except OSError as error:
        raise StorageError(
            f"{folder}: could not be drawn into, found: {error}. "
            "A folder that can be written is needed: give another one."
        ) from error
    ids = sorted(path[len("gallery/") :] for path in files if path.startswith("gallery/"))
    unreadable = tuple(id_ for id_ in ids if id_.endswith(UNREADABLE))
    queries, gallery, num_queries = folder / "queries", folder / "gallery", len(files) - len(ids)
    return DrawnGallery(queries, gallery, num_queries, len(ids), num_distractors, unreadable)


def _check(record: Record) -> None:
    for name, value in record.items():
        least = 1 if name == "num_classes" else 0
        problem = f"draw_gallery: {name}: found {value}, needed at"
        if value < least:
            raise UsageError(f"{problem} least {least}. Give a larger number.")
        if name == "num_classes" and value > NUM_CLASSES:
            raise UsageError(f"{problem} most {NUM_CLASSES}. Give a smaller number.")


def _plan(record: Record) -> Files:
    names, files = list(BUILDINGS)[: record["num_classes"]], {}
    for building, name in enumerate(names):
        for index in range(record["num_queries_per_class"]):
            path = f"queries/{name}/{name}-query-{index:02d}.jpg"
            files[path] = (building, FIRST_QUERY_PHOTO + index)
        for index in range(record["num_gallery_per_class"]):
            files[f"gallery/{name}/{name}-{index:02d}.jpg"] = (building, index)
    for index in range(record["num_distractors"]):
        files[f"gallery/distractor-{index:02d}.jpg"] = (NUM_CLASSES, index)
    for index, ending in enumerate(ODD_FILES if record["with_odd_files"] else ()):
        name = names[index % len(names)]
        files[f"gallery/{name}/{name}-{ending}"] = (index % len(names), FIRST_ODD_PHOTO + index)
    return files


def _content(path: str, building: int, photo: int, seed: int) -> bytes:
    draw = draw_distractor if building == NUM_CLASSES else partial(draw_photo, building)
    image = draw(photo, seed=seed)
    for ending, spoil in ODD_FILES.items():
        if path.endswith(f"-{ending}"):
            return spoil(image)
    rng = np.random.default_rng([seed, building, photo, 1])
    quality = rng.integers(35, 60) if rng.random() < 0.2 else rng.integers(75, 95)
    return _encoded(image, "JPEG", quality=int(quality))


def _encoded(image: Image.Image, format_: str, **options: Any) -> bytes:  # noqa: ANN401  (Pillow's)
    content = BytesIO()
    image.save(content, format_, **options)
    return content.getvalue()


def _rotated(photo: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the viewer must turn it a quarter clockwise
    return _encoded(photo.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=exif)


def _transparent(photo: Image.Image) -> Image.Image:
    return Image.merge("RGBA", (*photo.split(), Image.linear_gradient("L").resize(photo.size)))


def _sixteen_bit(photo: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(photo.convert("L"), np.uint16) * np.uint16(257))


def _animated(photo: Image.Image) -> bytes:
    frames = [ImageEnhance.Brightness(photo).enhance(share) for share in (0.8, 0.6)]
    return _encoded(photo, "GIF", save_all=True, append_images=frames, duration=400)


# What turns a photo into a broken or unusual file, by what follows the building in its name.
ODD_FILES: dict[str, Callable[[Image.Image], bytes]] = {
    "truncated.jpg": lambda photo: _encoded(photo, "JPEG")[:-2000],
    "text.jpg": lambda _: b"404 Not Found: the photo was moved.\n",
    "empty.jpg": lambda _: b"",
    "cmyk.jpg": lambda photo: _encoded(photo.convert("CMYK"), "JPEG"),
    "16-bit.png": lambda photo: _encoded(_sixteen_bit(photo), "PNG"),
    "transparent.png": lambda photo: _encoded(_transparent(photo), "PNG"),
    "exif-rotated.jpg": _rotated,
    "animated.gif": _animated,
    "png-inside.jpg": lambda photo: _encoded(photo, "PNG"),
}
UNREADABLE = ("-truncated.jpg", "-text.jpg", "-empty.jpg")


def _draw(folder: Path, record: Record, files: Files) -> None:
    for path, (building, photo) in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(_content(path, building, photo, record["seed"]))
    # Written last: a drawing that was stopped half-way has no such file, and is not reused.
    content = json.dumps({FORMAT_VERSION: _FORMAT, **record}, indent=2)
    (folder / SETTINGS_FILE).write_text(content, encoding="utf-8")


def _is_drawn(folder: Path, record: Record, files: Files) -> bool:
    """Whether the folder holds this gallery already; False if it is new or empty."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    try:
        found = read_json(str(folder / SETTINGS_FILE))
    except (OSError, ValueError):
        found = JsonObject()
    check_format_version(found, _FORMAT, str(folder / SETTINGS_FILE), StorageError)
    others = [name for name, value in record.items() if found.get(name) != value]
    if not found:
        problem = f"found files but no valid {SETTINGS_FILE}, needed a gallery drawn to its end"
    elif others:
        before = ", ".join(f"{name} {found.get(name)}" for name in others)
        now = ", ".join(f"{name} {record[name]}" for name in others)
        problem = f"found a gallery drawn with {before}, needed {now}"
    elif missing := [Path(path).name for path in files if not (folder / path).is_file()]:
        problem = f"found {len(missing)} of {len(files)} files missing, first {missing[0]}"
    else:
        return True
    raise StorageError(f"{folder}: {problem}. Delete the folder, or give a new or empty one.")
