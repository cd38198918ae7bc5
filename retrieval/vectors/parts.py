"""Cutting files into parts that several workers can read, and finding a part's row groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest

import numpy as np
import pyarrow.parquet as pq

from retrieval.errors import IndexFormatError, UsageError
from retrieval.index.shards import ROW_GROUP_ROWS
from retrieval.vectors.arrays import ArrayFile
from retrieval.vectors.source import VectorFile, VectorPart, VectorSource

__all__ = ["changed", "find_row_groups", "row_group_rows", "split", "whole"]


def split(source: VectorSource, max_rows: int) -> list[VectorPart]:
    """Cut the files of a source into parts, in the order of the files and their rows.

    A Parquet file is cut between row groups, so that no worker decodes what another one
    needs; a row group of more than `max_rows` rows stays whole. A .npy file or an array is cut
    anywhere, evenly. Every row is in one part; a file without rows has none.

    Args:
        source: The source, as `open_source` gives it.
        max_rows: The largest part, at least 1.

    Raises:
        UsageError: `max_rows` is less than 1.

    Cost: reads nothing. The row groups of other tools' files are known from opening; those of
        an index are as `retrieval.index.shards` writes them, which reading checks.
    """
    if max_rows < 1:
        raise UsageError(f"max_rows = {max_rows}: a part needs at least 1 row.")
    return [
        VectorPart(file, first_row, num_rows)
        for file in source.files
        for first_row, num_rows in _runs(_units(source, file, max_rows), max_rows)
    ]


def whole(part: VectorPart | VectorFile) -> VectorPart:
    """A part as it is, or a file as the part that is all of it."""
    return part if isinstance(part, VectorPart) else VectorPart(part, 0, part.num_rows)


def _units(source: VectorSource, file: VectorFile, max_rows: int) -> Sequence[int]:
    """Rows of each piece of a file that has to stay whole."""
    if file.ids_uri or isinstance(file, ArrayFile):
        num_parts = max(1, -(-file.num_rows // max_rows))
        bounds = [file.num_rows * number // num_parts for number in range(num_parts + 1)]
        return [stop - start for start, stop in pairwise(bounds)]
    if file.row_groups or source.spec is None:
        return file.row_groups or [file.num_rows]
    full, rest = divmod(file.num_rows, ROW_GROUP_ROWS)
    return [ROW_GROUP_ROWS] * full + [rest]


def _runs(units: Sequence[int], max_rows: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of runs of units, each as long as fits."""
    first_row = num_rows = 0
    for unit in units:
        if num_rows and num_rows + unit > max_rows:
            yield first_row, num_rows
            first_row, num_rows = first_row + num_rows, 0
        num_rows += unit
    if num_rows:
        yield first_row, num_rows


def row_group_rows(metadata: pq.FileMetaData) -> tuple[int, ...]:
    """Rows of each row group, from a Parquet footer."""
    return tuple(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups))


def find_row_groups(metadata: pq.FileMetaData, part: VectorPart) -> tuple[list[int], int]:
    """Which row groups hold the rows of a part.

    Args:
        metadata: The footer of the file, or of the file of its ids.
        part: The part.

    Returns:
        Numbers of the row groups, and the row of the file at which the first of them begins:
        that of the part, unless the ids of a .npy file are read.

    Raises:
        IndexFormatError: the file is not the one that was opened, or the part is no run of
            its row groups.
    """
    file = part.file
    if metadata.num_rows != file.num_rows:
        raise changed(file.uri, f"{metadata.num_rows} rows", f"{file.num_rows}")
    rows = row_group_rows(metadata)
    if file.row_groups and rows != file.row_groups:
        pairs = enumerate(zip_longest(rows, file.row_groups, fillvalue="none"))
        number, found, before = next((n, a, b) for n, (a, b) in pairs if a != b)
        raise changed(file.uri, f"row group {number} has {found} rows", f"{before}")
    bounds = np.cumsum([0, *rows])
    stop = part.first_row + part.num_rows
    held = np.flatnonzero((bounds[1:] > part.first_row) & (bounds[:-1] < stop))
    first = int(bounds[held[0]]) if held.size else part.first_row
    last = int(bounds[held[-1] + 1]) if held.size else stop
    if not file.ids_uri and (first, last) != (part.first_row, stop):
        raise IndexFormatError(
            f"{file.uri}: rows {part.first_row} to {stop - 1} are no whole row groups, which end "
            f"after every {ROW_GROUP_ROWS} rows of a shard. Not the shard that was written: embed "
            f"the photos again."
        )
    return held.tolist(), first


def changed(where: str, found: str, before: str) -> IndexFormatError:
    """The error of a file that is no longer what it was when the job began."""
    return IndexFormatError(
        f"{where}: {found}, but {before} when the job began. A shard must not change while it is "
        f"ranked: run the job again."
    )
