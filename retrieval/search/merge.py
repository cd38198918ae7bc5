"""The k best of many (query, id, score) triples.

Order: nearer score first, then the gallery id, bytewise. That order is total, so the best k
of a union are the best k of the parts' best k, in whatever groups and order the parts come:
the rule that makes a sharded search exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Candidates", "best"]


@dataclass(frozen=True)
class Candidates:
    """Triples in flat arrays of length M; a query may have any number of them.

    Attributes:
        query: int32 (M,), number of the query in its block.
        ids: bytes (M,), gallery ids, UTF-8.
        scores: float64 (M,), canonical.
    """

    query: NDArray[np.int32]
    ids: NDArray[np.bytes_]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.query)

    @classmethod
    def none(cls) -> Candidates:
        """No candidates."""
        return cls(np.empty(0, np.int32), np.empty(0, "S1"), np.empty(0, np.float64))

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """The candidates of several parts, one part behind another; one copy."""
        if not parts:
            return cls.none()
        return cls(
            np.concatenate([part.query for part in parts]),
            np.concatenate([part.ids for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )

    def at(self, rows: NDArray[Any]) -> Candidates:
        """Those at some positions, int (N,) in any order, or bool (M,); one copy."""
        return Candidates(self.query[rows], self.ids[rows], self.scores[rows])


def best(parts: Sequence[Candidates], k: int, *, smaller_is_nearer: bool) -> Candidates:
    """Keep the k nearest of many candidates for each query.

    Args:
        parts: Candidates in any order.
        k: How many to keep of each query, at least 1; a query with fewer keeps them all.
        smaller_is_nearer: True for distances.

    Returns:
        Sorted by query, then nearest first, equal scores by id.

    Cost: O(M log M).

    Example:
        >>> ids, scores = np.array([b"c", b"b", b"a"]), np.array([0.5, 0.9, 0.5])
        >>> found = Candidates(np.zeros(3, np.int32), ids, scores)
        >>> best([found], k=2, smaller_is_nearer=False).ids.tolist()
        [b'b', b'a']
    """
    found = Candidates.joined([part for part in parts if len(part)])
    if not len(found):
        return found
    query, ids, scores = found.query, found.ids, found.scores
    order = _in_order(query, scores if smaller_is_nearer else -scores, ids)
    query = query[order]
    starts = np.flatnonzero(np.diff(query, prepend=-1))  # where the next query begins
    counts = np.diff(starts, append=len(query))
    rank = np.arange(len(query)) - np.repeat(starts, counts)
    kept = order[rank < k]
    return Candidates(query[rank < k], ids[kept], scores[kept])


def _in_order(
    query: NDArray[np.int32], far: NDArray[np.float64], ids: NDArray[np.bytes_]
) -> NDArray[np.intp]:
    """The order by query, distance and id. Comparing ids is slow: only equal scores need it."""
    order = np.arange(len(query))
    is_same = query[1:] == query[:-1]
    if not ((query[1:] > query[:-1]) | (is_same & (far[1:] >= far[:-1]))).all():
        order = np.lexsort((far, query))
        query, far = query[order], far[order]
        is_same = query[1:] == query[:-1]
    is_tie = is_same & (far[1:] == far[:-1])  # with the one behind
    tied = np.flatnonzero(np.append(is_tie, False) | np.append(False, is_tie))
    if len(tied):
        run = np.cumsum(np.append(True, ~is_tie))[tied]
        rows = order[tied]
        order[tied] = rows[np.lexsort((ids[rows], run))]
    return order
