"""Rejects of earlier runs: which of them are refused still, without a decoder being asked."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from retrieval.images import Reason
from retrieval.images.fetch import check_fetch

__all__ = ["lasting_rejects", "still_refused"]

# What may be otherwise tomorrow though the file is the same, as with a store that was down.
_PASSING = (Reason.MISSING, Reason.UNREADABLE)
# What whoever fetches a file finds, before any decoder. Whether it is so still costs little to
# try; of a link that is not followed, no time tells whether it has changed.
_FETCHED = (*_PASSING, Reason.LINK_OUTSIDE, Reason.TOO_LARGE)
_TRIED_AT_ONCE = 256
_TRY_S = 60.0


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
