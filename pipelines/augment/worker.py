"""What a worker of `augment` does with a few photos, and the notes it leaves of that.

A unit is some photos of one class. A worker writes the files of a unit and then, last, its
part: a small Parquet file that lists them. What a part lists is finished, whatever happens to
the run; a unit without part is made again, to the same bytes under the same names.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import cv2
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.ray_runtime.counter import Tally
from retrieval.augmentations.manifest import AUGMENT_FORMAT, AUGMENTED, MANIFEST_SCHEMA
from retrieval.augmentations.multiplying import Method, Multiplied
from retrieval.augmentations.result_names import result_name
from retrieval.augmentations.shares import Share
from retrieval.errors import ImageError, StorageError
from retrieval.format_version import check_table_format, with_format
from retrieval.images.fetch import fetch_photos
from retrieval.storage import (
    DAMAGED_PARQUET,
    join,
    join_inside,
    open_input,
    parquet_table,
    parse_json,
    write_bytes,
)

__all__ = [
    "UNIT_SCHEMA",
    "Augment",
    "Part",
    "encode_table",
    "part_path",
    "read_part",
]

UNIT_SCHEMA: Final = pa.schema(
    [
        pa.field("unit", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("source_sha256", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("is_copied", pa.bool_(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("skip", pa.int64(), nullable=False),
    ]
)
_PART_SCHEMA = MANIFEST_SCHEMA.append(pa.field("size_bytes", pa.int64(), nullable=False))
_CONTENT_SCHEMA = MANIFEST_SCHEMA.insert(2, pa.field("bytes", pa.binary(), nullable=False))
_Row: TypeAlias = dict[str, Any]
_Image: TypeAlias = tuple[_Row, bytes]  # row of the manifest, and content
_DROPPED = b"dropped"
_DATA_BYTES = b"data_bytes"
# Files written side by side: each waits for the disk to confirm it, or for an object store.
_WRITE_AT_ONCE = 8
_ROW_GROUP_ROWS = 32  # of some 25 KB each: a reader needs little memory, and can skip


def part_path(unit: str) -> str:
    """Where a unit's part lies in the output."""
    return f"{AUGMENTED}/parts/{unit}.parquet"


def data_path(unit: str) -> str:
    """Where a unit's images lie in the output, if that is Parquet."""
    return f"part-{unit}.parquet"


@dataclass(frozen=True, eq=False)
class Part:
    """What is finished of a unit.

    Attributes:
        rows: One row an image, of MANIFEST_SCHEMA.
        files: Size in bytes of each file, by its path in the output.
        dropped: How many results of each technique were dropped, by "technique/verdict".
    """

    rows: pa.Table
    files: Mapping[str, int]
    dropped: Mapping[str, int]

    def count_results(self) -> Counter[str]:
        """How many results there are of each photo, by its id in the photos' folder."""
        results = self.rows.filter(pc.is_valid(self.rows["technique"]))
        return Counter(results["source_id"].to_pylist())


def read_part(output: str, unit: str) -> Part | None:
    """A unit's part, or None if it is not there or cannot be read: the unit is made again then.

    Raises:
        StorageError: it was written by a newer release.
    """
    uri = join(output, part_path(unit))
    try:
        with open_input(uri) as stream:
            table = parquet_table(stream)
        check_table_format(table.schema, AUGMENT_FORMAT, uri, StorageError)
        notes = table.schema.metadata
        dropped, data_bytes = parse_json(notes[_DROPPED]), parse_json(notes[_DATA_BYTES])
        if data_bytes is None:
            names, sizes = (table[name].to_pylist() for name in ("image_id", "size_bytes"))
            files = dict(zip(names, sizes, strict=True))
        else:
            files = {data_path(unit): data_bytes}
        rows = table.select(MANIFEST_SCHEMA.names).replace_schema_metadata(None)
    except (*DAMAGED_PARQUET, TypeError, ValueError):
        return None
    return Part(rows, files, dropped)


class Augment:
    """Makes units: rows of UNIT_SCHEMA in, one row a finished unit out."""

    def __init__(self, output: str, method: Method, kind: str) -> None:
        """Take what all units have in common.

        Args:
            output: Folder or address.
            method: How photos are multiplied.
            kind: "jpeg" for files, "parquet" for one table a unit.
        """
        self._output, self._method, self._kind = output, method, kind

    def __call__(self, table: pa.Table, tally: Tally) -> pa.Table:
        """Make the units of a batch and write their parts; tell a `Tally` of each image."""
        cv2.setNumThreads(1)  # the task has booked one CPU
        of_unit: dict[str, list[_Row]] = {}
        for row in table.to_pylist():
            of_unit.setdefault(row["unit"], []).append(row)
        for unit, photos in of_unit.items():
            self._make(unit, photos, tally)
        return pa.table({"unit": pa.array(of_unit, pa.string())})

    def _make(self, unit: str, photos: list[_Row], tally: Tally) -> None:
        dropped: Counter[str] = Counter()
        images = self._images(photos, dropped, tally)
        write = self._write_table if self._kind == "parquet" else self._write_files
        rows, data_bytes = write(unit, images)
        notes = {_DROPPED: json.dumps(dropped), _DATA_BYTES: json.dumps(data_bytes)}
        part = pa.Table.from_pylist(rows, schema=_PART_SCHEMA.with_metadata(notes))
        write_bytes(join(self._output, part_path(unit)), encode_table(part))

    def _images(self, photos: list[_Row], dropped: Counter[str], tally: Tally) -> Iterator[_Image]:
        """The images of a unit, one after the other; counts what was dropped on the way."""
        uris, sizes = ([photo[name] for photo in photos] for name in ("uri", "size_bytes"))
        for photo, fetched in zip(photos, fetch_photos(uris, sizes), strict=True):
            content, multiplied = self._multiply(photo, fetched)
            same = {name: photo[name] for name in ("label", "source_id", "source_sha256")}
            if photo["is_copied"]:
                yield {"image_id": photo["image_id"], **same}, content
            for result in multiplied.results:
                name = result_name(photo["image_id"], result.technique, result.copy)
                made = {"technique": result.technique, "parameters": result.parameters}
                yield {"image_id": name, **same, **made}, result.content
            for (technique, verdict), count in multiplied.dropped.items():
                dropped[f"{technique}/{verdict}"] += count
            num_made = photo["is_copied"] + photo["count"]  # what was dropped, too
            tally.add(num_made, "augmented", [photo["unit"], photo["image_id"]])

    def _multiply(self, photo: _Row, fetched: bytes | ImageError) -> tuple[bytes, Multiplied]:
        try:
            if isinstance(fetched, ImageError):
                raise fetched
            # The plan is for the content that was examined: another one has another part.
            if hashlib.sha256(fetched).hexdigest() != photo["source_sha256"]:
                raise StorageError(
                    f"{photo['uri']}: has changed since this run began. Run the same command "
                    f"again: what is finished is kept."
                )
            share = Share(photo["first"], photo["count"], photo["skip"])
            return fetched, self._method.multiply(fetched, photo["source_id"], share)
        except ImageError as error:
            raise StorageError(
                f"{photo['uri']}: could be read when this run began, but no more ({error}). Put "
                f"it back or remove it, and run the same command again: what is finished is kept."
            ) from error

    def _write_files(self, unit: str, images: Iterator[_Image]) -> tuple[list[_Row], None]:
        rows, writes = [], []
        with ThreadPoolExecutor(_WRITE_AT_ONCE) as writers:
            for row, content in images:
                rows.append({**row, "size_bytes": len(content)})
                uri = join_inside(self._output, row["image_id"])
                writes.append(writers.submit(write_bytes, uri, content))
            for write in writes:
                write.result()
        return rows, None

    def _write_table(self, unit: str, images: Iterator[_Image]) -> tuple[list[_Row], int]:
        rows = [{**row, "bytes": content} for row, content in images]
        data = encode_table(pa.Table.from_pylist(rows, schema=_CONTENT_SCHEMA), _ROW_GROUP_ROWS)
        write_bytes(join(self._output, data_path(unit)), data)
        return [{**row, "size_bytes": len(row["bytes"])} for row in rows], data.size


def encode_table(table: pa.Table, row_group_rows: int | None = None) -> pa.Buffer:
    """A table as the bytes of a Parquet file; text is compressed, images are already."""
    sink = pa.BufferOutputStream()
    text = [name for name in table.column_names if name != "bytes"]
    pq.write_table(
        with_format(table, AUGMENT_FORMAT),
        sink,
        row_group_size=row_group_rows,
        use_dictionary=text,
        compression={name: "zstd" if name in text else "none" for name in table.column_names},
        write_statistics=text,
        write_page_checksum=True,
    )
    return sink.getvalue()
