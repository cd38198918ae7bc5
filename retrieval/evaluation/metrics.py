"""How good a ranking is: top-k accuracy, mean average precision, precision at k.

A gallery image is relevant to a query if both have the same label. Images without a label,
or with a label that no query has, are distractors: relevant to nobody.

For one query, let hit(i) be 1 if the image at rank i is relevant and R the number of relevant
images in the whole gallery (the query itself left out, if the ranking left it out):

    top-k accuracy   1 if any of hit(1..k), else 0
    precision at k   (hit(1) + ... + hit(k)) / k
    AP               Σ hit(i) · precision at i / R, over the ranks that the ranking lists
    AP at k          Σ hit(i) · precision at i / min(R, k), over i ≤ k; can reach 1 where R > k

AP over a ranking that stops before the end of the gallery is a lower bound: relevant images
further down count as never found. For the first k alone it is what trec_eval calls map_cut_k and
ranx map@k, which divide by R; docs/metrics.md has the table.

A query without any relevant image in the gallery (R = 0) scores 0 in each; figures are given
over all labelled queries and over those with a match.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import UsageError

__all__ = ["Figures", "QueryScores", "score_queries", "summarise"]


@dataclass(frozen=True)
class QueryScores:
    """Figures of single queries.

    Attributes:
        first_hit: int64 (Q,), rank of the first relevant image; 0 where none is listed.
        ap: float64 (Q,), average precision over the listed ranks.
        ap_at: k → float64 (Q,).
        precision_at: k → float64 (Q,).
        num_relevant: int64 (Q,), R.
    """

    first_hit: NDArray[np.int64]
    ap: NDArray[np.float64]
    ap_at: Mapping[int, NDArray[np.float64]]
    precision_at: Mapping[int, NDArray[np.float64]]
    num_relevant: NDArray[np.int64]

    @classmethod
    def concatenate(cls, parts: Sequence[QueryScores]) -> QueryScores:
        """The figures of several blocks of queries as one."""
        return cls(
            np.concatenate([part.first_hit for part in parts]),
            np.concatenate([part.ap for part in parts]),
            {k: np.concatenate([part.ap_at[k] for part in parts]) for k in parts[0].ap_at},
            {
                k: np.concatenate([part.precision_at[k] for part in parts])
                for k in parts[0].precision_at
            },
            np.concatenate([part.num_relevant for part in parts]),
        )

    def take(self, rows: NDArray[Any]) -> QueryScores:
        """Some of the queries, by numbers or by a mask."""
        return QueryScores(
            self.first_hit[rows],
            self.ap[rows],
            {k: values[rows] for k, values in self.ap_at.items()},
            {k: values[rows] for k, values in self.precision_at.items()},
            self.num_relevant[rows],
        )


def score_queries(
    hits: NDArray[np.bool_], num_relevant: NDArray[np.int64], ks: Sequence[int]
) -> QueryScores:
    """Score each query of a block.

    Args:
        hits: bool (Q, K), whether the image at each rank is relevant; rank 1 comes first.
            A query with fewer than K images is filled up with False.
        num_relevant: int64 (Q,), relevant images in the gallery, R ≥ hits.sum(axis=1).
        ks: The k to report, each at least 1. One above K counts what is listed.

    Raises:
        UsageError: a k is below 1.

    Cost: O(Q K).

    Example:
        >>> hits = np.array([[False, True, True]])
        >>> scores = score_queries(hits, np.array([4]), ks=[1, 3])
        >>> scores.first_hit.tolist(), scores.ap.round(4).tolist()  # (1/2 + 2/3) / 4
        ([2], [0.2917])
    """
    if min(ks, default=1) < 1:
        raise UsageError(f"k = {min(ks)}: ranks begin at 1. Use a k of 1 or more.")
    num_found = hits.cumsum(axis=1)
    ranks = np.arange(1, hits.shape[1] + 1)
    gains = np.where(hits, num_found / ranks, 0.0)  # precision at each hit
    return QueryScores(
        first_hit=np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 0),
        ap=gains.sum(axis=1) / np.maximum(num_relevant, 1),
        ap_at={k: gains[:, :k].sum(axis=1) / np.clip(num_relevant, 1, k) for k in ks},
        precision_at={k: hits[:, :k].sum(axis=1) / k for k in ks},
        num_relevant=num_relevant,
    )


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Means over some queries; docs/metrics.md defines each. None where there is no query.

    Attributes:
        top: k → top-k accuracy.
        map: Mean average precision, over the ranks that are listed.
        map_at: k → the mean over the first k ranks.
        precision_at: k → mean precision at k.
    """

    top: Mapping[int, float | None]
    map: float | None
    map_at: Mapping[int, float | None]
    precision_at: Mapping[int, float | None]

    def to_json(self) -> dict[str, Any]:
        """As one flat object: top_K, map, map_at_K, precision_at_K."""
        return {
            **{f"top_{k}": value for k, value in self.top.items()},
            "map": self.map,
            **{f"map_at_{k}": value for k, value in self.map_at.items()},
            **{f"precision_at_{k}": value for k, value in self.precision_at.items()},
        }


def summarise(scores: QueryScores) -> Figures:
    """Mean figures over queries, for each k of the scores."""
    ks = list(scores.ap_at)

    def mean(values: NDArray[Any]) -> float | None:
        return float(values.mean()) if len(values) else None

    hit_by = {k: (scores.first_hit > 0) & (scores.first_hit <= k) for k in ks}
    return Figures(
        top={k: mean(hit_by[k]) for k in ks},
        map=mean(scores.ap),
        map_at={k: mean(scores.ap_at[k]) for k in ks},
        precision_at={k: mean(scores.precision_at[k]) for k in ks},
    )
