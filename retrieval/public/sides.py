"""The images of the two sides of a ranking, in whatever form a caller has their labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.errors import UsageError
from retrieval.public.index import Index

if TYPE_CHECKING:
    import pandas as pd

    from retrieval.public.ranking import Ranking

__all__ = ["Images", "images_of"]

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
