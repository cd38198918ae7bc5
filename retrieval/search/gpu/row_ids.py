"""Which id a row of the gallery has: ids are bytes of any length, so they stay on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RowIds", "hashes"]

# Rows that are in no pool any more are dropped when ids take more than this.
_BUDGET_BYTES = 2**29

Handles = NDArray[np.int64]


@dataclass(frozen=True)
class _Part:
    first: int  # handle of the first row that it had
    rows: Handles | None  # those that are left, counted from `first`; None: all
    ids: NDArray[np.bytes_]


class RowIds:
    """Handles are numbers of rows in the order of adding."""

    def __init__(self) -> None:
        self.num_rows = 0
        self._parts: list[_Part] = []
        self._limit = _BUDGET_BYTES

    def add(self, ids: NDArray[np.bytes_]) -> int:
        """Take in ids, bytes (N,), and return the handle of the first."""
        first = self.num_rows
        if len(ids):
            self._parts.append(_Part(first, None, ids))
        self.num_rows += len(ids)
        return first

    def is_full(self) -> bool:
        """Whether `keep_only` is due."""
        return self._num_bytes() > self._limit

    def _num_bytes(self) -> int:
        return sum(part.ids.nbytes for part in self._parts)

    def lookup(self, handles: Handles) -> NDArray[np.bytes_]:
        """The ids of rows that have not been dropped; bytes (M,), in the order asked for."""
        if not len(handles):
            return np.empty(0, "S1")
        starts = np.array([part.first for part in self._parts])
        part_of = np.searchsorted(starts, handles, side="right") - 1
        # Up to 16 bits NumPy sorts by counting: a million ids are found in half the time.
        order = np.argsort(part_of.astype(np.min_scalar_type(len(starts))), kind="stable")
        ordered = handles[order]
        bounds = np.append(0, np.cumsum(np.bincount(part_of, minlength=len(starts))))
        found: list[NDArray[Any]] = []
        for part, begin, end in zip(self._parts, bounds[:-1], bounds[1:], strict=True):
            if begin < end:
                rows = ordered[begin:end] - part.first
                found.append(part.ids[rows if part.rows is None else part.rows.searchsorted(rows)])
        names = np.concatenate(found)
        ids = np.empty_like(names)
        ids[order] = names
        return ids

    def keep_only(self, handles: Handles, recent: int) -> None:
        """Drop ids of all rows but these and those from the handle `recent` on.

        Cost: a copy of the ids that stay.
        """
        kept = np.unique(handles)
        parts: list[_Part] = []
        for part in self._parts:
            if part.first >= recent:
                parts.append(part)
                continue
            end = part.first + (len(part.ids) if part.rows is None else int(part.rows[-1]) + 1)
            begin, stop = np.searchsorted(kept, [part.first, end])
            rows = kept[begin:stop]
            if end > recent:
                rows = np.union1d(rows, np.arange(max(part.first, recent), end))
            if len(rows):
                parts.append(_Part(part.first, rows - part.first, self.lookup(rows)))
        self._parts = parts
        self._limit = max(_BUDGET_BYTES, 2 * self._num_bytes())


def hashes(ids: NDArray[np.bytes_]) -> Handles:
    """int64 (N,): equal ids have equal hashes, in arrays of any width.

    Eight bytes at a time times an odd number of their place; the padding counts nothing.
    Different ids may collide: a hit has to be verified.
    """
    width = -(-max(ids.dtype.itemsize, 1) // 8) * 8
    words = np.ascontiguousarray(ids.astype(f"S{width}")).view("<u8").reshape(len(ids), -1)
    places = np.random.default_rng(0).integers(0, 2**63, words.shape[1], np.uint64) * 2 + 1
    mixed = words ^ (words >> np.uint64(29))
    return (mixed * places).sum(axis=1, dtype=np.uint64).view(np.int64)
