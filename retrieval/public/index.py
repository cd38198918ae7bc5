"""An index, as a notebook wants it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.embedding_spec import EmbeddingSpec
from retrieval.errors import UsageError
from retrieval.index.history import split_version
from retrieval.index.reading import IndexRows, read_columns, read_rows, vectors_of
from retrieval.index.schema import index_schema
from retrieval.index.table import Index as StoredIndex
from retrieval.index.table import open_index as open_stored
from retrieval.public.ranking import Ranking, Vectors, rank

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Index", "open_index"]

_VECTORS = ("list", "bytes", "none")


class Index:
    """One version of an index. Rows are sorted by id, bytewise; nothing is read before it is used.

    Attributes:
        stored: The version, as the rest of the library takes it.
        uri: Its folder or address.
        version: Its number.
        spec: How its embeddings were made: backbone, weights, fingerprint, dimensions, type.
    """

    def __init__(self, stored: StoredIndex) -> None:
        self.stored = stored
        self.uri: str = stored.uri
        self.version: int = stored.version
        self.spec: EmbeddingSpec = stored.spec
        self._read: IndexRows | None = None

    def __len__(self) -> int:
        return self.stored.num_rows

    def __bool__(self) -> bool:
        return True  # an index without rows is one, too

    def __repr__(self) -> str:
        spec = self.spec
        return (
            f"Index({self.uri!r}, version {self.version}: {len(self)} images, "
            f"{spec.dim} × {spec.dtype} by {spec.backbone})"
        )

    @property
    def _rows(self) -> IndexRows:
        if self._read is None:
            self._read = read_rows(self.stored)
        return self._read

    @property
    def ids(self) -> list[str]:
        """Image ids, length N. The first use reads the index; see `retrieval.read_index`."""
        return self._rows.ids

    @property
    def embeddings(self) -> NDArray[Any]:
        """The embeddings as they are stored, float16 or float32 (N, D); row i is that of ids[i]."""
        return self._rows.embeddings

    @property
    def labels(self) -> list[str | None]:
        """Labels, length N; None where an image has none."""
        return self._rows.labels

    def to_arrow(self, vectors: str = "list") -> pa.Table:
        """All columns, by their names in the index: image_id, uri, label, embedding and the rest.

        Args:
            vectors: How the column `embedding` comes: "list", fixed_size_list of float16 or
                float32; "bytes", as it is stored; "none", without it.

        Raises:
            UsageError: another word.
            IndexFormatError, StorageError: as `retrieval.read_index`.

        Cost: reads the columns of every shard once; memory holds them about twice.
        """
        if vectors not in _VECTORS:
            raise UsageError(f"`vectors` {vectors!r}: one of {', '.join(_VECTORS)} is needed.")
        names = index_schema(self.spec).names
        if vectors == "none":
            names.remove("embedding")
        table = read_columns(self.stored, names)
        # By bytes, as rankings and `ids` are; Arrow's order of text is the same.
        table = table.sort_by("image_id") if table.num_rows else table
        if vectors != "list":
            return table
        place = table.column_names.index("embedding")
        return table.set_column(place, "embedding", _as_lists(table["embedding"], self.spec))

    def to_pandas(self) -> pd.DataFrame:
        """All columns as a DataFrame; each `embedding` is an array (D,)."""
        frame = self.to_arrow("bytes").to_pandas()
        dtype = np.dtype(self.spec.dtype).newbyteorder("<")
        frame["embedding"] = [np.frombuffer(row, dtype) for row in frame["embedding"]]
        return frame

    def search(
        self,
        queries: Vectors,
        k: int | None = 10,
        *,
        metric: str = "cosine",
        exclude_self: bool = False,
    ) -> Ranking:
        """Find the k nearest images of this version for each query, exactly.

        Args:
            queries: An array (Q, D), an index, or the place of one or of other tools' vectors.
            k: Images for each query, 1 to N; None for all.
            metric: As of `retrieval.rank`.
            exclude_self: Leave out the image with the query's own id.

        Raises:
            UsageError, MismatchError: as `retrieval.rank`.
        """
        return rank(queries, self, k, metric=metric, exclude_self=exclude_self)


def open_index(index: str | os.PathLike[str], version: int | None = None) -> Index:
    """Open a version of an index.

    Args:
        index: Its folder or address; INDEX@12 is its version 12.
        version: A version, of an index that `index` names alone; the newest by default.

    Raises:
        StorageError: nothing is there, or it cannot be reached.
        UsageError: it has no such version.
        IndexFormatError: it is a table but no index, or its log is damaged.

    Cost: reads the log; no shard.
    """
    uri = os.fspath(index)
    if version is None:
        uri, version = split_version(uri)
    return Index(open_stored(uri, version))


def _as_lists(column: pa.ChunkedArray, spec: EmbeddingSpec) -> pa.Array:
    values = vectors_of(column, spec.dim, spec.dtype).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(values), spec.dim)
