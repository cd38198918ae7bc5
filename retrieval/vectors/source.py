"""What there is to rank: the files of an index or of another tool's output."""

from __future__ import annotations

from dataclasses import dataclass, field

from retrieval.embedding_spec import EmbeddingSpec
from retrieval.vectors.long_ids import LongIds

__all__ = ["VectorFile", "VectorPart", "VectorSource"]


@dataclass(frozen=True)
class VectorFile:
    """One file of vectors.

    Attributes:
        uri: The Parquet file, or the .npy file.
        num_rows: Rows in it.
        ids_uri: For .npy, the Parquet file that holds the ids in the same order; else "".
        row_groups: Rows of each of its row groups; () where opening does not read them.
    """

    uri: str
    num_rows: int
    ids_uri: str = ""
    row_groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class VectorPart:
    """Some consecutive rows of one file: a share of work. Plain values: cheap to send.

    Attributes:
        file: The file.
        first_row: Number in the file of the first row.
        num_rows: Rows in the part.
    """

    file: VectorFile
    first_row: int
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class VectorSource:
    """Files of vectors that may be ranked together. Plain values: cheap to send.

    Attributes:
        uri: What the user named.
        files: The files, sorted by name.
        dim: Dimensions D.
        dtype: Stored type of a component: "float16", "float32" or "float64".
        id_column: Name of the id column.
        vector_column: Name of the vector column; "" for .npy.
        spec: For an index, how its vectors were made; else None.
        version: For an index, the version that was opened; else None.
        long_ids: What stands for ids of more than MOST_BYTES bytes, where there are any.
    """

    uri: str
    files: tuple[VectorFile, ...]
    dim: int
    dtype: str
    id_column: str
    vector_column: str
    spec: EmbeddingSpec | None = None
    version: int | None = None
    long_ids: LongIds | None = field(default=None, compare=False, repr=False)

    @property
    def num_rows(self) -> int:
        """Rows of all files."""
        return sum(file.num_rows for file in self.files)
