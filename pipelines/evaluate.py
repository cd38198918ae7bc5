"""Measure a ranking against the labels of its two sides.

Reads       a ranking; ids and labels of the queries and the gallery (their indexes).
Writes      nothing; the report is the result.
Resources   one process, without Ray: it reads far less than it took to make.
Fails when  there are no labels, or no version of an index is the one that was ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from retrieval.evaluation.figures import evaluate, read_photos
from retrieval.ranking.files import open_ranking

__all__ = ["run"]


def run(
    ranking: str, queries: str, gallery: str, *, ks: Sequence[int] | None = None
) -> dict[str, Any]:
    """Compute top-k accuracy, mAP and the rest.

    Args:
        ranking: Folder of a finished ranking.
        queries: Index of the queries.
        gallery: Index of the gallery.
        ks: Which k to report; 1, 3 and 10 by default.

    Returns:
        The figures; see `retrieval.evaluation.figures.evaluate`.
    """
    opened = open_ranking(ranking)
    return evaluate(
        opened,
        read_photos(queries, opened, "queries"),
        read_photos(gallery, opened, "gallery"),
        ks,
    )
