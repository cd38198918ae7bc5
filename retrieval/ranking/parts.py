"""The Parquet parts of a ranking: their columns, and one reader that checks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval.errors import IndexFormatError
from retrieval.storage import (
    DAMAGED_PARQUET,
    first_line,
    is_no_answer,
    not_read,
    open_input,
    parquet_file,
)

__all__ = ["BROKEN", "RANKING_SCHEMA", "check_rows", "read_part"]

BROKEN: Final = "The parts are not those of one finished job: rank again."

RANKING_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("gallery_id", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)


def read_part(uri: str, columns: Sequence[str] | None, most_rows: int | None) -> pa.Table:
    """A part of a ranking.

    Args:
        uri: The part.
        columns: Columns to read; None for all.
        most_rows: How many rows it can have; None if nobody knows.

    Raises:
        IndexFormatError: it is missing or damaged, has other columns, or too many rows.
    """
    try:
        with (
            open_input(uri) as stream,
            parquet_file(stream, page_checksum_verification=True) as file,
        ):
            # The footer has no checksum: its names, types and counts are checked before it is used.
            _check_columns(file.schema_arrow, uri)
            if most_rows is not None and file.metadata.num_rows > most_rows:
                raise IndexFormatError(
                    f"{uri}: {file.metadata.num_rows} rows, but all parts have {most_rows}. Rank "
                    f"again."
                )
            table = file.read(columns=columns)
            if table.num_rows != file.metadata.num_rows:
                raise OSError(f"{table.num_rows} rows, and its footer says more or less")
            return table
    except DAMAGED_PARQUET as error:
        if is_no_answer(error):
            raise not_read(uri, error) from error
        raise IndexFormatError(
            f"{uri}: this part cannot be read ({first_line(error)}). Rank again."
        ) from error


def _check_columns(schema: pa.Schema, where: str) -> None:
    if not schema.equals(RANKING_SCHEMA):
        found, needed = (
            ", ".join(f"{field.name} {field.type}" for field in each)
            for each in (schema, RANKING_SCHEMA)
        )
        raise IndexFormatError(f"{where}: columns {found}; {needed} are needed. {BROKEN}")


def check_rows(table: pa.Table, where: str) -> int:
    """Check the rows of a part, as far as the columns that were read tell.

    Args:
        table: Some columns of it.
        where: The part, for the error.

    Returns:
        How many queries it holds, each a run of rows; 0 without their ids.

    Raises:
        IndexFormatError: the ranks of a query are not 1, 2, ..., or scores are not in their order.
    """
    scores = table["score"].to_numpy() if "score" in table.column_names else None
    if scores is not None and np.isnan(scores).any():
        raise IndexFormatError(f"{where}: a score is NaN. {BROKEN}")
    if "query_id" not in table.column_names or not table.num_rows:
        return 0
    ids = table["query_id"].combine_chunks()
    is_start = np.ones(len(ids), np.bool_)
    is_start[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(is_start)
    if scores is not None:
        # A footer that names another compression gives numbers, but none in any order.
        steps = np.diff(scores)[~is_start[1:]]
        if (steps > 0).any() and (steps < 0).any():
            raise IndexFormatError(
                f"{where}: its scores are not in the order of the ranks. {BROKEN}"
            )
    if "rank" in table.column_names:
        places = np.arange(len(ids)) - np.repeat(starts, np.diff(starts, append=len(ids)))
        ranks = table["rank"].to_numpy()
        wrong = np.flatnonzero(ranks != places + 1)
        if wrong.size:
            raise IndexFormatError(
                f"{where}, row {wrong[0]}: rank {ranks[wrong[0]]}; from 1 without gaps is needed. "
                f"{BROKEN}"
            )
    return len(starts)
