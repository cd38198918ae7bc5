"""The protocol: some photos of each class become the queries, all others the gallery."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.progress import progress_line
from pipelines.scan import Scan
from retrieval.augmentations.manifest import SETTINGS
from retrieval.catalogue import list_photos
from retrieval.errors import StorageError, UsageError
from retrieval.experiments import chance_accuracy, choose_queries
from retrieval.format_version import FORMAT_VERSION, check_format_version
from retrieval.storage import (
    absolute_uri,
    file_exists,
    first_line,
    is_local,
    join,
    join_inside,
    list_files,
    read_bytes,
    remove_folder,
    write_bytes,
)

__all__ = ["GALLERY", "QUERIES", "Sides", "check_places", "copy_photos", "find_sides"]

QUERIES: Final = "queries"
GALLERY: Final = "gallery"
_SIDES: Final = (QUERIES, GALLERY)
_MARKER: Final = "sides.json"  # says that the two folders are ours, and what they hold
_FORMAT: Final = 1  # of that file
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
        UsageError: fewer than two classes, or no class has photos to spare for queries.
    """
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
            f"--queries-per-class {per_class}: no class of {photos} has {per_class + 2} different "
            f"photos, the largest has {max(sizes.values())}; two must remain in the gallery. Use "
            f"fewer queries, or add photos."
        )
    for label, size in sorted(sizes.items()):
        if size - per_class < 2:
            say(f"{photos}: class {label!r} has {size} photos and gives no queries")
    columns = ["image_id", "uri", "content_sha256", "label"]
    return Sides(table.select(columns).append_column("side", sides))


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


def check_places(photos: str, output: str) -> None:
    """Refuse an output whose photos would be mixed up with the originals.

    Raises:
        UsageError: one lies in the other, or the photos have been augmented already.
        StorageError: the copies' folders hold files of somebody else.
    """
    copies = join(output, "photos")
    source = _real(photos)
    if _real(output).startswith(source) or source.startswith(_real(copies)):
        raise UsageError(
            f"{output}: its copies of photos would be mixed up with those in {photos}. Choose a "
            f"folder elsewhere."
        )
    if file_exists(join(photos, SETTINGS)):
        raise UsageError(
            f"{photos}: has been written by augment, so that the gallery would hold copies of the "
            f"queries. Give the folder of the original photos."
        )
    if not file_exists(join(copies, _MARKER)):
        strange = [file for side in _SIDES for file in list_files(join(copies, side))]
        if strange:
            raise StorageError(
                f"{copies}: holds photos that experiment has not written, such as {strange[0]}. "
                f"Choose a new folder."
            )


def _real(uri: str) -> str:
    return f"{os.path.realpath(absolute_uri(uri)) if is_local(uri) else uri}/"


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
    for side in _SIDES:
        remove_folder(join(folder, side))
    marker = {FORMAT_VERSION: _FORMAT, "sha256": sides.fingerprint()}
    write_bytes(join(folder, _MARKER), (json.dumps(marker) + "\n").encode())
    rows = sides.photos.to_pylist()
    num_done = 0
    with (
        progress_line("copied", "photos", len(rows), lambda: num_done),
        ThreadPoolExecutor(_AT_ONCE) as threads,
    ):
        for start in range(0, len(rows), _BATCH):
            for _ in threads.map(partial(_copy, folder), rows[start : start + _BATCH]):
                num_done += 1


def _is_copied(sides: Sides, folder: str) -> bool:
    where = join(folder, _MARKER)
    try:
        marker = dict(json.loads(read_bytes(where)))
    except (OSError, ValueError, TypeError):
        return False
    check_format_version(marker, _FORMAT, where, StorageError)
    try:
        found = [(side, image_id) for side in _SIDES for image_id in _ids_in(join(folder, side))]
    except (OSError, StorageError):
        return False
    rows = sides.photos.select(["side", "image_id"]).to_pylist()
    wanted = [(row["side"], row["image_id"]) for row in rows]
    return marker.get("sha256") == sides.fingerprint() and sorted(found) == sorted(wanted)


def _ids_in(folder: str) -> list[str]:
    return list_photos(folder)["image_id"].to_pylist()


def _copy(folder: str, row: dict[str, Any]) -> None:
    try:
        content = read_bytes(row["uri"])
    except OSError as error:
        raise StorageError(
            f"{row['uri']}: could be read when this run began, but no more ({first_line(error)}). "
            f"Put it back or remove it, and run the same command again."
        ) from error
    if hashlib.sha256(content).hexdigest() != row["content_sha256"]:
        raise StorageError(
            f"{row['uri']}: has changed since this run began. Run the same command again."
        )
    write_bytes(join_inside(join(folder, row["side"]), row["image_id"]), content)
