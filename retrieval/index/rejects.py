"""The rejects of a version: the listed photos that are not in it, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.errors import IndexFormatError
from retrieval.index.folder import stored_files
from retrieval.index.table import Index
from retrieval.storage import DAMAGED_PARQUET, first_line, join, open_input

__all__ = ["reject_tables", "rejects_path"]


def rejects_path(run: Mapping[str, Any]) -> str | None:
    """Folder of the rejects of a version, relative to the index; None if there are none.

    Args:
        run: What the run that committed the version said of itself.
    """
    if "rejects" in run:
        return run["rejects"]
    # `embed` names its run alone.
    return f"_rejects/{run['run_id']}" if run.get("num_rejected") and "run_id" in run else None


def reject_tables(index: Index, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of the rejects of a version, one file at a time.

    Raises:
        IndexFormatError: a file is damaged, or there is none though the run names a folder.
    """
    folder = rejects_path(index.run)
    if folder is None:
        return
    where = join(index.uri, folder)
    names = [file.name for file in stored_files(where) if file.name.endswith(".parquet")]
    if not names:
        raise IndexFormatError(
            f"{where}: no rejects there, though version {index.version} names this folder. Restore "
            f"another version, or embed the photos again."
        )
    for name in names:
        try:
            with open_input(join(where, name)) as stream:
                yield pq.read_table(stream, columns=list(columns), page_checksum_verification=True)
        except DAMAGED_PARQUET as error:
            raise IndexFormatError(
                f"{join(where, name)}: these rejects cannot be read ({first_line(error)}). Restore "
                f"another version, or embed the photos again."
            ) from error
