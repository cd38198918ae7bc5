"""How good a ranking is: figures, and a page, by labels in whatever form a caller has them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.errors import UsageError
from retrieval.evaluation import Evaluation
from retrieval.evaluation import evaluate as evaluate_stored
from retrieval.progress import QUIET, Progress
from retrieval.public.index import Index
from retrieval.public.ranking import Ranking, open_ranking
from retrieval.report_page import WrittenReport, write_report

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Images", "evaluate", "images_of", "report"]

Images: TypeAlias = (
    "str | Path | Index | pa.Table | pd.DataFrame | Mapping[str, str | None] "
    "| Sequence[str | None] | NDArray[Any]"
)

_COLUMNS = ("image_id", "label", "uri")


def images_of(given: Any, ranking: Ranking, side: str) -> str | pa.Table:  # noqa: ANN401
    """One side of a ranking, as the rest of the library takes it.

    Args:
        given: The place of what was ranked, or an index; a table with image_id, label and, where
            images are to be shown, uri; labels by id; or, of arrays without ids, labels in the
            order of the rows. None for what the ranking says that it was made of.
        ranking: The ranking.
        side: "queries" or "gallery".

    Returns:
        A place; or image_id, label and uri, all string, of all images of the side.

    Raises:
        UsageError: it is none of these, or has too few rows or labels.
    """
    if given is None:
        if ranking.stored.held is None or ranking.facts[side]["spec"] is not None:
            return str(ranking.facts[side]["uri"])
        raise UsageError(f"`{side}`: the ranking was made of an array; give its labels.")
    if isinstance(given, Index):
        return f"{given.uri}@{given.version}"
    if isinstance(given, str | os.PathLike):
        return os.fspath(given)
    if isinstance(given, Mapping):
        return _table(list(given), list(given.values()), side)
    if isinstance(given, pa.Table) or hasattr(given, "columns"):
        return _from_table(given, side)
    return _by_rows(list(given), ranking, side)


def _from_table(given: Any, side: str) -> pa.Table:  # noqa: ANN401
    table = given if isinstance(given, pa.Table) else pa.Table.from_pandas(given)
    missing = [name for name in _COLUMNS[:2] if name not in table.column_names]
    if missing:
        raise UsageError(
            f"`{side}`: the table has no column {missing[0]}; image_id and label are needed."
        )
    uris = table["uri"].to_pylist() if "uri" in table.column_names else None
    return _table(table["image_id"].to_pylist(), table["label"].to_pylist(), side, uris)


def _by_rows(labels: list[Any], ranking: Ranking, side: str) -> pa.Table:
    num_rows = ranking.facts[f"num_{side}"]
    if len(labels) != num_rows:
        raise UsageError(
            f"`{side}`: {len(labels)} labels, but {num_rows} rows were ranked; one for each is "
            f"needed."
        )
    return _table(_ids_in_order(ranking, side, num_rows), labels, side)


def _ids_in_order(ranking: Ranking, side: str, num_rows: int) -> list[str]:
    """The ids of an array's rows; of other sides nobody knows the order."""
    if side == "queries" and ranking.stored.held is not None:
        return [str(each) for each in ranking.query_ids]
    if np.issubdtype(ranking.ids.dtype, np.integer):
        return [str(number) for number in range(num_rows)]
    raise UsageError(
        f"`{side}`: labels in the order of the rows are enough of an array without ids; else "
        f"give labels by id, as in dict(zip(ids, labels))."
    )


def _table(
    ids: Sequence[Any], labels: Sequence[Any], side: str, uris: Sequence[Any] | None = None
) -> pa.Table:
    try:
        columns = [
            pa.array([str(each) for each in ids], pa.string()),
            pa.array([None if each is None else str(each) for each in labels], pa.string()),
            pa.nulls(len(ids), pa.string()) if uris is None else pa.array(uris, pa.string()),
        ]
        return pa.table(columns, names=list(_COLUMNS))
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise UsageError(f"`{side}`: cannot be read as ids and labels ({error}).") from error


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
