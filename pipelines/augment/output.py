"""The output folder of `augment`: what may be one, what is kept of it, what goes.

In the end the folder holds what the settings say and nothing else. So files of earlier settings
go, in an order in which a kill does no harm: first the manifest, which vouches for all of
them, then the parts, which vouch for some, then the files themselves. Nothing goes that the job
has not written: it keeps a list of the photos that it copies, made before it copies any, and
knows results by their names. A folder with any other file, or with a link, is refused before
anything is written; hidden files outside `.augmented` are nobody's business and stay.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import pyarrow as pa

from pipelines.augment.config import AugmentConfig
from pipelines.augment.worker import Part, encode_table, part_path, read_part
from retrieval.augmentations.manifest import AUGMENT_FORMAT, AUGMENTED, MANIFEST, SETTINGS
from retrieval.augmentations.multiplying import Method
from retrieval.augmentations.recipes import load_recipe
from retrieval.augmentations.result_names import source_of
from retrieval.errors import StorageError, UsageError
from retrieval.format_version import check_format_version, check_table_format
from retrieval.gallery.listing import CONTACT_SHEET, is_left_out
from retrieval.images import check_decoder, newest_decoder
from retrieval.storage import (
    DAMAGED_PARQUET,
    Entry,
    check_apart,
    entries,
    file_exists,
    is_path_below,
    join,
    open_input,
    parquet_table,
    read_json,
    remove_written,
    write_bytes,
    written_as,
)

__all__ = [
    "REJECTS",
    "SETTINGS",
    "AugmentReport",
    "check_format",
    "check_places",
    "finished_parts",
    "make_method",
    "read_parts",
    "recorded_decoder",
    "remove_others",
    "sheet_path",
]

REJECTS: Final = f"{AUGMENTED}/rejects.parquet"
_PARTS: Final = f"{AUGMENTED}/parts/"
_COPIED: Final = f"{AUGMENTED}/copied.parquet"
_UNIT: Final = "[0-9a-f]{24}-[0-9]+-[0-9]+"
_TABLE: Final = re.compile(rf"part-{_UNIT}\.parquet")
_PART: Final = re.compile(rf"{re.escape(_PARTS)}{_UNIT}\.parquet")
_AT_ONCE: Final = 16  # files read side by side: hides the latency of an object store


def sheet_path(kind: str) -> str:
    """Where the contact sheet lies; hidden in a folder of Parquet, that it can be read as one."""
    return CONTACT_SHEET if kind == "jpeg" else f"{AUGMENTED}/{CONTACT_SHEET}"


def check_places(photos: str, output: str) -> None:
    """Refuse folders that would be mixed up or overwritten.

    Raises:
        UsageError: one folder lies in the other, or the photos have been augmented already.
        StorageError: the output holds files of somebody else.
    """
    check_apart({"the photos' folder": photos}, {"the output": output})
    if file_exists(join(photos, SETTINGS)):
        raise UsageError(
            f"{photos}: has been written by augment, and copies of copies are not made. Give the "
            f"folder of the original photos."
        )
    copied, is_known = _read_copied(output), _is_known(output)
    for entry in entries(output):
        if not _may_lie_there(entry, copied, is_known=is_known):
            raise StorageError(
                f"{output}: holds files that augment has not written, such as {entry.path}. "
                f"Choose a new folder, or move them elsewhere."
            )


def _is_known(output: str) -> bool:
    """Whether an earlier run of augment has begun there."""
    try:
        found = read_json(join(output, SETTINGS))
    except (OSError, ValueError):
        return False
    return {"photos", "recipe"} <= found.keys()


def _may_lie_there(entry: Entry, copied: Collection[str], *, is_known: bool) -> bool:
    top = entry.path.partition("/")[0]
    if top != AUGMENTED and _is_hidden(entry.path):
        return True
    if entry.kind == "folder":
        return top != AUGMENTED or f"{entry.path}/" in (f"{AUGMENTED}/", _PARTS)
    path = written_as(entry.path)
    is_left_of_a_start = path == SETTINGS != entry.path
    return entry.kind == "file" and (is_left_of_a_start or (is_known and _is_ours(path, copied)))


def recorded_decoder(output: str) -> int | None:
    """The decoder by which the photos of an output were read; None where nothing says it."""
    try:
        found = read_json(join(output, SETTINGS))["method"]["decoder_version"]
    except (OSError, ValueError, TypeError):
        return None  # none there, or of somebody else, which `check_places` refuses
    return found if type(found) is int else None


def make_method(config: AugmentConfig, output: str) -> Method:
    """How photos are multiplied into a folder, which keeps its decoder when it goes on.

    Raises:
        UsageError: the recipe, or a decoder that this program does not have.
    """
    decoder = recorded_decoder(output) if config.decoder is None else config.decoder
    decoder = newest_decoder() if decoder is None else decoder
    check_decoder(decoder)
    return Method(load_recipe(config.recipe), config.seed, config.size, config.quality, decoder)


def _read_copied(output: str) -> frozenset[str]:
    """The photos that earlier runs have copied, or were about to; none where no list is."""
    uri = join(output, _COPIED)
    try:
        with open_input(uri) as stream:
            table = parquet_table(stream)
        check_table_format(table.schema, AUGMENT_FORMAT, uri, StorageError)
        return frozenset(filter(is_path_below, table["image_id"].to_pylist()))
    except DAMAGED_PARQUET:
        return frozenset()


def check_format(output: str) -> None:
    """Refuse an output that a newer release has written: StorageError."""
    uri = join(output, SETTINGS)
    try:
        found = read_json(uri)
    except (OSError, ValueError):
        return  # none there, or damaged: they are written anew
    check_format_version(found, AUGMENT_FORMAT, uri, StorageError)


def _write_copied(output: str, photos: Iterable[str]) -> None:
    table = pa.table({"image_id": pa.array(sorted(photos), pa.string())})
    write_bytes(join(output, _COPIED), encode_table(table))


def _is_ours(path: str, copied: Collection[str]) -> bool:
    """Whether a file is a copied photo, a result of one, a table of them, or one beside them."""
    own = {SETTINGS, MANIFEST, REJECTS, _COPIED, *map(sheet_path, ("jpeg", "parquet"))}
    is_table = _TABLE.fullmatch(path) or _PART.fullmatch(path)
    return is_table is not None or path in own or path in copied or source_of(path) in copied


def _is_hidden(path: str) -> bool:
    return any(map(is_left_out, path.split("/")))


def _file_sizes(output: str) -> dict[str, int]:
    """Size in bytes of each file of a folder, hidden ones too, by its path; no link followed."""
    return {entry.path: entry.size_bytes for entry in entries(output) if entry.kind == "file"}


def read_parts(output: str, units: Iterable[str]) -> dict[str, Part | None]:
    """The part of each unit."""
    units = list(units)
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        parts = threads.map(lambda unit: read_part(output, unit), units)
        return dict(zip(units, parts, strict=True))


def finished_parts(output: str, keys: Collection[str]) -> dict[str, Part]:
    """Units that an earlier run has finished and that this one needs.

    Args:
        output: Folder or address.
        keys: Of the classes as they are planned now.

    Returns:
        The parts, by unit, whose files are all there in the size in which they were written.
    """
    listing = _file_sizes(output)
    names = [
        path.removeprefix(_PARTS).removesuffix(".parquet")
        for path in listing
        if path.startswith(_PARTS)
    ]
    needed = [name for name in names if name.partition("-")[0] in keys]
    return {
        unit: part
        for unit, part in read_parts(output, needed).items()
        if part and all(listing.get(path) == size for path, size in part.files.items())
    }


def remove_others(
    output: str, kept: Mapping[str, Part], photos: Collection[str], kind: str
) -> None:
    """Remove what earlier runs have written and this one will not.

    Args:
        output: Folder or address.
        kept: Parts, with their files, that are needed as they are.
        photos: Image ids of the photos that this run copies.
        kind: "jpeg" or "parquet".

    Raises:
        StorageError: a file cannot be removed.
    """
    now, before = frozenset(photos), _read_copied(output)
    copied = now | before
    if copied != before:
        _write_copied(output, copied)
    needed = {SETTINGS, MANIFEST, REJECTS, _COPIED, sheet_path(kind), *map(part_path, kept)}
    needed.update(path for part in kept.values() for path in part.files)
    others = [
        path
        for path in _file_sizes(output)
        if path not in needed and _is_ours(written_as(path), copied)
    ]
    if others:
        remove_written(output, [MANIFEST])
    remove_written(output, [path for path in others if path.startswith(_PARTS)])
    # An empty class folder would be taken for a class without photos.
    folders = {str(parent) for path in copied for parent in PurePosixPath(path).parents}
    remove_written(
        output, [path for path in others if not path.startswith(_PARTS)], folders=folders - {"."}
    )
    if copied != now:
        _write_copied(output, now)


@dataclass(frozen=True, kw_only=True)
class AugmentReport:
    """An augmented folder.

    Attributes:
        output: Its address.
        recipe, per_class: As they were asked for.
        num_listed: Files in the folder of photos.
        num_rejected, reject_reasons: Labelled files that are no readable image, and why.
        rejects: Address of their table; None if there are none.
        num_unlabelled: Files without a label, which were not opened.
        num_classes: Classes that have images.
        empty_classes: Those that have none.
        num_originals, num_augmented: Images that were copied, and that were made of them.
        num_reused: Of both, those that an earlier run had finished.
        num_dropped: Results that were left out: for each reason, and by technique.
        contact_sheet, manifest: Addresses.
        images_per_s: Images made a second; None where none was made.
        seconds: Of each step.
    """

    output: str
    recipe: str
    per_class: int
    num_listed: int
    num_rejected: int
    reject_reasons: Mapping[str, int]
    rejects: str | None
    num_unlabelled: int
    num_classes: int
    empty_classes: Sequence[str]
    num_originals: int
    num_augmented: int
    num_reused: int
    num_dropped: Mapping[str, Any]
    contact_sheet: str
    manifest: str
    images_per_s: float | None
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The report as it is printed."""
        return asdict(self)
