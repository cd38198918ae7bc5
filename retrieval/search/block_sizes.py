"""How many queries are ranked at a time, and how many gallery rows are read at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrieval.errors import UsageError
from retrieval.vectors import VectorSource

__all__ = ["BlockPlan", "plan_blocks"]

# More queries at a time mean fewer passes over the gallery, but also more work lost when a
# run is killed. A pass costs about as much as 500 queries.
_MOST_QUERIES = 16 * 1024
_READ_BYTES = 2 * 2**20  # a read block stays in the cache until it is used
_READ_AHEAD = 4  # blocks that are read, ready or used, for each thread
_SCRATCH_BYTES = 12 * 2**20  # rows in float32, bounds and pairs, for each thread
_ID_BYTES = 64  # an id's, generously


@dataclass(frozen=True)
class BlockPlan:
    """Queries that are ranked in one pass over the gallery, and rows that are read at a time."""

    query_rows: int
    gallery_rows: int


def plan_blocks(
    num_queries: int, gallery: VectorSource, k: int, memory_bytes: int, num_threads: int = 1
) -> BlockPlan:
    """Choose as many queries at a time as a memory budget allows.

    Args:
        num_queries: Queries in all.
        gallery: The gallery, for its number of rows, dimensions D and type.
        k: Neighbours of each query.
        memory_bytes: What one process may hold.
        num_threads: Threads of that process.

    Raises:
        UsageError: one query's neighbours are too much already.
    """
    id_bytes = _ID_BYTES
    if gallery.long_ids is not None:
        id_bytes = max(id_bytes, gallery.long_ids.width)
        memory_bytes -= gallery.long_ids.nbytes
    row_bytes = gallery.dim * np.dtype(gallery.dtype).itemsize
    read_bytes = row_bytes + (id_bytes if id_bytes > _ID_BYTES else 0)
    gallery_rows = min(gallery.num_rows, max(64, _READ_BYTES // read_bytes))
    fixed = num_threads * (_SCRATCH_BYTES + _READ_AHEAD * gallery_rows * (row_bytes + id_bytes))
    # Neighbours: a quarter more than k between selections, then sorted, then made a table.
    neighbours = min(k, gallery.num_rows) * 4 * (id_bytes + 24)
    vectors = gallery.dim * (8 + 8 + 4 * 4)  # as stored, scaled, plain, and four operands
    left = memory_bytes - fixed
    if left < neighbours + vectors:
        needed = fixed + neighbours + vectors
        raise UsageError(
            f"`memory_bytes` {memory_bytes}: ranking {k} of {gallery.num_rows} images of "
            f"{gallery.dim} dimensions on {num_threads} threads needs {needed / 2**30:.3g} GiB. "
            f"Allow more, or use a smaller `top_k` or fewer threads."
        )
    rows = min(num_queries, _MOST_QUERIES, left // (neighbours + vectors))
    return BlockPlan(query_rows=int(rows), gallery_rows=int(gallery_rows))
