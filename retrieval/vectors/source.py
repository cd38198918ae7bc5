"""What there is to rank: the files of an index or of another tool's output.

Opening a source reads the log of an index, or the footer of each foreign file; no vector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.errors import IndexFormatError, StorageError
from retrieval.index.schema import EmbeddingSpec
from retrieval.index.table import is_index, may_hold_index, open_index
from retrieval.storage import (
    DAMAGED_PARQUET,
    absolute_uri,
    expand,
    first_line,
    is_local,
    join,
    open_input,
)
from retrieval.vectors.columns import (
    FLOATS,
    VectorColumns,
    find_id_column,
    find_vector_column,
    vector_dim,
)

__all__ = ["VectorFile", "VectorSource", "npy_header", "open_source"]


@dataclass(frozen=True)
class VectorFile:
    """One file of vectors.

    Attributes:
        uri: The Parquet file, or the .npy file.
        num_rows: Rows in it.
        ids_uri: For .npy, the Parquet file that holds the ids in the same order; else "".
    """

    uri: str
    num_rows: int
    ids_uri: str = ""


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
    """

    uri: str
    files: tuple[VectorFile, ...]
    dim: int
    dtype: str
    id_column: str
    vector_column: str
    spec: EmbeddingSpec | None = None
    version: int | None = None

    @property
    def num_rows(self) -> int:
        """Rows of all files."""
        return sum(file.num_rows for file in self.files)


def open_source(uri: str, columns: VectorColumns | None = None) -> VectorSource:
    """Open an index, or a Parquet folder, glob or file, or a folder of .npy and Parquet pairs.

    Args:
        uri: Local path, glob or address.
        columns: Which columns hold ids and vectors; found by name and type by default.

    Raises:
        StorageError: nothing is there.
        IndexFormatError: a file is damaged, empty of vectors, or of another width or type;
            it is not clear which ids belong to an array.
        UsageError: the columns cannot be told apart.

    Cost: one small read a file; for an index, its log alone.
    """
    uri = absolute_uri(uri)
    if _may_be_index(uri) and is_index(uri):
        source = _open_index(uri)
    else:
        files = expand(uri)
        vectors = [name for name in files if name.endswith(".npy")]
        wanted = columns or VectorColumns()
        source = _open_npy(uri, files, wanted) if vectors else _open_parquet(uri, files, wanted)
    if not source.num_rows:
        raise IndexFormatError(f"{uri}: holds no vectors. At least one row is needed.")
    return source


def _may_be_index(uri: str) -> bool:
    # deltalake takes a glob for a folder's name.
    is_glob = is_local(uri) and "*" in uri
    return not uri.endswith((".parquet", ".npy")) and not is_glob and may_hold_index(uri)


def _open_index(uri: str) -> VectorSource:
    index = open_index(uri)
    return VectorSource(
        uri=uri,
        files=tuple(VectorFile(join(uri, shard.path), shard.num_rows) for shard in index.shards),
        dim=index.spec.dim,
        dtype=index.spec.dtype,
        id_column="image_id",
        vector_column="embedding",
        spec=index.spec,
        version=index.version,
    )


def _open_parquet(uri: str, names: Sequence[str], wanted: VectorColumns) -> VectorSource:
    parquet = [name for name in names if name.endswith((".parquet", ".pq"))] or list(names)
    first: VectorSource | None = None
    files = []
    for name in parquet:
        found = _inspect_parquet(name, wanted)
        files.append(found.files[0])
        if first is None or not first.dim:
            first = replace(found, uri=uri)
        elif found.dim and (found.dim, found.dtype) != (first.dim, first.dtype):
            raise IndexFormatError(
                f"{name}: {found.dim} × {found.dtype}, but the files before it hold "
                f"{first.dim} × {first.dtype}. Vectors of one make are needed."
            )
        wanted = VectorColumns(found.id_column, found.vector_column, found.dtype)
    if first is None:
        raise StorageError(f"{uri}: no Parquet file found there.")
    return replace(first, files=tuple(files))


def _inspect_parquet(name: str, wanted: VectorColumns) -> VectorSource:
    """A source of this file alone; its dim is 0 where the file has no row."""
    try:
        # Buffered, so that one page is read; pyarrow's default is the whole column chunk.
        with (
            open_input(name) as stream,
            pq.ParquetFile(stream, buffer_size=2**16, pre_buffer=False) as file,
        ):
            schema = file.schema_arrow
            id_column = find_id_column(schema, wanted.id_column, name)
            vector_column, dtype = find_vector_column(schema, wanted, name)
            batch = next(file.iter_batches(batch_size=1, columns=[vector_column]), None)
            dim = vector_dim(batch.column(vector_column), dtype) if batch is not None else 0
            num_rows = file.metadata.num_rows
    except DAMAGED_PARQUET as error:
        raise IndexFormatError(
            f"{name}: cannot be read as Parquet ({first_line(error)}). "
            f"Write this shard again, or leave it out."
        ) from error
    if num_rows and not dim:
        raise IndexFormatError(
            f"{name}, row 0: no vector; the first row must tell how many dimensions there are. "
            f"Leave it out."
        )
    return VectorSource(
        uri=name,
        files=(VectorFile(name, num_rows),),
        dim=dim,
        dtype=dtype,
        id_column=id_column,
        vector_column=vector_column,
    )


def npy_header(stream: pa.NativeFile, where: str) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and start of the data of a .npy file; nothing is unpickled.

    Raises:
        IndexFormatError: no .npy file of a two-dimensional array of floats, row by row.
    """
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, is_fortran, dtype = read(stream)
    except (ValueError, KeyError, EOFError) as error:
        raise IndexFormatError(f"{where}: no .npy file ({first_line(error)}).") from error
    if len(shape) != 2 or is_fortran or dtype.name not in FLOATS.values() or not shape[1]:
        raise IndexFormatError(
            f"{where}: an array of shape {shape}{' by column' if is_fortran else ''} and type "
            f"{dtype}; (rows, dimensions) of float16, float32 or float64, row by row, is needed."
        )
    return shape, dtype, stream.tell()


def _open_npy(uri: str, names: Sequence[str], wanted: VectorColumns) -> VectorSource:
    """Pairs as clip-retrieval writes them: img_emb/img_emb_0.npy, metadata/metadata_0.parquet."""
    arrays = [name for name in names if name.endswith(".npy")]
    arrays = [name for name in arrays if "/img_emb/" in name] or arrays
    tables: dict[str, list[str]] = {}  # by their names and by their numbers
    for name in (name for name in names if name.endswith(".parquet")):
        for key in {name, _number(name)}:
            tables.setdefault(key, []).append(name)
    files, dims, dtypes = [], set(), set()
    for name in arrays:
        ids_uri = _ids_of(name, tables)
        (num_rows, dim), dtype = _inspect_npy(name)
        id_column, num_ids = _inspect_ids(ids_uri, wanted)
        if num_ids != num_rows:
            raise IndexFormatError(
                f"{name}: {num_rows} vectors, but {ids_uri} has {num_ids} rows. "
                f"The n-th row of one belongs to the n-th of the other: write the pair again."
            )
        wanted = VectorColumns(id_column)
        files.append(VectorFile(name, num_rows, ids_uri))
        dims.add(dim)
        dtypes.add(dtype.name)
    if len(dims) > 1 or len(dtypes) > 1:
        raise IndexFormatError(
            f"{uri}: arrays of {sorted(dims)} dimensions and type {sorted(dtypes)}; one of "
            f"each is needed."
        )
    return VectorSource(
        uri=uri,
        files=tuple(files),
        dim=dims.pop(),
        dtype=dtypes.pop(),
        id_column=wanted.id_column or "",
        vector_column="",
    )


def _inspect_npy(name: str) -> tuple[tuple[int, ...], np.dtype]:
    try:
        with open_input(name) as stream:
            shape, dtype, _ = npy_header(stream, name)
    except OSError as error:
        raise IndexFormatError(f"{name}: cannot be read ({first_line(error)}).") from error
    return shape, dtype


def _ids_of(array: str, tables: Mapping[str, list[str]]) -> str:
    """The Parquet file of an array: of its name in its folder, or else of its number."""
    beside = f"{array.removesuffix('.npy')}.parquet"
    found = tables.get(beside if beside in tables else _number(array), [])
    found = [name for name in found if "/metadata/" in name] or found
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} Parquet files with its number" if found else "no Parquet file"
    raise IndexFormatError(
        f"{array}: {what} with its ids. A pair has one name, as in a.npy and a.parquet, or ends "
        f"in one number, as in img_emb/img_emb_0.npy and metadata/metadata_0.parquet."
    )


def _number(name: str) -> str:
    """The number at the end of a file's name, without zeros before it, or else the name."""
    found = re.search(r"(\d+)\.\w+$", name)
    return str(int(found[1])) if found else name


def _inspect_ids(uri: str, wanted: VectorColumns) -> tuple[str, int]:
    try:
        with open_input(uri) as stream, pq.ParquetFile(stream) as file:
            id_column = find_id_column(file.schema_arrow, wanted.id_column, uri)
            return id_column, file.metadata.num_rows
    except DAMAGED_PARQUET as error:
        raise IndexFormatError(
            f"{uri}: cannot be read as Parquet ({first_line(error)})."
        ) from error
