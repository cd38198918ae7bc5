"""Arrow columns of ids and of vectors → NumPy arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError, UsageError

__all__ = [
    "VectorColumns",
    "find_id_column",
    "find_vector_column",
    "id_array",
    "vector_array",
    "vector_dim",
]

# Names that common tools give these columns, the likeliest first.
ID_NAMES = ("image_id", "id", "key", "path", "image_path", "uri", "url", "file_name", "filename")
VECTOR_NAMES = ("embedding", "embeddings", "image_embedding", "vector", "vectors", "features")
FLOATS = {pa.float16(): "float16", pa.float32(): "float32", pa.float64(): "float64"}


@dataclass(frozen=True)
class VectorColumns:
    """Which columns to read; None means to find them by name and type.

    Attributes:
        id_column: Column of the ids, text or integers.
        vector_column: Column of the vectors.
        binary_dtype: Type of a component where vectors are bare bytes: "float16", "float32"
            or "float64". Our own index says it itself.
    """

    id_column: str | None = None
    vector_column: str | None = None
    binary_dtype: str | None = None


def find_id_column(schema: pa.Schema, wanted: str | None, where: str) -> str:
    """Name of the column of ids.

    Raises:
        UsageError: the column asked for is missing, or none fits by name and type.
    """
    fitting = [field.name for field in schema if _is_id(field.type)]
    return _choose("id", wanted, fitting, ID_NAMES, schema, where)


def find_vector_column(schema: pa.Schema, wanted: VectorColumns, where: str) -> tuple[str, str]:
    """Name of the column of vectors and the dtype of a component.

    Raises:
        UsageError: the column asked for is missing, none fits by name and type, or it holds
            bytes that do not say their type.
    """
    fitting = [field.name for field in schema if _component(field, "?")]
    name = _choose("vector", wanted.vector_column, fitting, VECTOR_NAMES, schema, where)
    dtype = _component(schema.field(name), wanted.binary_dtype or "")
    if not dtype:
        raise UsageError(
            f"{where}: the column {name!r} holds bare bytes, which do not say their type. "
            f"Name it: --vector-dtype float16, float32 or float64."
        )
    return name, dtype


def _choose(
    role: str,
    wanted: str | None,
    fitting: list[str],
    usual: tuple[str, ...],
    schema: pa.Schema,
    where: str,
) -> str:
    if wanted is None:
        named = [name for name in usual if name in fitting]
        if named or len(fitting) == 1:
            return (named or fitting)[0]
    elif wanted in fitting:
        return wanted
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    found = f"no column {wanted!r} that can be it" if wanted else "none that fits by name and type"
    raise UsageError(
        f"{where}: the {role} column is needed; found {found} among: {columns}. "
        f"Name it: --{role}-column NAME."
    )


def _is_id(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return text or pa.types.is_integer(kind) or pa.types.is_string_view(kind)


def _is_extension(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType)


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _component(field: pa.Field, binary_dtype: str) -> str:
    """Type of a vector's components; "" where the column cannot hold vectors."""
    kind = field.type.storage_type if _is_extension(field.type) else field.type
    if _is_list(kind):
        return FLOATS.get(kind.value_type, "")
    if _is_bytes(kind) or _is_other_bytes(kind):
        stated = (field.metadata or {}).get(b"dtype", b"").decode(errors="replace")
        return stated if stated in FLOATS.values() else binary_dtype
    return ""


def id_array(column: pa.Array, where: str, first_row: int) -> NDArray[np.bytes_]:
    """Ids as UTF-8 bytes, whose order is the order of the ids.

    Args:
        column: Text or integers, no nulls. Integers become decimal text.
        where: The file, for the error.
        first_row: Number of the column's first row in that file, for the error.

    Returns:
        bytes (N,), of the width of the longest id.
    """
    text = column.cast(pa.large_string())
    text.validate(full=True)  # Parquet does not promise that text is UTF-8
    if text.null_count:
        row = first_row + pc.indices_nonzero(pc.is_null(text))[0].as_py()
        raise IndexFormatError(f"{where}, row {row}: no id; each row needs one.")
    if not len(text):
        return np.empty(0, "S1")
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset :][: len(text) + 1]
    start, stop = int(offsets[0]), int(offsets[-1])
    if start == stop:  # empty ids alone, for which Arrow may hold no buffer
        return np.zeros(len(text), "S1")
    data = np.frombuffer(text.buffers()[2], np.uint8)[start:stop]
    # NumPy pads with NUL bytes and could not tell such an id from a shorter one.
    if not data.min():
        at = start + int(np.argmin(data))
        row = first_row + int(np.searchsorted(offsets, at, side="right")) - 1
        raise IndexFormatError(f"{where}, row {row}: the id holds a NUL character; rename it.")
    return _padded(data, offsets[:-1] - start, np.diff(offsets))


def _padded(
    data: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.bytes_]:
    """Texts that lie back to back, each padded with NUL bytes to the width of the longest.

    Args:
        data: All texts, uint8 (B,).
        starts: Where each begins, int64 (N,), N at least 1.
        lengths: Bytes of each, int64 (N,), one of them at least 1.

    Cost: some 40 ns a text of 30 bytes; no loop over them. No copy if they are equally long.
    """
    width = int(lengths.max())
    if int(lengths.min()) == width:
        return data.view(f"S{width}")
    # Every place of the data as a text of full width, of which those at the starts are taken.
    data = np.concatenate([data, np.zeros(width, np.uint8)])
    windows = np.ndarray(len(data) - width + 1, f"V{width}", data, strides=(1,))
    taken = windows[starts].view(np.uint8).reshape(-1, width)
    kind = np.min_scalar_type(width)
    is_own = np.arange(width, dtype=kind) < lengths.astype(kind)[:, None]
    np.multiply(taken, is_own.view(np.uint8), out=taken)  # the rest belongs to the next text
    return taken.reshape(-1).view(f"S{width}")


def vector_dim(chunk: pa.Array, dtype: str) -> int:
    """Dimensions of the first vector of a chunk; 0 if that is null or there is none."""
    first = next(iter(_flat_storage(chunk[:1])), None)
    if first is None or not first.is_valid:
        return 0
    size = len(first.as_py())
    return size // np.dtype(dtype).itemsize if _is_bytes(first.type) else size


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind))


def _is_other_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _flat_storage(chunk: pa.Array) -> pa.Array:
    """A chunk without extension type; tensors lie flat in their storage."""
    if isinstance(chunk, pa.ExtensionArray):
        chunk = chunk.storage
    return chunk.cast(pa.binary()) if _is_other_bytes(chunk.type) else chunk


def vector_array(chunk: pa.Array, dim: int, dtype: str, where: str, first_row: int) -> NDArray[Any]:
    """Vectors of one chunk, without a copy where they lie back to back.

    Args:
        chunk: Lists, tensors or bytes.
        dim: Dimensions D that each row needs.
        dtype: Type of a component.
        where: The file, for the error.
        first_row: Number of the chunk's first row in that file, for the error.

    Returns:
        (N, D) of `dtype`.

    Raises:
        IndexFormatError: a row is null or of another length, or components are of another type.
    """
    array = _flat_storage(chunk)
    if not len(array):
        return np.empty((0, dim), dtype)
    width = dim * np.dtype(dtype).itemsize
    if array.null_count or array.type != pa.binary(width):  # else nothing can be wrong
        _check_lengths(array, dim, width, where, first_row)
    if not _is_bytes(array.type):
        values = array.flatten().to_numpy(zero_copy_only=False)
        if values.dtype != dtype:
            raise IndexFormatError(
                f"{where}: components of {values.dtype}; {dtype} is needed, as in the first file."
            )
        return values.reshape(-1, dim)
    if pa.types.is_fixed_size_binary(array.type):
        start, data = array.offset * width, array.buffers()[1]
    else:
        offsets = np.frombuffer(array.buffers()[1], dtype=np.int32)
        start, data = int(offsets[array.offset]), array.buffers()[2]
    kind = np.dtype(dtype).newbyteorder("<")
    return np.frombuffer(data, kind, len(array) * dim, offset=start).reshape(-1, dim)


def _check_lengths(array: pa.Array, dim: int, width: int, where: str, first_row: int) -> None:
    """Refuse a row that is null or of another length, in dimensions or in bytes."""
    if _is_bytes(array.type):
        lengths = pc.binary_length(array).to_numpy(zero_copy_only=False)
        needed, unit = width, "bytes"
    else:
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
        needed, unit = dim, "dimensions"
    wrong = np.flatnonzero(lengths != needed)  # a null's length is NaN
    if wrong.size:
        row = int(wrong[0])
        found = "no vector" if array[row].as_py() is None else f"{int(lengths[row])} {unit}"
        raise IndexFormatError(
            f"{where}, row {first_row + row}: {found}; {needed} {unit} are needed, as in the "
            f"first row of the first file."
        )
