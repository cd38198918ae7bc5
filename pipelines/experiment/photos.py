"""The protocol: some photos of each class become the queries, all others the gallery."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.experiment.places import (
    GALLERY,
    MARKER,
    QUERIES,
    SIDES,
    read_marker,
    written_files,
)
from pipelines.progress import progress_line
from pipelines.scan import Scan
from retrieval.augmentations.result_names import photo_of
from retrieval.errors import ImageError, StorageError, UsageError
from retrieval.experiments import chance_accuracy, choose_queries
from retrieval.format_version import FORMAT_VERSION, check_format_version
from retrieval.gallery.listing import list_photos
from retrieval.images.fetch import fetch_photo
from retrieval.storage import (
    entries,
    join,
    join_inside,
    read_bytes,
    remove_written,
    write_bytes,
)

__all__ = ["Sides", "copy_photos", "find_sides"]

_FORMAT: Final = 1  # of the marker
_AT_ONCE: Final = 16  # photos copied side by side: hides the latency of an object store
_BATCH: Final = 256  # photos that are waited for when copying is broken off


@dataclass(frozen=True)
class Sides:
    """The photos on both sides.

    Attributes:
        photos: Columns image_id, uri, content_sha256, label and side, sorted by image id.
    """

    photos: pa.Table

    def count(self, side: str) -> int:
        """Photos of a side."""
        return len(self.labels_of(side))

    def num_classes(self, side: str) -> int:
        """Classes of a side."""
        return len(set(self.labels_of(side)))

    def chance(self, k: int) -> float:
        """Top-k accuracy of a shuffled gallery."""
        sizes = Counter(self.labels_of(GALLERY))
        relevant = [sizes[label] for label in self.labels_of(QUERIES)]
        return round(chance_accuracy(relevant, sizes.total(), k), 4)

    def labels_of(self, side: str) -> list[str]:
        """Label of each photo of a side."""
        return self.photos.filter(pc.equal(self.photos["side"], side))["label"].to_pylist()

    def fingerprint(self) -> str:
        """Hash of which photos, by name and content, are on which side."""
        rows = self.photos.select(["image_id", "content_sha256", "side"]).to_pylist()
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def find_sides(
    photos: str, scan: Scan, *, per_class: int, seed: int, say: Callable[[str], None]
) -> Sides:
    """Share photos out.

    Args:
        photos: Folder or address, one folder a class.
        scan: What it holds.
        per_class: Queries of a class.
        seed: Of the choice.
        say: Called with one line for what is left out.

    Raises:
        UsageError: fewer than two classes, no class has photos to spare for queries, or a file has
            the name of a result of `augment`.
    """
    _check_originals(photos, scan.photos)
    table = _without_copies(scan.photos)
    _say_left_out(photos, scan, scan.photos.num_rows - table.num_rows, say)
    ids, labels = table["image_id"].to_pylist(), table["label"].to_pylist()
    queries = choose_queries(ids, labels, per_class=per_class, seed=seed)
    sides = pa.array([QUERIES if image_id in queries else GALLERY for image_id in ids], pa.string())
    sizes = Counter(labels)
    if len(sizes) < 2:
        raise UsageError(
            f"{photos}: {len(sizes)} class of photos; at least two are needed, one folder each."
        )
    if not queries:
        raise UsageError(
            f"`queries_per_class` {per_class}: no class of {photos} has {per_class + 2} different "
            f"photos, the largest has {max(sizes.values())}; two must remain in the gallery. Use "
            f"fewer queries, or add photos."
        )
    for label, size in sorted(sizes.items()):
        if size - per_class < 2:
            say(f"{photos}: class {label!r} has {size} photos and gives no queries")
    columns = ["image_id", "uri", "content_sha256", "label"]
    return Sides(table.select(columns).append_column("side", sides))


def _check_originals(photos: str, table: pa.Table) -> None:
    """A query of which an augmented copy is in the gallery would be found too easily."""
    ids, labels = (table[name].to_pylist() for name in ("image_id", "label"))
    for image_id, source in zip(ids, photo_of(ids, labels), strict=True):
        if source is not None:
            raise UsageError(
                f"{photos}: {image_id} has the name of a result of {source}, as augment gives it, "
                f"so that the gallery would hold copies of the queries. Give the folder of the "
                f"original photos, or rename it."
            )


def _without_copies(photos: pa.Table) -> pa.Table:
    """Each content once: a query whose copy is in the gallery would always be found."""
    first: dict[str, int] = {}
    for number, content in enumerate(photos["content_sha256"].to_pylist()):
        first.setdefault(content, number)
    return photos.take(pa.array(first.values(), pa.int64()))


def _say_left_out(photos: str, scan: Scan, num_copies: int, say: Callable[[str], None]) -> None:
    if scan.rejects.num_rows:
        reasons = ", ".join(f"{count} {name}" for name, count in scan.reject_reasons.items())
        say(f"{photos}: {scan.rejects.num_rows} files are no readable photos ({reasons})")
    if scan.num_unlabelled:
        say(f"{photos}: {scan.num_unlabelled} files lie in no class and are left out")
    if num_copies:
        say(f"{photos}: {num_copies} files are copies of others to the byte and are left out")
    for label in scan.empty_classes:
        say(f"{photos}: class {label!r} has no readable photo and is left out")


def copy_photos(sides: Sides, folder: str) -> None:
    """Bring the folders of both sides to hold these photos, to the byte, and no others.

    Args:
        sides: The photos.
        folder: In which the folders QUERIES and GALLERY are made.

    Raises:
        StorageError: a photo has changed since it was examined, or cannot be written; a newer
            release has written the folder.
    """
    if _is_copied(sides, folder):
        return
    # In this order a kill does no harm: the marker never vouches for earlier photos.
    before = _copied_before(sides, folder)
    folders = {str(parent) for name in before for parent in PurePosixPath(name).parents}
    remove_written(folder, before, folders=folders - {".", *SIDES})
    files = [f"{side}/{image_id}" for side, image_id in _wanted(sides)]
    marker = {FORMAT_VERSION: _FORMAT, "sha256": sides.fingerprint(), "files": files}
    write_bytes(join(folder, MARKER), (json.dumps(marker) + "\n").encode())
    rows = sides.photos.to_pylist()
    num_done = 0
    with (
        progress_line("copied", "photos", len(rows), lambda: num_done),
        ThreadPoolExecutor(_AT_ONCE) as threads,
    ):
        for start in range(0, len(rows), _BATCH):
            for _ in threads.map(partial(_copy, folder), rows[start : start + _BATCH]):
                num_done += 1


def _wanted(sides: Sides) -> list[tuple[str, str]]:
    rows = sides.photos.select(["side", "image_id"]).to_pylist()
    return sorted((row["side"], row["image_id"]) for row in rows)


def _is_copied(sides: Sides, folder: str) -> bool:
    marker = read_marker(folder)
    check_format_version(marker or {}, _FORMAT, join(folder, MARKER), StorageError)
    try:
        found = [(side, image_id) for side in SIDES for image_id in _ids_in(join(folder, side))]
    except StorageError:
        return False
    is_of_these = marker is not None and marker["sha256"] == sides.fingerprint()
    return is_of_these and sorted(found) == _wanted(sides)


def _copied_before(sides: Sides, folder: str) -> list[str]:
    """What an earlier run has copied, relative to the folder.

    Release 0.1.0 kept no list: then it is what has the content of a photo of now.
    """
    marker = read_marker(folder)
    if marker is None or "files" in marker:
        return written_files(marker)
    contents = {row["image_id"]: row["content_sha256"] for row in sides.photos.to_pylist()}
    found = [(side, image_id) for side in SIDES for image_id in _ids_in(join(folder, side))]
    for side, image_id in found:
        content = read_bytes(join(folder, side, image_id))
        if hashlib.sha256(content).hexdigest() != contents.get(image_id):
            raise StorageError(
                f"{folder}: holds photos of which cannot be told whether an earlier release of "
                f"experiment has copied them, such as {side}/{image_id}. Choose a new folder."
            )
    return [f"{side}/{image_id}" for side, image_id in found]


def _ids_in(folder: str) -> list[str]:
    if not any(entry.kind == "file" for entry in entries(folder)):
        return []
    return list_photos(folder)["image_id"].to_pylist()


def _copy(folder: str, row: dict[str, Any]) -> None:
    content = fetch_photo(row["uri"])
    if isinstance(content, ImageError):
        raise StorageError(
            f"{row['uri']}: could be read when this run began, but no more ({content.message}). "
            f"Put it back or remove it, and run the same command again."
        )
    if hashlib.sha256(content).hexdigest() != row["content_sha256"]:
        raise StorageError(
            f"{row['uri']}: has changed since this run began. Run the same command again."
        )
    write_bytes(join_inside(join(folder, row["side"]), row["image_id"]), content)
