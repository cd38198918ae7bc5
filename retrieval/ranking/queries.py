"""The queries: their ids in order, and the vectors of some of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError
from retrieval.vectors import VectorBlock, VectorSource, find_duplicate, read_blocks, read_ids

__all__ = ["Queries"]

_READ_ROWS = 4096


class Queries:
    """The queries of a ranking, in its order: by id, bytewise.

    The vectors are read once if they fit in a budget, or else for each block of queries anew.
    """

    def __init__(self, source: VectorSource, memory_bytes: int) -> None:
        """Read the ids.

        Args:
            source: Where the queries are.
            memory_bytes: What their vectors may take in this process.

        Raises:
            IndexFormatError: an id occurs twice; a ranking tells its queries apart by it.
        """
        self._source = source
        self.ids = np.sort(
            np.concatenate(
                [ids for file in source.files for ids in read_ids(source, file, _READ_ROWS)]
            )
        )
        if (self.ids[1:] == self.ids[:-1]).any():
            raise _twice(source, memory_bytes)
        num_bytes = len(self.ids) * source.dim * np.dtype(source.dtype).itemsize
        self._held = self._read(self.ids) if num_bytes <= memory_bytes else None

    def block(self, start: int, stop: int) -> VectorBlock:
        """Queries start to stop, in the order of `ids`.

        Cost: nothing where the vectors are held, else one pass over the queries' files.
        """
        ids = self.ids[start:stop]
        vectors = self._read(ids) if self._held is None else self._held[start:stop]
        return VectorBlock(ids, vectors)

    def _read(self, wanted: NDArray[np.bytes_]) -> NDArray[np.floating]:
        """The vectors of some ids, in their order, which is sorted."""
        source = self._source
        vectors = np.empty((len(wanted), source.dim), source.dtype)
        is_read = np.zeros(len(wanted), bool)
        for file in source.files:
            for block in read_blocks(source, file, _READ_ROWS):
                places = np.searchsorted(wanted, block.ids)
                places[places == len(wanted)] = 0
                is_wanted = wanted[places] == block.ids
                vectors[places[is_wanted]] = block.vectors[is_wanted]
                is_read[places[is_wanted]] = True
        if not is_read.all():
            raise _changed(source)
        return vectors


def _twice(source: VectorSource, memory_bytes: int) -> IndexFormatError:
    found = find_duplicate(source, memory_bytes)
    if found is None:  # a file changed between the two readings
        return _changed(source)
    return IndexFormatError(
        f"{source.uri}: the query id {found.row_id!r} occurs more than once, in {found.first[0]}, "
        f"row {found.first[1]}, and {found.second[0]}, row {found.second[1]}. A ranking is told "
        f"apart by its query's id; give each its own."
    )


def _changed(source: VectorSource) -> IndexFormatError:
    return IndexFormatError(f"{source.uri}: its ids changed while they were read. Run again.")
