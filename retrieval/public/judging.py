"""How good a ranking is: figures, and a page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrieval.evaluation import Evaluation
from retrieval.evaluation import evaluate as evaluate_stored
from retrieval.progress import QUIET, Progress
from retrieval.public.ranking import Ranking, open_ranking
from retrieval.public.sides import images_of
from retrieval.report_page import WrittenReport, write_report

if TYPE_CHECKING:
    from retrieval.public.sides import Images

__all__ = ["evaluate", "report"]


def evaluate(
    ranking: Ranking | str | os.PathLike[str],
    queries: Images | None = None,
    gallery: Images | None = None,
    ks: Sequence[int] | None = None,
) -> Evaluation:
    """Measure a ranking against labels: top-k accuracy, mAP, precision, and the same of classes.

    Args:
        ranking: A ranking, or its folder.
        queries: Labels of all ranked queries: an index or its place (of which the version that was
            ranked is found), other tools' Parquet, a table or DataFrame with image_id and label,
            labels by id, or, of arrays without ids, labels in the order of the rows. By default
            the index that was ranked.
        gallery: Labels of the gallery, likewise.
        ks: Which k to report; 1, 3 and 10 by default, as far as the ranking goes.

    Raises:
        UsageError: no query has a label, or a k is beyond what the ranking lists.
        MismatchError: a side is not what was ranked, or the ranking names images that the labels
            do not know.
        IndexFormatError, StorageError: a file is damaged, or not there.

    Cost: reads the ranking once; ids and labels of both sides are in memory.

    Example:
        >>> import numpy as np
        >>> from retrieval.public.ranking import rank
        >>> gallery = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
        >>> found = rank(gallery, gallery, k=1, exclude_self=True, num_threads=1)
        >>> evaluate(found, ["a", "b", "a"], ["a", "b", "a"], ks=[1]).top
        {1: 0.6666666666666666}
    """
    found = ranking if isinstance(ranking, Ranking) else open_ranking(ranking)
    return evaluate_stored(
        found.stored,
        images_of(queries, found, "queries"),
        images_of(gallery, found, "gallery"),
        ks,
    )


def report(
    ranking: Ranking | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    queries: Images | None = None,
    gallery: Images | None = None,
    max_queries: int = 2000,
    progress: Progress = QUIET,
) -> WrittenReport:
    """Write one self-contained HTML page: the figures, and what was found for each query.

    Args:
        ranking: A ranking, or its folder.
        output: The HTML file.
        queries: As of `evaluate`. Images are shown of an index, and of a table that has `uri`,
            their addresses; a grey tile stands for others.
        gallery: Likewise.
        max_queries: Queries on the page; the figures are those of all.
        progress: Told how far it is.

    Raises:
        UsageError: `output` is not the name of an HTML file, or lies within what is read.
        StorageError: something else is at `output`; the ranking or an index is not there.
        MismatchError, IndexFormatError: as `evaluate`.

    Cost: reads the ranking once or twice, and the images that are shown.
    """
    found = ranking if isinstance(ranking, Ranking) else open_ranking(ranking)
    return write_report(
        found.stored,
        os.fspath(output),
        queries=images_of(queries, found, "queries"),
        gallery=images_of(gallery, found, "gallery"),
        max_queries=max_queries,
        progress=progress,
    )
