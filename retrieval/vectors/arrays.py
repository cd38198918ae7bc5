"""Vectors in memory as a source: what ranks files ranks an array as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from retrieval.errors import UsageError
from retrieval.vectors.ids import id_text, short_ids
from retrieval.vectors.source import VectorFile, VectorPart, VectorSource

__all__ = ["ArrayFile", "array_source", "read_array", "read_array_ids", "row_number_ids"]

_DTYPES = ("float16", "float32", "float64")


@dataclass(frozen=True, kw_only=True)
class ArrayFile(VectorFile):
    """An array, in the place of a file; its `uri` is what messages call it.

    Attributes:
        texts: large_string (N,), the ids, without nulls.
        vectors: float16, float32 or float64 (N, D), row by row.
    """

    texts: pa.Array = field(compare=False, repr=False)
    vectors: NDArray[Any] = field(compare=False, repr=False)


def array_source(
    vectors: NDArray[Any],
    ids: Sequence[str] | NDArray[Any] | pa.Array,
    name: str,
    ids_name: str = "ids",
) -> VectorSource:
    """A source of one array.

    Args:
        vectors: float16, float32 or float64 (N, D), N and D at least 1.
        ids: N ids: text, integers, or bytes that are UTF-8.
        name: The parameter that has the array, for errors.
        ids_name: The parameter that has the ids.

    Raises:
        UsageError: it is no such array, or there are more or fewer ids than rows.
        IndexFormatError: an id is null or holds a NUL character.

    Cost: the ids as Arrow text; a copy of the vectors where they do not lie row by row in the
        order of bytes of this machine.
    """
    if vectors.ndim != 2 or vectors.dtype.name not in _DTYPES or not vectors.size:
        shape = " × ".join(map(str, vectors.shape))
        raise UsageError(
            f"`{name}`: an array {shape} of {vectors.dtype}; rows × dimensions of "
            f"{', '.join(_DTYPES)}, at least one of each, are needed."
        )
    texts = _id_texts(ids, ids_name)
    if len(texts) != len(vectors):
        raise UsageError(
            f"`{ids_name}`: {len(texts)} ids, but {len(vectors)} rows; one for each is needed."
        )
    vectors = np.ascontiguousarray(vectors, vectors.dtype.newbyteorder("="))
    file = ArrayFile(name, len(vectors), texts=texts, vectors=vectors)
    return VectorSource(
        uri=name,
        files=(file,),
        dim=vectors.shape[1],
        dtype=vectors.dtype.name,
        id_column="",
        vector_column="",
    )


def _id_texts(ids: Sequence[str] | NDArray[Any] | pa.Array, name: str) -> pa.Array:
    try:
        column = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(ids)
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        return id_text(column, name, 0)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise UsageError(
            f"`{name}`: cannot be read as ids ({error}). Text or integers are needed, one for "
            f"each row."
        ) from error


def row_number_ids(num_rows: int, num_digits: int) -> pa.Array:
    """Row numbers as ids, large_string (N,): with zeros in front, so that they sort as numbers."""
    powers = 10 ** np.arange(num_digits - 1, -1, -1)
    digits = np.arange(num_rows)[:, None] // powers % 10 + ord("0")
    offsets = np.arange(num_rows + 1) * num_digits
    data = digits.astype(np.uint8)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), num_rows, buffers)


def read_array(
    source: VectorSource, part: VectorPart, max_rows: int
) -> Iterator[tuple[NDArray[np.bytes_], NDArray[Any]]]:
    """Ids and vectors of a part of an array, some rows at a time; the vectors are no copies."""
    for texts, rows in _slices(part, max_rows):
        yield short_ids(texts, source.long_ids), rows


def read_array_ids(part: VectorPart, max_rows: int) -> Iterator[pa.Array]:
    """Ids of a part of an array, some rows at a time, as text."""
    for texts, _ in _slices(part, max_rows):
        yield texts


def _slices(part: VectorPart, max_rows: int) -> Iterator[tuple[pa.Array, NDArray[Any]]]:
    file = part.file
    assert isinstance(file, ArrayFile)  # noqa: S101 - who calls has looked
    stop = part.first_row + part.num_rows
    for start in range(part.first_row, stop, max_rows):
        rows = slice(start, min(start + max_rows, stop))
        yield file.texts[rows], file.vectors[rows]
