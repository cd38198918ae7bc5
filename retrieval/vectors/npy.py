"""Pairs of files: vectors as .npy, their ids as Parquet, row by row the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from retrieval.errors import IndexFormatError
from retrieval.storage import DAMAGED_PARQUET, first_line, open_input, parquet_file
from retrieval.vectors.columns import FLOATS, VectorColumns, find_id_column
from retrieval.vectors.source import VectorFile, VectorSource

__all__ = ["npy_header", "open_npy"]


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


def open_npy(uri: str, names: Sequence[str], wanted: VectorColumns) -> VectorSource:
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
        with open_input(uri) as stream, parquet_file(stream) as file:
            id_column = find_id_column(file.schema_arrow, wanted.id_column, uri)
            return id_column, file.metadata.num_rows
    except DAMAGED_PARQUET as error:
        raise IndexFormatError(
            f"{uri}: cannot be read as Parquet ({first_line(error)})."
        ) from error
