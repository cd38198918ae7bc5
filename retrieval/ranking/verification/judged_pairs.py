"""Some pairs of a ranking whose scores are judged by exact arithmetic, while the gallery passes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retrieval.ranking.verification.differences import NOT_EXACT, counted, wrong_ranking
from retrieval.ranking.verification.ids import find_ids, shown
from retrieval.ranking.verification.real_values import RealValue, real_value
from retrieval.search.merge import Candidates
from retrieval.search.scores import minkowski_power
from retrieval.vectors import VectorBlock

__all__ = ["JudgedPairs"]

_MOST_COMPONENTS = 2**19  # of all pairs: some two seconds
_POWER_COST = 16  # of a component for minkowski:P


class JudgedPairs:
    """Pairs that are drawn from a ranking: the first of each query, and others by chance."""

    def __init__(
        self, queries: VectorBlock, listed: Candidates, metric: str, rule: int, *, seed: int
    ) -> None:
        """Draw the pairs.

        Args:
            queries: Q vectors.
            listed: Rows of a ranking, sorted by query (its number among the Q) and rank.
            metric: One of `scores.METRICS`, or "minkowski:P".
            rule: One of `scores.RULES`, by which the scores are said to be computed.
            seed: Of the draw.
        """
        self._queries, self._metric, self._rule = queries, metric, rule
        cost = queries.vectors.shape[1] * (_POWER_COST if minkowski_power(metric) else 1)
        drawn = _draw(listed.query, max(1, _MOST_COMPONENTS // cost), seed)
        drawn = drawn[np.argsort(listed.ids[drawn], kind="stable")]
        self._pairs = Candidates(listed.query[drawn], listed.ids[drawn], listed.scores[drawn])
        self._ranks = drawn - np.searchsorted(listed.query, listed.query[drawn]) + 1
        # The names of all, and where each name's pairs begin and end.
        self._names, starts = np.unique(self._pairs.ids, return_index=True)
        self._runs = np.append(starts, len(drawn))
        # Of a pair whose id the gallery holds more than once, any row may be the one.
        self._is_right = np.zeros(len(drawn), np.bool_)
        self._values: dict[int, RealValue] = {}  # of pairs that are not right so far

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, block: VectorBlock) -> None:
        """Judge the pairs whose gallery row is in a block."""
        name = find_ids(self._names, block.ids)
        for row in np.flatnonzero(name >= 0):
            for pair in range(self._runs[name[row]], self._runs[name[row] + 1]):
                if not self._is_right[pair]:
                    self._judge(pair, block.vectors[row])

    def _judge(self, pair: int, row: NDArray[np.floating]) -> None:
        query = self._queries.vectors[self._pairs.query[pair]]
        value = real_value(self._metric, self._rule, query, row)
        if value.allows(float(self._pairs.scores[pair])):
            self._is_right[pair] = True
        else:
            self._values[pair] = value

    def check(self, uri: str) -> None:
        """All pairs must have been found right, in the whole gallery.

        Raises:
            IndexFormatError: one is not; the first query's is named.
        """
        wrong = np.flatnonzero(~self._is_right)
        if not wrong.size:
            return
        first = wrong[np.lexsort((self._ranks[wrong], self._pairs.query[wrong]))[0]]
        value = self._values.get(int(first))
        name = shown(self._pairs.ids[first])
        raise wrong_ranking(
            uri,
            f"query {shown(self._queries.ids[self._pairs.query[first]])!r}, "
            f"rank {self._ranks[first]}",
            f"the ranking holds {name!r} with score {float(self._pairs.scores[first])!r}; "
            + (
                f"exact arithmetic gives {value} by rule {self._rule}"
                if value
                else "the gallery holds no such row"
            ),
            counted(len(wrong), len(self), "pairs judged by exact arithmetic"),
            NOT_EXACT,
        )


def _draw(query: NDArray[np.int32], most: int, seed: int) -> NDArray[np.intp]:
    """Numbers of some rows, the first of each query before all others."""
    rng = np.random.default_rng(seed)
    is_first = np.diff(query, prepend=-1) > 0
    drawn = np.empty(0, np.intp)
    for rows in (np.flatnonzero(is_first), np.flatnonzero(~is_first)):
        num = min(len(rows), most - len(drawn))
        drawn = np.append(drawn, rng.choice(rows, num, replace=False, shuffle=False))
    return drawn
