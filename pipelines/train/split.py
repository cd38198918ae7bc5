"""The photos of a training, examined once and shared out between its two sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.ray_runtime.cluster_options import Site
from pipelines.scan import Scan, list_labelled, scan_photos
from pipelines.train.config import TrainConfig
from pipelines.train.network import preprocessing_of
from retrieval.augmentations.manifest import AUGMENT_FORMAT, MANIFEST, SETTINGS
from retrieval.augmentations.result_names import photo_of
from retrieval.errors import IndexFormatError, UsageError
from retrieval.format_version import check_table_format
from retrieval.storage import (
    DAMAGED_PARQUET,
    absolute_uri,
    file_exists,
    first_line,
    join,
    open_input,
    parquet_table,
    read_bytes,
)
from retrieval.training.splitting import LEFT_OUT, TRAINING, VALIDATION, assign_sides, hold_out

__all__ = ["SPLIT_SCHEMA", "Split", "share_photos", "split_photos"]

SPLIT_SCHEMA = pa.schema(
    [pa.field(name, pa.string(), nullable=False) for name in ("image_id", "uri", "label", "side")]
    + [pa.field("size_bytes", pa.int64(), nullable=False)]
    # Null where an earlier release has begun, which did not note it.
    + [pa.field("content_sha256", pa.string())]
)
_NAMED = "named "  # begins the source of copies whose photo is not there


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
    preprocessing = preprocessing_of(config)

    def examine(folder: str) -> Scan:
        return scan_photos(
            folder,
            config.labels,
            size=preprocessing.size,
            decoder=preprocessing.decoder,
            site=site,
            listed=list_labelled(folder, config.labels, follow_links=config.follow_links),
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
        table = _link_to_measured(table, measured)
        held = np.asarray(pc.is_in(table["source"], measured["source"].combine_chunks()))
        sides = _sides(table, held, config)
        # What is in both folders is measured where it lies among the validation photos.
        sides = pc.if_else(pc.equal(sides, VALIDATION), LEFT_OUT, sides)
        of_measured = _sides(measured, np.ones(measured.num_rows, np.bool_), config)
        table, sides = pa.concat_tables([table, measured]), pa.concat_arrays([sides, of_measured])
        rejects = pa.concat_tables([rejects, more_rejects])
    _say_shared(photos, table, say)
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
    _refuse_tables(photos)
    scan = examine(photos)
    _say_left_out(photos, scan, say)
    return _with_sources(scan.photos, photos, say), scan.rejects


def _refuse_tables(photos: str) -> None:
    """Say of what `augment --format parquet` wrote that it is for other tools."""
    try:
        settings = json.loads(read_bytes(join(absolute_uri(photos), SETTINGS)))
    except (OSError, ValueError):
        return
    if isinstance(settings, dict) and settings.get("format") == "parquet":
        raise UsageError(
            f"{photos}: holds the tables of augment --format parquet, which are for other tools. "
            f"Train on class folders: augment --format jpeg, into another folder."
        )


def _say_left_out(photos: str, scan: Scan, say: Callable[[str], None]) -> None:
    if scan.rejects.num_rows:
        reasons = ", ".join(f"{count} {name}" for name, count in scan.reject_reasons.items())
        say(f"{photos}: {scan.rejects.num_rows} files are no readable photos ({reasons})")
    if scan.num_unlabelled:
        say(f"{photos}: {scan.num_unlabelled} files lie in no class and are left out")
    for label in scan.empty_classes:
        say(f"{photos}: class {label!r} has no readable photo and is left out")


def _with_sources(found: pa.Table, photos: str, say: Callable[[str], None]) -> pa.Table:
    """Add `source` and `is_original`.

    The list that `augment` left tells them. Where it stayed behind, as its folder is hidden, the
    names of results do; every other file is a photo of its own.
    """
    ids, labels = found["image_id"].to_pylist(), found["label"].to_pylist()
    listed = _listed_sources(photos)
    sources = dict(zip(ids, found["content_sha256"].to_pylist(), strict=True))
    sources |= {image_id: source for image_id, (source, _) in listed.items()}
    copies = {image_id for image_id, (_, is_copy) in listed.items() if is_copy}
    named = dict(zip(ids, photo_of(ids, labels), strict=True))
    unlisted = {name: photo for name, photo in named.items() if photo and name not in listed}
    for image_id, photo in unlisted.items():
        sources[image_id] = sources.get(photo, f"{_NAMED}{photo}")
    if unlisted:
        example, photo = next(iter(unlisted.items()))
        say(
            f"{photos}: {len(unlisted)} files have names of results of augment but stand in no "
            f"list of it, and are taken for copies of the photos in their names, such as {example} "
            f"of {photo}"
        )
    of_rows = pa.array([sources[name] for name in ids], pa.string())
    is_original = [name not in copies and name not in unlisted for name in ids]
    return found.append_column("source", of_rows).append_column(
        "is_original", pa.array(is_original, pa.bool_())
    )


def _listed_sources(photos: str) -> dict[str, tuple[str, bool]]:
    """What the list of `augment` says: image id → hash of its photo, whether it is a copy."""
    uri = join(absolute_uri(photos), MANIFEST)
    if not file_exists(uri):
        if file_exists(join(absolute_uri(photos), SETTINGS)):
            raise UsageError(
                f"{photos}: augment has not finished there, so that copies of validation photos "
                f"cannot be told. Run augment again."
            )
        return {}
    try:
        with open_input(uri) as stream:
            rows = parquet_table(stream, columns=["image_id", "source_sha256", "technique"])
    except DAMAGED_PARQUET as error:
        raise IndexFormatError(
            f"{uri}: cannot be read ({first_line(error)}), so that copies of validation photos "
            f"cannot be told. Run augment again."
        ) from error
    check_table_format(rows.schema, AUGMENT_FORMAT, uri, IndexFormatError)
    columns = (rows[name].to_pylist() for name in ("image_id", "source_sha256", "technique"))
    return {
        image_id: (source, technique is not None)
        for image_id, source, technique in zip(*columns, strict=True)
    }


def _link_to_measured(table: pa.Table, measured: pa.Table) -> pa.Table:
    """Copies by name alone, of which the photo lies among the validation photos, are of that."""
    sources = table["source"].to_pylist()
    ids, labels = (measured[name].to_pylist() for name in ("image_id", "label"))
    content = dict(zip(ids, measured["source"].to_pylist(), strict=True))
    lost = [row for row, source in enumerate(sources) if source.startswith(_NAMED)]
    if not lost:
        return table
    lost_ids, lost_labels = (table[name].take(lost).to_pylist() for name in ("image_id", "label"))
    found = photo_of([*lost_ids, *ids], [*lost_labels, *labels])
    for row, photo in zip(lost, found[: len(lost)], strict=True):
        sources[row] = content.get(photo, sources[row])
    number = table.column_names.index("source")
    return table.set_column(number, "source", pa.array(sources, pa.string()))


def _check_classes(validation: str, others: pa.Table, table: pa.Table) -> None:
    known = set(table["label"].to_pylist())
    strange = sorted(set(others["label"].to_pylist()) - known)
    if strange:
        raise UsageError(
            f"`validation` {validation}: has the class {strange[0]!r}, which is not trained on "
            f"({len(strange)} such classes). Remove it there, or add photos of it."
        )


def _say_shared(photos: str, table: pa.Table, say: Callable[[str], None]) -> None:
    """Tell of photos that lie in several classes, of which at most one can be right."""
    classes: dict[str, dict[str, str]] = {}
    columns = (table[name].to_pylist() for name in ("source", "label", "image_id"))
    for source, label, image_id in zip(*columns, strict=True):
        classes.setdefault(source, {}).setdefault(label, image_id)
    shared = [list(files.values()) for files in classes.values() if len(files) > 1]
    if shared:
        say(
            f"{photos}: {len(shared)} photos lie in more than one class, such as "
            f"{' = '.join(shared[0][:2])}; none of them is trained on and measured at once"
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
            f"Add photos, or name a folder: `validation` FOLDER."
        )
    for label in sorted(set(split.photos["label"].to_pylist()) - trained):
        say(f"{photos}: class {label!r} is left out: all its photos are held out as other classes'")
    for label in sorted(trained - measured):
        say(f"{photos}: class {label!r} is trained on but not measured: it has no photo to spare")
    if len(measured) == split.count(VALIDATION):
        say(
            f"{photos}: retrieval cannot be measured, since no class holds out two photos; of the "
            f"epochs the one with the smallest validation loss is kept"
        )
