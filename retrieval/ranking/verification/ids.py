"""Ids found among sorted ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["IdCounter", "find_ids", "shown"]


def find_ids(known: NDArray[np.bytes_], ids: NDArray[np.bytes_]) -> NDArray[np.intp]:
    """The place of each id among known ones.

    Args:
        known: bytes (M,), sorted, each once; may be empty.
        ids: bytes (N,), without NUL bytes.

    Returns:
        intp (N,); -1 where an id is not known.

    Cost: N binary searches.

    Example:
        >>> find_ids(np.array([b"a", b"c"]), np.array([b"c", b"b", b"cc"])).tolist()
        [1, -1, -1]
    """
    if not len(known):
        return np.full(len(ids), -1)
    # In one width, or NumPy would copy all that is known for each call. Longer ids are cut
    # short for the search alone: the comparison below sees them whole.
    places = np.searchsorted(known, ids.astype(known.dtype)).clip(max=len(known) - 1)
    return np.where(known[places] == ids, places, -1)


def shown(row_id: bytes) -> str:
    """An id for a message; what stands for a long one may be cut within a character."""
    return row_id.decode(errors="replace")


class IdCounter:
    """How often some ids occur in a stream of ids."""

    def __init__(self, ids: NDArray[np.bytes_]) -> None:
        """Prepare to count.

        Args:
            ids: bytes (M,), in any order; may repeat.
        """
        self._ids = np.unique(ids)
        self._counts = np.zeros(len(self._ids), np.int64)

    def add(self, ids: NDArray[np.bytes_]) -> None:
        """Count the ids of a block."""
        places = find_ids(self._ids, ids)
        np.add.at(self._counts, places[places >= 0], 1)

    def counts(self, ids: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """How often each of some ids has occurred; int64 (N,). They must be among those counted."""
        return self._counts[find_ids(self._ids, ids)]
