"""Columns of ids as checked text, and text as NumPy arrays of one width."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrieval.errors import IndexFormatError
from retrieval.storage.text_columns import as_text, is_bytes
from retrieval.vectors.long_ids import MOST_BYTES, LongIdError, LongIds

__all__ = [
    "id_array",
    "id_text",
    "pad",
    "pieces",
    "short_ids",
    "text_lengths",
]

_PADDED = 2**20


def id_text(column: pa.Array, where: str, first_row: int) -> pa.Array:
    """Ids as text, large_string, each checked.

    Args:
        column: As of `as_text`. Integers become decimal text.
        where: The file, for the error.
        first_row: Number of the column's first row in that file, for the error.

    Raises:
        IndexFormatError: an id is null or holds a NUL character.
        pa.ArrowException: as `as_text` does.
    """
    try:
        text = as_text(column)
    except pa.ArrowInvalid as error:
        raise (_no_text(column, where) if is_bytes(column.type) else error) from error
    if text.null_count:
        row = first_row + pc.indices_nonzero(pc.is_null(text))[0].as_py()
        raise IndexFormatError(f"{where}, row {row}: no id; each row needs one.")
    data, offsets = _layout(text)
    # NumPy pads with NUL bytes and could not tell such an id from a shorter one.
    if len(data) and not data.min():
        if is_bytes(column.type):
            raise _no_text(column, where)
        at = int(offsets[0]) + int(np.argmin(data))
        row = first_row + int(np.searchsorted(offsets, at, side="right")) - 1
        raise IndexFormatError(f"{where}, row {row}: the id holds a NUL character; rename it.")
    return text


def _no_text(column: pa.Array, where: str) -> IndexFormatError:
    return IndexFormatError(
        f"{where}: its ids are of type {column.type} and no UTF-8; text, integers or UUIDs are "
        f"needed. Write them as text, such as hexadecimal digits, or name another column: "
        f"`id_column` NAME."
    )


def id_array(column: pa.Array, where: str, first_row: int) -> NDArray[np.bytes_]:
    """Ids as UTF-8 bytes, whose order is the order of the ids.

    Args:
        column: As of `as_text`. Integers become decimal text.
        where: The file, for the error.
        first_row: Number of the column's first row in that file, for the error.

    Returns:
        bytes (N,), of the width of the longest id.

    Raises:
        IndexFormatError, pa.ArrowException: as `id_text` does.
    """
    return pad(id_text(column, where, first_row))


def short_ids(text: pa.Array, long_ids: LongIds | None) -> NDArray[np.bytes_]:
    """Ids as an array of bounded width.

    Args:
        text: large_string (N,), without nulls.
        long_ids: Stands for ids that are long.

    Raises:
        LongIdError: one is of more than MOST_BYTES bytes, and `long_ids` is None or lacks it.
    """
    if long_ids is not None:
        return long_ids.shorten(text, pad)
    if len(text) and int(text_lengths(text).max()) > MOST_BYTES:
        raise LongIdError(f"An id is of more than {MOST_BYTES} bytes.")
    return pad(text)


def text_lengths(text: pa.Array) -> NDArray[np.int64]:
    """Bytes of each text of a large_string array without nulls, int64 (N,)."""
    return np.diff(_layout(text)[1])


def pieces(text: pa.Array) -> Iterator[pa.Array]:
    """Consecutive slices that are padded to at most twice their bytes, or to 1 MiB.

    Args:
        text: large_string (N,), without nulls.
    """
    lengths = text_lengths(text)
    todo = [(0, len(text))] if len(text) else []
    while todo:
        start, stop = todo.pop()
        some = lengths[start:stop]
        if stop - start == 1 or len(some) * int(some.max()) <= max(2 * int(some.sum()), _PADDED):
            yield text[start:stop]
        else:
            middle = (start + stop) // 2
            todo += [(middle, stop), (start, middle)]


def _layout(text: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of all texts, and where in Arrow's buffer each begins and the last one ends."""
    if not len(text):
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    offsets = np.frombuffer(text.buffers()[1], np.int64)[text.offset :][: len(text) + 1]
    start, stop = int(offsets[0]), int(offsets[-1])
    if start == stop:  # empty texts alone, for which Arrow may hold no buffer
        return np.empty(0, np.uint8), offsets
    return np.frombuffer(text.buffers()[2], np.uint8)[start:stop], offsets


def pad(text: pa.Array) -> NDArray[np.bytes_]:
    """Texts as an array of the width of the longest, each padded with NUL bytes.

    Args:
        text: large_string or large_binary (N,), without nulls.

    Cost: some 40 ns a text of 30 bytes; no loop over them. No copy if they are equally long.
    """
    data, offsets = _layout(text)
    if not len(data):
        return np.zeros(len(text), "S1")
    starts, lengths = offsets[:-1] - offsets[0], np.diff(offsets)
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
