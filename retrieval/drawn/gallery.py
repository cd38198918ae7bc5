"""A drawn gallery in a folder: photos to search in, photos to search with, and odd files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from retrieval.drawn.buildings import DESIGNS, design_of
from retrieval.drawn.odd_files import ODD_FILES, OddFile
from retrieval.drawn.photo import draw_photo, jpeg_quality
from retrieval.errors import StorageError, UsageError

__all__ = ["NUM_CLASSES", "DrawnGallery", "draw_gallery"]

NUM_CLASSES = len(DESIGNS)

SETTINGS_FILE = "drawn.json"
DRAWING_VERSION = 1  # raise it when the same settings give other pictures

# Photos 0, 1, 2 ... of a building are the gallery's, so queries and odd files start far off:
# more gallery photos then never move a query.
FIRST_QUERY_PHOTO = 1_000_000
FIRST_ODD_PHOTO = 2_000_000
FIRST_DISTRACTOR = 1_000_000  # as building


@dataclass(frozen=True)
class DrawnGallery:
    """A gallery in a folder.

    Attributes:
        queries: Folder of the photos to search with, one folder a class.
        gallery: Folder of the photos to search in: one folder a class, and distractors, which
            have no class, beside these folders.
        num_queries: Files under `queries`.
        num_gallery: Files under `gallery`: photos, odd files and distractors.
        num_distractors: How many of these show a building of no class.
        unreadable: Ids, relative to `gallery`, of the files without a whole picture in them.
    """

    queries: Path
    gallery: Path
    num_queries: int
    num_gallery: int
    num_distractors: int
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class _Settings:
    num_classes: int
    num_gallery_per_class: int
    num_queries_per_class: int
    num_distractors: int
    with_odd_files: bool
    seed: int


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
        num_classes: Buildings; beyond the 12 designed ones, random houses.
        num_gallery_per_class: Photos of each building in the gallery.
        num_queries_per_class: Further photos of each building, to search with.
        num_distractors: Photos of other houses in the gallery, without a class.
        with_odd_files: Add nine broken or unusual files, spread over the classes.
        seed: Another seed gives other photos.

    Returns:
        Where it is and what it counts.

    Raises:
        UsageError: A number is negative, or there is no class.
        StorageError: The folder holds something else, or cannot be written.

    Cost: about 0.05 s a photo on one core.
    """
    settings = _Settings(
        num_classes,
        num_gallery_per_class,
        num_queries_per_class,
        num_distractors,
        with_odd_files,
        seed,
    )
    _check(settings)
    plan = dict(_plan(folder, settings))
    try:
        if not _is_drawn(folder, settings, plan):
            _draw(folder, settings, plan)
    except OSError as error:
        raise StorageError(
            f"{folder}: could not be drawn into, found: {error}. "
            "A folder that can be written is needed: give another one."
        ) from error
    odd_files = _odd_files(settings)
    return DrawnGallery(
        queries=folder / "queries",
        gallery=folder / "gallery",
        num_queries=num_classes * num_queries_per_class,
        num_gallery=num_classes * num_gallery_per_class + len(odd_files) + num_distractors,
        num_distractors=num_distractors,
        unreadable=tuple(sorted(id_ for id_, _, odd in odd_files if not odd.is_readable)),
    )


def _check(settings: _Settings) -> None:
    for name, value in asdict(settings).items():
        least = 1 if name == "num_classes" else 0
        if value < least:
            raise UsageError(
                f"draw_gallery: {name}: found {value}, needed at least {least}. "
                "Give a larger number."
            )


def _odd_files(settings: _Settings) -> list[tuple[str, int, OddFile]]:
    """Id in the gallery, building and kind of each odd file, one building after the other."""
    odd_files = []
    for index, odd in enumerate(ODD_FILES if settings.with_odd_files else ()):
        building = index % settings.num_classes
        name = design_of(building).name
        odd_files.append((f"{name}/{name}-{odd.ending}", building, odd))
    return odd_files


def _plan(folder: Path, settings: _Settings) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    """Every file of the gallery, and what writes it."""
    queries, gallery, seed = folder / "queries", folder / "gallery", settings.seed
    for building in range(settings.num_classes):
        name = design_of(building).name
        for photo in range(settings.num_queries_per_class):
            yield (
                queries / name / f"{name}-query-{photo:02d}.jpg",
                partial(_write, building, FIRST_QUERY_PHOTO + photo, seed),
            )
        for photo in range(settings.num_gallery_per_class):
            yield gallery / name / f"{name}-{photo:02d}.jpg", partial(_write, building, photo, seed)
    for index in range(settings.num_distractors):
        yield (
            gallery / f"distractor-{index:02d}.jpg",
            partial(_write, FIRST_DISTRACTOR + index, 0, seed),
        )
    for index, (id_, building, odd) in enumerate(_odd_files(settings)):
        yield gallery / id_, partial(_write_odd, odd, building, FIRST_ODD_PHOTO + index, seed)


def _write(building: int, photo: int, seed: int, path: Path) -> None:
    image = draw_photo(building, photo, seed=seed)
    image.save(path, "JPEG", quality=jpeg_quality(building, photo, seed=seed))


def _write_odd(odd: OddFile, building: int, photo: int, seed: int, path: Path) -> None:
    odd.write(draw_photo(building, photo, seed=seed), path)


def _record(settings: _Settings) -> dict[str, int]:
    return {"drawing_version": DRAWING_VERSION, **asdict(settings)}


def _draw(folder: Path, settings: _Settings, plan: dict[Path, Callable[[Path], None]]) -> None:
    for path, write in plan.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
    # Written last: a drawing that was stopped half-way has no such file, and is not reused.
    (folder / SETTINGS_FILE).write_text(json.dumps(_record(settings), indent=2), encoding="utf-8")


def _is_drawn(folder: Path, settings: _Settings, plan: dict[Path, Callable[[Path], None]]) -> bool:
    """Whether the folder holds this gallery already; False if it is new or empty."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    found, needed = _read_record(folder / SETTINGS_FILE), _record(settings)
    others = [name for name, value in needed.items() if found.get(name) != value]
    if not found:
        problem = f"found files but no valid {SETTINGS_FILE}, needed a gallery drawn to its end"
    elif others:
        before = ", ".join(f"{name} {found.get(name)}" for name in others)
        now = ", ".join(f"{name} {needed[name]}" for name in others)
        problem = f"found a gallery drawn with {before}, needed {now}"
    else:
        missing = [path for path in plan if not path.is_file()]
        if not missing:
            return True
        problem = f"found {len(missing)} of {len(plan)} files missing, first {missing[0].name}"
    raise StorageError(f"{folder}: {problem}. Delete the folder, or give a new or empty one.")


def _read_record(path: Path) -> dict[str, object]:
    """Settings of the drawing in a folder; none if it was stopped, or is something else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
