"""Which columns of a table are the ids and the vectors; vectors → NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError, UsageError
from retrieval.storage.text_columns import is_bytes, is_text
from retrieval.vector_columns import VectorColumns
from retrieval.vectors.ids import id_array

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


def find_id_column(schema: pa.Schema, wanted: str | None, where: str) -> str:
    """Name of the column of ids.

    Raises:
        UsageError: the column asked for is missing or holds no ids, or none fits by name and type.
    """
    fitting = [field.name for field in schema if is_text(field.type)]
    # Bare bytes may as well be vectors: only a name tells.
    by_name = [field.name for field in schema if is_bytes(field.type)]
    return _choose("id", wanted, fitting, by_name, schema, where)


def find_vector_column(schema: pa.Schema, wanted: VectorColumns, where: str) -> tuple[str, str]:
    """Name of the column of vectors and the dtype of a component.

    Raises:
        UsageError: the column asked for is missing or holds no vectors, none fits by name and
            type, or it holds bytes that do not say their type.
    """
    fitting = [field.name for field in schema if _component(field, "?")]
    name = _choose("vector", wanted.vector_column, fitting, [], schema, where)
    dtype = _component(schema.field(name), wanted.binary_dtype or "")
    if not dtype:
        raise UsageError(
            f"{where}: the column {name!r} holds bare bytes, which do not say their type. "
            f"Name it: `binary_dtype` float16, float32 or float64."
        )
    return name, dtype


_USUAL = {"id": ID_NAMES, "vector": VECTOR_NAMES}
_NEEDED = {
    "id": "text, integers or UUIDs, plain or in a dictionary,",
    "vector": "lists, tensors or bytes of float16, float32 or float64",
}


def _choose(
    role: str,
    wanted: str | None,
    fitting: list[str],
    by_name: list[str],
    schema: pa.Schema,
    where: str,
) -> str:
    name = wanted if wanted is not None else _likeliest(role, fitting, by_name)
    if name is not None and schema.names.count(name) > 1:
        raise UsageError(
            f"{where}: has {schema.names.count(name)} columns called {name!r}. Give each a name "
            f"of its own, or name another: `{role}_column` NAME."
        )
    if name is not None and name in (*fitting, *by_name):
        return name
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    found = f"no column {wanted!r} that can be it" if wanted else "none that fits by name and type"
    advice = f"Name it: `{role}_column` NAME."
    if not fitting and not by_name:  # then no name would help
        advice = f"None of them can be it: {_NEEDED[role]} are needed. Write such a column."
    raise UsageError(
        f"{where}: the {role} column is needed; found {found} among: {columns}. {advice}"
    )


def _likeliest(role: str, fitting: list[str], by_name: list[str]) -> str | None:
    """By a usual name, in its usual case before any other; else the only one that fits."""
    for names in (fitting, by_name):
        named = [name for name in _USUAL[role] if name in names]
        named += [name for usual in _USUAL[role] for name in names if name.casefold() == usual]
        if named:
            return named[0]
    return fitting[0] if len(fitting) == 1 else None


def _is_extension(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType)


def _is_list(kind: pa.DataType) -> bool:
    found = pa.types.is_list(kind) or pa.types.is_large_list(kind) or _is_list_view(kind)
    return bool(found or pa.types.is_fixed_size_list(kind))


def _is_list_view(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind))


def _component(field: pa.Field, binary_dtype: str) -> str:
    """Type of a vector's components; "" where the column cannot hold vectors."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    kind = kind.storage_type if _is_extension(kind) else kind
    if _is_list(kind):
        return FLOATS.get(kind.value_type, "")
    if is_bytes(kind) and field.type != pa.uuid():
        stated = (field.metadata or {}).get(b"dtype", b"").decode(errors="replace")
        return stated if stated in FLOATS.values() else binary_dtype
    return ""


def vector_dim(chunk: pa.Array, dtype: str) -> int:
    """Dimensions of the first vector of a chunk; 0 if that is null or there is none."""
    first = next(iter(_flat_storage(chunk[:1])), None)
    if first is None or not first.is_valid:
        return 0
    size = len(first.as_py())
    return size // np.dtype(dtype).itemsize if _is_bytes(first.type) else size


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind))


def _flat_storage(chunk: pa.Array) -> pa.Array:
    """A chunk as plain lists or bytes; tensors lie flat in their storage."""
    if pa.types.is_dictionary(chunk.type):
        chunk = chunk.dictionary_decode()
    if isinstance(chunk, pa.ExtensionArray):
        chunk = chunk.storage
    if pa.types.is_large_binary(chunk.type) or pa.types.is_binary_view(chunk.type):
        return chunk.cast(pa.binary())
    if _is_list_view(chunk.type):
        return chunk.cast(pa.large_list(chunk.type.value_type))
    return chunk


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
