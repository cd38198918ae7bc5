"""Arrow columns that others have written as text: ids, labels and addresses, of whatever type."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["as_text", "is_bytes", "is_text"]

_DIGITS = np.frombuffer(bytes.fromhex("".join(f"{n:02x}".encode().hex() for n in range(256))), "S2")
_UUID_HYPHENS = (8, 13, 18, 23)


def is_text(kind: pa.DataType) -> bool:
    """Whether a type holds ids that read as text: text, integers, UUIDs, dictionaries of these."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return text or pa.types.is_string_view(kind) or pa.types.is_integer(kind) or _is_uuid(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a type holds bare bytes, which may be text that its writer did not call so."""
    if pa.types.is_dictionary(kind):
        return is_bytes(kind.value_type)
    found = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return bool(found or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind))


def _is_uuid(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid"


def as_text(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """A column as text, large_string; nulls stay.

    Args:
        column: Text, numbers, truth values, bytes that are UTF-8, UUIDs (their text of 36
            characters), or a dictionary of these.

    Raises:
        pa.ArrowException: it is of another type, or bytes are no UTF-8.
    """
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([as_text(chunk) for chunk in column.chunks], pa.large_string())
    if pa.types.is_dictionary(column.type):
        return as_text(column.dictionary).take(column.indices)
    if _is_uuid(column.type):
        return _uuid_text(column.storage)
    if is_bytes(column.type):
        column = column.cast(pa.large_binary())
    text = column.cast(pa.large_string())
    text.validate(full=True)  # Parquet does not promise that text is UTF-8
    return text


def _uuid_text(storage: pa.Array) -> pa.Array:
    """UUIDs, 16 bytes each, as their usual text."""
    num = len(storage)
    if not num:
        return pa.array([], pa.large_string())
    start = 16 * storage.offset
    data = np.frombuffer(storage.buffers()[1], np.uint8)[start : start + 16 * num]
    digits = _DIGITS[data].view(np.uint8).reshape(num, 32)
    places = np.delete(np.arange(36), _UUID_HYPHENS)
    text = np.full((num, 36), ord("-"), np.uint8)
    text[:, places] = digits
    offsets = np.arange(num + 1, dtype=np.int64) * 36
    array = pa.LargeStringArray.from_buffers(num, pa.py_buffer(offsets), pa.py_buffer(text))
    return pc.if_else(pc.is_valid(storage), array, pa.scalar(None, pa.large_string()))
