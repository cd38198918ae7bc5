"""Pairs of files: vectors as .npy, their ids as Parquet, row by row the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from retrieval.errors import IndexFormatError
from retrieval.storage import (
    DAMAGED_PARQUET,
    check_inflation,
    first_line,
    is_no_answer,
    not_read,
    open_input,
    parquet_file,
)
from retrieval.vectors.columns import VectorColumns, find_id_column
from retrieval.vectors.source import VectorFile, VectorSource

__all__ = ["npy_header", "open_npy"]

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000  # as NumPy reads: 118 bytes are usual
_FLOAT = re.compile(r"[<>=|]?(?:f[248]|[efd]|float(?:16|32|64)?|half|single|double)")
# The entries of a header, which is a dictionary as Python writes it; that of Python 2 wrote 3L.
_ENTRIES = {
    "descr": r"""'[^'"\\]*'|"[^'"\\]*\"""",
    "fortran_order": "True|False",
    "shape": r"\((?:\s*[0-9]{1,20}L?\s*,)*(?:\s*[0-9]{1,20}L?)?\s*\)",
}
_ENTRY = re.compile(
    "|".join(rf"""['"]{name}['"]\s*:\s*(?P<{name}>{value})""" for name, value in _ENTRIES.items())
)


def npy_header(stream: pa.NativeFile, where: str) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and start of the data of a .npy file; nothing is evaluated or unpickled.

    Of one without rows the shape is (0, 0).

    Raises:
        IndexFormatError: no .npy file of a two-dimensional array of floats, row by row.

    Cost: reads the header, at most 10,012 bytes.
    """
    try:
        found, start = _read_header(stream)
    except ValueError as error:
        raise IndexFormatError(f"{where}: no .npy file ({first_line(error)}).") from error
    shape = tuple(int(size) for size in re.findall("[0-9]+", found["shape"]))
    is_fortran, code = found["fortran_order"] == "True", found["descr"].strip("'\"")
    if shape[:1] == (0,):  # holds nothing, whatever its other axes, order and type
        return (0, 0), np.dtype(np.float32), start
    if len(shape) != 2 or is_fortran or not _FLOAT.fullmatch(code) or not shape[1]:
        raise IndexFormatError(
            f"{where}: an array of shape {shape}{' by column' if is_fortran else ''} and type "
            f"{_type_name(code)}; (rows, dimensions) of float16, float32 or float64, row by row, "
            f"is needed."
        )
    return shape, np.dtype(code), start


def _read_header(stream: pa.NativeFile) -> tuple[dict[str, str], int]:
    """The three entries of a header, as they are written, and where the data starts."""
    start = stream.read(_MAX_HEADER + 12)
    # Versions: 1.0 has 2 bytes for the length of the header, 2.0 has 4, and 3.0 is in UTF-8.
    width = {b"\1\0": 2, b"\2\0": 4, b"\3\0": 4}.get(start[6:8])
    if len(start) < 8 or not start.startswith(_MAGIC):
        raise ValueError("EOF: no header" if _MAGIC.startswith(start[:6]) else "no magic string")
    if width is None:
        raise ValueError(f"version {start[6]}.{start[7]} of the format; 1.0, 2.0 or 3.0 is needed")
    length = int.from_bytes(start[8 : 8 + width], "little")
    header = start[8 + width : 8 + width + length]
    if length > _MAX_HEADER:
        raise ValueError(f"a header of {length} bytes; at most {_MAX_HEADER} are read")
    if len(header) < length or len(start) < 8 + width:
        raise ValueError(f"EOF: {len(start)} bytes, and the header ends after {8 + width + length}")
    text = header.decode("utf-8" if start[6] == 3 else "latin-1")
    named = (match.groupdict().items() for match in _ENTRY.finditer(text))
    found = {name: value for entry in named for name, value in entry if value is not None}
    # All that the entries leave are brackets, commas and spaces.
    rest = re.sub(r"\s", "", _ENTRY.sub("#", text))
    if found.keys() != _ENTRIES.keys() or rest.replace(",}", "}") != "{#,#,#}":
        raise ValueError(f"its header is {text.strip()[:80]!r}")
    return found, 8 + width + length


def _type_name(code: str) -> str:
    try:
        return str(np.dtype(code)) if re.fullmatch(r"[<>=|]?[biufcO][0-9]{0,2}", code) else code
    except TypeError:
        return code


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
        files.append(VectorFile(name, num_rows, ids_uri))
        if num_rows:
            wanted = VectorColumns(id_column)
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
        dim=next(iter(dims), 0),
        dtype=next(iter(dtypes), ""),
        id_column=wanted.id_column or "",
        vector_column="",
    )


def _inspect_npy(name: str) -> tuple[tuple[int, ...], np.dtype]:
    try:
        with open_input(name) as stream:
            shape, dtype, start = npy_header(stream, name)
            size = stream.size()
    except OSError as error:
        if is_no_answer(error):
            raise not_read(name, error) from error
        raise IndexFormatError(f"{name}: cannot be read ({first_line(error)}).") from error
    needed = start + shape[0] * shape[1] * dtype.itemsize
    if size != needed:  # rows that the header does not tell would be passed over without a word
        raise IndexFormatError(
            f"{name}: {size} bytes, but its header says {shape[0]} × {shape[1]} × {dtype.name}, "
            f"which takes {needed}. It is damaged, or not written to its end: write it again."
        )
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
            if not file.metadata.num_rows:
                return "", 0
            id_column = find_id_column(file.schema_arrow, wanted.id_column, uri)
            check_inflation(file, [id_column], stream.size())
            return id_column, file.metadata.num_rows
    except DAMAGED_PARQUET as error:
        if is_no_answer(error):
            raise not_read(uri, error) from error
        raise IndexFormatError(
            f"{uri}: cannot be read as Parquet ({first_line(error)})."
        ) from error
