"""The rejects of a version: the listed photos that are not in it, and why; who is refused still."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrieval.errors import IndexFormatError
from retrieval.images import Reason
from retrieval.images.fetch import check_fetch
from retrieval.index.names import REJECTS, REJECTS_FOLDER
from retrieval.index.staging import INDEX_REJECT_SCHEMA, reject_files
from retrieval.index.table import Index
from retrieval.storage import (
    DAMAGED_PARQUET,
    first_line,
    is_no_answer,
    join,
    not_read,
    open_input,
    parquet_table,
)

__all__ = ["lasting_rejects", "reject_tables", "rejects_path", "still_refused"]

# What may be otherwise tomorrow though the file is the same, as with a store that was down.
_PASSING = (Reason.MISSING, Reason.UNREADABLE)
# What whoever fetches a file finds, before any decoder. Whether it is so still costs little to
# try; of a link that is not followed, no time tells whether it has changed.
_FETCHED = (*_PASSING, Reason.LINK_OUTSIDE, Reason.TOO_LARGE)
_TRIED_AT_ONCE = 256
_TRY_S = 60.0


def rejects_path(run: Mapping[str, Any], where: str = "This index") -> str | None:
    """Folder of the rejects of a version, relative to the index; None if there are none.

    Args:
        run: What the run that committed the version said of itself.
        where: The index, for the error.

    Raises:
        IndexFormatError: the run names what is no such folder.
    """
    if "rejects" in run:
        path = run["rejects"]
    else:  # the first releases named the run alone
        is_any = run.get("num_rejected") and "run_id" in run
        path = f"{REJECTS}/{run['run_id']}" if is_any else None
    if path is not None and not (isinstance(path, str) and REJECTS_FOLDER.fullmatch(path)):
        raise IndexFormatError(
            f"{where}: its log names the rejects {path!r}; {REJECTS}/RUN_ID is needed. The log is "
            f"damaged, or not made by this program: restore another version."
        )
    return path


def reject_tables(index: Index, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of the rejects of a version, one file at a time.

    Raises:
        IndexFormatError: a file is damaged, or there is none though the run names a folder.
    """
    folder = rejects_path(index.run, index.uri)
    if folder is None:
        return
    names = reject_files(index.uri, folder)
    if not names:
        raise IndexFormatError(
            f"{join(index.uri, folder)}: no rejects there, though version {index.version} names "
            f"this folder. Restore another version, or embed the photos again."
        )
    for name in names:
        where = join(index.uri, name)
        try:
            with open_input(where) as stream:
                table = parquet_table(
                    stream,
                    INDEX_REJECT_SCHEMA,
                    columns=list(columns),
                    page_checksum_verification=True,
                )
        except DAMAGED_PARQUET as error:
            if is_no_answer(error):
                raise not_read(where, error) from error
            raise IndexFormatError(
                f"{where}: these rejects cannot be read ({first_line(error)}). Restore "
                f"another version, or embed the photos again."
            ) from error
        yield table


def lasting_rejects(rejects: pa.Table) -> pa.Table:
    """Those that stay refused as long as the file is the same."""
    return rejects.filter(pc.invert(_is_of(rejects, _PASSING)))


def still_refused(rejects: pa.Table) -> pa.Table:
    """Those of the files that could not be fetched that still cannot, for the same reason.

    Tried here, so that an update without a change starts no workers for them. Where one has come
    back there is work for workers, who try the rest, as they do where this takes too long.
    """
    rejects = rejects.filter(_is_of(rejects, _FETCHED))
    begun = time.monotonic()
    num_same = 0
    for start in range(0, rejects.num_rows, _TRIED_AT_ONCE):
        rows = rejects.slice(start, _TRIED_AT_ONCE).to_pydict()
        before = list(zip(rows["reason"], rows["message"], strict=True))
        if check_fetch(rows["uri"], rows["size_bytes"]) != before:
            break
        num_same += len(before)
        if time.monotonic() - begun > _TRY_S:
            break
    return rejects.slice(0, num_same)


def _is_of(rejects: pa.Table, reasons: Sequence[Reason]) -> pa.ChunkedArray:
    return pc.is_in(rejects["reason"], pa.array(list(reasons), pa.string()))
