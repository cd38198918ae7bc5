"""The photos of a training, examined once and shared out between its two sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.cluster.site import Site
from pipelines.scan import Scan, scan_photos
from pipelines.train.config import TrainConfig
from retrieval.augmentations.manifest import AUGMENT_FORMAT, MANIFEST, SETTINGS
from retrieval.errors import IndexFormatError, UsageError
from retrieval.storage import (
    DAMAGED_PARQUET,
    absolute_uri,
    file_exists,
    first_line,
    join,
    open_input,
    parquet_table,
)
from retrieval.table_format import check_table_format
from retrieval.training.splitting import LEFT_OUT, TRAINING, VALIDATION, assign_sides, hold_out

__all__ = ["SPLIT_SCHEMA", "Split", "share_photos", "split_photos"]

SPLIT_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("image_id", "uri", "label", "side")]
    + [pa.field("size_bytes", pa.int64(), nullable=False)]
)


@dataclass(frozen=True)
class Split:
    """Photos and their sides.

    Attributes:
        photos: Rows of SPLIT_SCHEMA, one a readable photo.
        rejects: Files that are no readable photos, rows of REJECT_SCHEMA.
    """

    photos: pa.Table
    rejects: pa.Table

    def labels_of(self, side: str) -> list[str]:
        """Label of each photo of one side."""
        of_side = self.photos.filter(pc.equal(self.photos["side"], side))
        return list(of_side["label"].to_pylist())

    def classes_of(self, side: str) -> list[str]:
        """Labels of one side, sorted; those of TRAINING are the head's classes, in its order."""
        return sorted(set(self.labels_of(side)))

    def count(self, side: str) -> int:
        """Photos of one side."""
        return len(self.labels_of(side))


def split_photos(photos: str, config: TrainConfig, say: Callable[[str], None], site: Site) -> Split:
    """Examine photos and share them out. Needs a connected Ray.

    Args:
        photos: Folder or address, perhaps written by `augment`.
        config: What to hold out, and how the photos are labelled.
        say: Called with a line for what is left out.
        site: Where the job runs.

    Raises:
        UsageError: fewer than two classes, nothing to validate on, or a validation folder that
            has a class of its own.
        StorageError, IndexFormatError: a folder cannot be read.
    """
    preprocessing = config.preprocessing()

    def examine(folder: str) -> Scan:
        return scan_photos(
            folder,
            config.labels,
            size=preprocessing.size,
            decoder=preprocessing.decoder,
            site=site,
            follow_links=config.follow_links,
        )

    return share_photos(photos, config, say, examine)


def share_photos(
    photos: str, config: TrainConfig, say: Callable[[str], None], examine: Callable[[str], Scan]
) -> Split:
    """Share out photos that somebody else examines; otherwise as `split_photos`."""
    table, rejects = _examine(photos, examine, say)
    if isinstance(config.validation, float):
        names, sources = table["label"].to_pylist(), table["source"].to_pylist()
        held = hold_out(names, sources, fraction=config.validation, seed=config.seed)
        sides = _sides(table, held, config)
    else:
        measured, more_rejects = _examine(config.validation, examine, say)
        _check_classes(config.validation, measured, table)
        held = np.asarray(pc.is_in(table["source"], measured["source"].combine_chunks()))
        sides = _sides(table, held, config)
        # What is in both folders is measured where it lies among the validation photos.
        sides = pc.if_else(pc.equal(sides, VALIDATION), LEFT_OUT, sides)
        of_measured = _sides(measured, np.ones(measured.num_rows, np.bool_), config)
        table, sides = pa.concat_tables([table, measured]), pa.concat_arrays([sides, of_measured])
        rejects = pa.concat_tables([rejects, more_rejects])
    table = table.append_column("side", sides)
    split = Split(table.select(SPLIT_SCHEMA.names).cast(SPLIT_SCHEMA), rejects)
    _check(photos, split, say)
    return split


def _sides(table: pa.Table, held: NDArray[np.bool_], config: TrainConfig) -> pa.Array:
    limit = config.photos_per_class
    return assign_sides(table, held, photos_per_class=limit, seed=config.seed)


def _examine(
    photos: str, examine: Callable[[str], Scan], say: Callable[[str], None]
) -> tuple[pa.Table, pa.Table]:
    """The readable photos of a folder with their sources, and its rejects."""
    scan = examine(photos)
    _say_left_out(photos, scan, say)
    return _with_sources(scan.photos, photos), scan.rejects


def _say_left_out(photos: str, scan: Scan, say: Callable[[str], None]) -> None:
    if scan.rejects.num_rows:
        reasons = ", ".join(f"{count} {name}" for name, count in scan.reject_reasons.items())
        say(f"{photos}: {scan.rejects.num_rows} files are no readable photos ({reasons})")
    if scan.num_unlabelled:
        say(f"{photos}: {scan.num_unlabelled} files lie in no class and are left out")
    for label in scan.empty_classes:
        say(f"{photos}: class {label!r} has no readable photo and is left out")


def _with_sources(found: pa.Table, photos: str) -> pa.Table:
    """Add `source` and `is_original`: from the list that `augment` left, else the photo itself."""
    uri = join(absolute_uri(photos), MANIFEST)
    sources = dict(
        zip(found["image_id"].to_pylist(), found["content_sha256"].to_pylist(), strict=True)
    )
    copies: set[str] = set()
    if not file_exists(uri) and file_exists(join(absolute_uri(photos), SETTINGS)):
        raise UsageError(
            f"{photos}: augment has not finished there, so that copies of validation photos cannot "
            f"be told. Run augment again."
        )
    if file_exists(uri):
        try:
            with open_input(uri) as stream:
                rows = parquet_table(stream, columns=["image_id", "source_sha256", "technique"])
        except DAMAGED_PARQUET as error:
            raise IndexFormatError(
                f"{uri}: cannot be read ({first_line(error)}), so that copies of validation photos "
                f"cannot be told. Run augment again."
            ) from error
        check_table_format(rows.schema, AUGMENT_FORMAT, uri, IndexFormatError)
        of_copy = zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True)
        for image_id, source, technique in of_copy:
            sources[image_id] = source
            if technique is not None:
                copies.add(image_id)
    ids = found["image_id"].to_pylist()
    found = found.append_column("source", pa.array([sources[name] for name in ids], pa.string()))
    return found.append_column("is_original", pa.array([name not in copies for name in ids]))


def _check_classes(validation: str, others: pa.Table, table: pa.Table) -> None:
    known = set(table["label"].to_pylist())
    strange = sorted(set(others["label"].to_pylist()) - known)
    if strange:
        raise UsageError(
            f"--validation {validation}: has the class {strange[0]!r}, which is not trained on "
            f"({len(strange)} such classes). Remove it there, or add photos of it."
        )


def _check(photos: str, split: Split, say: Callable[[str], None]) -> None:
    trained, measured = set(split.classes_of(TRAINING)), set(split.classes_of(VALIDATION))
    untrained = sorted(measured - trained)
    if untrained:
        raise UsageError(
            f"{photos}: class {untrained[0]!r} has no photo left to train on: all of them are "
            f"validation photos or copies of some. Add photos, or validate on others."
        )
    if len(trained) < 2:
        raise UsageError(
            f"{photos}: {len(trained)} class with photos to train on; at least two are "
            f"needed, one folder each."
        )
    if not measured:
        raise UsageError(
            f"{photos}: no class has a second photo, so that nothing can be held out to measure. "
            f"Add photos, or name a folder: --validation FOLDER."
        )
    for label in sorted(trained - measured):
        say(f"{photos}: class {label!r} is trained on but not measured: it has no photo to spare")
