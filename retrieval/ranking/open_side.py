"""What may be ranked, opened: a location, or what is open already."""

from __future__ import annotations

import os
from pathlib import Path

from retrieval.errors import UsageError
from retrieval.index.table import Index
from retrieval.vectors import VectorColumns, VectorSource, open_source

__all__ = ["Side", "open_side"]

Side = str | Path | VectorSource | Index


def open_side(side: Side, columns: VectorColumns | None = None, name: str = "side") -> VectorSource:
    """The queries or the gallery as a source.

    Args:
        side: An index or INDEX@12, other tools' files (see `open_source`), an index or a source
            that is open.
        columns: Which columns of other tools' files hold ids and vectors.
        name: The parameter that has it, for errors.

    Raises:
        UsageError: it is none of these.
        RetrievalError: as `open_source` does.
    """
    if isinstance(side, VectorSource):
        return side
    if isinstance(side, Index):
        return open_source(side.uri, version=side.version)
    if isinstance(side, str | Path):
        return open_source(os.fspath(side), columns)
    raise UsageError(
        f"`{name}`: a {type(side).__name__}; a NumPy array, an index, or the place of one or of "
        f"files is needed."
    )
