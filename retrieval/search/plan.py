"""How many queries and gallery rows to score against each other at a time."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.errors import UsageError
from retrieval.vectors import VectorSource

__all__ = ["BlockPlan", "plan_blocks"]

# Where the matrix product runs at full speed; larger blocks only take more memory.
_MOST_QUERIES = 1024
_MOST_GALLERY = 8192
_ID_BYTES = 64  # an id's, generously


@dataclass(frozen=True)
class BlockPlan:
    """Rows of queries and of gallery that are scored against each other at a time."""

    query_rows: int
    gallery_rows: int


def plan_blocks(num_queries: int, gallery: VectorSource, k: int, memory_bytes: int) -> BlockPlan:
    """Choose blocks that stay within a memory budget, by halving the larger side.

    Args:
        num_queries: Queries in all.
        gallery: The gallery, for its number of rows and dimensions D.
        k: Neighbours of each query.
        memory_bytes: What one process may hold.

    Raises:
        UsageError: one query's candidates and 64 gallery rows are too much already.
    """
    num_gallery, dim = gallery.num_rows, gallery.dim
    plan = BlockPlan(min(num_queries, _MOST_QUERIES), min(num_gallery, _MOST_GALLERY))
    while _needed_bytes(plan, num_gallery, dim, k) > memory_bytes:
        if plan.gallery_rows > 64 and plan.gallery_rows >= plan.query_rows:
            plan = BlockPlan(plan.query_rows, plan.gallery_rows // 2)
        elif plan.query_rows > 1:
            plan = BlockPlan(plan.query_rows // 2, plan.gallery_rows)
        else:
            needed = _needed_bytes(plan, num_gallery, dim, k)
            raise UsageError(
                f"--memory-gib {memory_bytes / 2**30:.3g}: ranking {k} of {num_gallery} images of "
                f"{dim} dimensions needs {needed / 2**30:.3g} GiB an actor. Allow more, or use a "
                f"smaller --top-k."
            )
    return plan


def _needed_bytes(plan: BlockPlan, num_gallery: int, dim: int, k: int) -> int:
    # Candidates: up to 2 k a query between trims, once more while they are sorted.
    candidates = 3 * plan.query_rows * min(k, num_gallery) * (2 * _ID_BYTES + 24)
    scores = 4 * 8 * plan.query_rows * plan.gallery_rows  # keys, norms, partition, mask
    vectors = 4 * 8 * dim * (plan.query_rows + plan.gallery_rows)  # scaling's temporaries
    return candidates + scores + vectors
