"""What may lie in OUTPUT before an experiment, and what of it earlier runs have written."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from retrieval.augmentations.manifest import SETTINGS
from retrieval.errors import StorageError, UsageError
from retrieval.gallery.listing import is_litter
from retrieval.storage import (
    LISTING_BYTES,
    Entry,
    check_apart,
    entries,
    entry_at,
    file_exists,
    first_stranger,
    join,
    read_json,
    written_as,
)

__all__ = [
    "GALLERY",
    "MARKER",
    "QUERIES",
    "SIDES",
    "check_places",
    "read_marker",
    "written_files",
]

QUERIES: Final = "queries"
GALLERY: Final = "gallery"
SIDES: Final = (QUERIES, GALLERY)
# In OUTPUT/photos: says that the two folders there are ours, and names every file that they may
# hold; written before them.
MARKER: Final = "sides.json"
_TABLES: Final = ("experiment.md", "experiment.csv", "experiment.json")


def check_places(photos: str, output: str) -> None:
    """Refuse an output that would be mixed up with the photos, or is somebody else's.

    Raises:
        UsageError: one lies in the other, or the photos have been augmented already.
        StorageError: the output holds files of somebody else where this job writes, or links.
    """
    check_apart({"the photos' folder": photos}, {"the output": output})
    if file_exists(join(photos, SETTINGS)):
        raise UsageError(
            f"{photos}: has been written by augment, so that the gallery would hold copies of the "
            f"queries. Give the folder of the original photos."
        )
    copies = join(output, "photos")
    _check_folders(output)
    marker = read_marker(copies)
    for name in (*_TABLES, f"photos/{MARKER}"):
        entry = entry_at(join(output, name))
        if entry and (entry.kind != "file" or marker is None):
            raise _foreign(output, name)
    # Release 0.1.0 kept no list: the content tells, when all is known and before any file goes.
    copied = None if marker and "files" not in marker else frozenset(written_files(marker))
    # Beside the two sides lie the data sets, of which `augment` checks each.
    for name in SIDES if marker else ("",):
        is_ours = partial(_is_copy, name, copied)
        if strange := first_stranger(join(copies, name), is_ours):
            raise _foreign(output, join("photos", name, strange))
    _check_rows(output, has_begun=marker is not None)


def _is_copy(side: str, copied: frozenset[str] | None, entry: Entry) -> bool:
    """Whether a file below the copies' folder, or below one side of it, is ours or litter."""
    path = written_as(entry.path)
    if entry.kind == "folder" or is_litter(path) or (not side and path == MARKER):
        return True
    return copied is None or f"{side}/{path}" in copied


def _check_rows(output: str, *, has_begun: bool) -> None:
    """Of a row `train`, `embed` and `rank` check their own folders; links could lead to others."""
    for entry in entries(join(output, "rows")):
        is_near = entry.path.count("/") < 2
        if (is_near and entry.kind not in ("file", "folder")) or not (
            has_begun or entry.kind == "folder"
        ):
            raise _foreign(output, f"rows/{entry.path}")


def _check_folders(output: str) -> None:
    """The folders in which all else is written are none that a link leads to."""
    for name in ("photos", *(f"photos/{side}" for side in SIDES), "rows"):
        entry = entry_at(join(output, name))
        if entry and entry.kind != "folder":
            raise _foreign(output, name)


def _foreign(output: str, name: str) -> StorageError:
    return StorageError(
        f"{output}: holds files that experiment has not written, such as {name}. Choose a new "
        f"folder, or move them elsewhere."
    )


def read_marker(folder: str) -> dict[str, Any] | None:
    """What the marker says; None without one of ours."""
    try:
        found = read_json(join(folder, MARKER), max_bytes=LISTING_BYTES)
    except (OSError, ValueError):
        return None
    return found if "sha256" in found else None


def written_files(marker: dict[str, Any] | None) -> list[str]:
    """The files that an earlier run has copied, or was about to, relative to the copies' folder."""
    files = (marker or {}).get("files")
    return [name for name in files if isinstance(name, str)] if isinstance(files, list) else []
