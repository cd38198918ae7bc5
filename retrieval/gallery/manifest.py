"""A manifest: a Parquet file in which somebody else lists the photos of a gallery.

For galleries that a database knows better than any folder does, or that are too large to list
every night. What it says of size and time decides whether a photo counts as changed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from retrieval.errors import IndexFormatError
from retrieval.secrets import holds_secret
from retrieval.storage import (
    DAMAGED_PARQUET,
    absolute_uri,
    check_inflation,
    first_line,
    is_no_answer,
    join,
    not_read,
    open_input,
    parquet_file,
)
from retrieval.storage.text_columns import as_text

__all__ = ["CATALOGUE_SCHEMA", "MAX_TIME_US", "read_manifest"]

CATALOGUE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("modified_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
# Beyond it a time counts as unknown: DuckDB, Arrow and 64 bits all hold the years to 148,000.
MAX_TIME_US = 2**62
_MOST = {"s": MAX_TIME_US // 10**6, "ms": MAX_TIME_US // 1000, "us": MAX_TIME_US}
_BATCH_ROWS = 64 * 1024


def read_manifest(uri: str) -> Iterator[pa.RecordBatch]:
    """The photos of a manifest, a part at a time, in its order.

    Args:
        uri: A Parquet file with the columns of CATALOGUE_SCHEMA; others are passed over. A
            photo's `uri` is an absolute path or an address, or a path relative to the
            manifest's folder. `modified_at` may be a time without zone, taken for UTC.

    Returns:
        Batches of CATALOGUE_SCHEMA.

    Raises:
        IndexFormatError: it cannot be read, lacks a column, has an empty cell, a negative size or
            an address with credentials in it, or lists nothing.
    """
    folder = absolute_uri(uri).rpartition("/")[0]
    is_empty = True
    try:
        with open_input(uri) as stream, parquet_file(stream) as file:
            missing = set(CATALOGUE_SCHEMA.names) - set(file.schema_arrow.names)
            if missing:
                raise IndexFormatError(
                    f"{uri}: has no column {', '.join(sorted(missing))}; a manifest needs "
                    f"{', '.join(CATALOGUE_SCHEMA.names)}."
                )
            check_inflation(file, CATALOGUE_SCHEMA.names, stream.size())
            for batch in file.iter_batches(_BATCH_ROWS, columns=CATALOGUE_SCHEMA.names):
                is_empty = is_empty and not batch.num_rows
                yield _checked(batch.select(CATALOGUE_SCHEMA.names), folder, uri)
    except DAMAGED_PARQUET as error:
        if is_no_answer(error):
            raise not_read(uri, error) from error
        raise IndexFormatError(
            f"{uri}: this manifest cannot be read ({first_line(error)}). Write it again."
        ) from error
    if is_empty:
        raise IndexFormatError(f"{uri}: lists no photo. At least one row is needed.")


def _checked(batch: pa.RecordBatch, folder: str, uri: str) -> pa.RecordBatch:
    for name in batch.schema.names:
        if batch[name].null_count:
            raise IndexFormatError(
                f"{uri}: an empty cell in the column {name}. Each photo needs "
                f"{', '.join(batch.schema.names)}."
            )
    ids, given = as_text(batch["image_id"]), as_text(batch["uri"]).to_pylist()
    addresses = [_absolute(text, folder) for text in given]
    for name, text in zip(ids.to_pylist(), given, strict=True):
        if holds_secret(text):
            raise IndexFormatError(
                f"{uri}: credentials stand in the uri of {name!r}, and would get into the index "
                f"and its logs. Name the photos without them; this machine needs its own."
            )
    times = _times(batch["modified_at"])
    columns = [ids, pa.array(addresses, pa.string()), batch["size_bytes"], times]
    arrays = [
        column.cast(field.type) for column, field in zip(columns, CATALOGUE_SCHEMA, strict=True)
    ]
    checked = pa.record_batch(arrays, schema=CATALOGUE_SCHEMA)
    if checked.num_rows and pc.min(checked["size_bytes"]).as_py() < 0:
        raise IndexFormatError(f"{uri}: a negative size_bytes; the size of each photo is needed.")
    return checked


def _times(times: pa.Array) -> pa.Array:
    """In microseconds, what is finer cut off; 0 where 64 bits have no room for one."""
    kind = CATALOGUE_SCHEMA.field("modified_at").type
    if not pa.types.is_timestamp(times.type):
        return times.cast(kind)
    if times.type.tz is None:
        times = pc.assume_timezone(times, "UTC")
    if times.type.unit in _MOST:
        numbers, most = times.cast(pa.int64()), _MOST[times.type.unit]
        is_known = pc.and_(pc.less(numbers, most), pc.greater(numbers, -most))
        times = pc.if_else(is_known, numbers, 0).cast(times.type)
    return times.cast(kind, safe=False)


def _absolute(address: str, folder: str) -> str:
    return address if "://" in address or address.startswith("/") else join(folder, address)
