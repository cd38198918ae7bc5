"""Where a ranking may lie: apart from what it is made of."""

from __future__ import annotations

import glob
from pathlib import Path

from retrieval.index.history import split_version
from retrieval.storage import absolute_uri, check_apart, expand, is_local, is_same_place

__all__ = ["check_places"]


def check_places(queries: str, gallery: str, ranking: str, previous: str | None = None) -> None:
    """Refuse a ranking inside the vectors that it is made of, and vectors inside the ranking.

    It may replace the previous ranking, in its own folder.

    Raises:
        UsageError: two of them do not lie apart.
        StorageError: a glob matches no file.
    """
    for name, side in (("the queries", queries), ("the gallery", gallery)):
        for uri in _places_of(side):
            check_apart({name: uri}, {"the ranking": ranking})
    if previous is not None and not is_same_place(previous, ranking):
        check_apart({"the previous ranking": previous}, {"the ranking": ranking})


def _places_of(side: str) -> list[str]:
    """What is read; of a glob one file in each folder, beside which other files may be written."""
    if is_local(side) and glob.has_magic(side) and not Path(absolute_uri(side)).exists():
        return list({str(Path(file).parent): file for file in expand(side)}.values())
    return [split_version(side)[0]]
