"""The canvas and the chunks of a WebP."""

from __future__ import annotations

from typing import Final

from retrieval.images.structure.limits import check_number, check_pixels

__all__ = ["walk"]

# libwebp cannot reduce while it decodes through the interface for animations, which Pillow uses,
# and holds a whole image three times.
MAX_PIXELS: Final = 50_000_000
MAX_CHUNKS: Final = 100_000  # an animation has one or more a frame

_FIRST_CHUNK_AT: Final = 12
_HEAD_BYTES: Final = 8


def walk(data: bytes) -> bytes:
    """Check the size before the decoder makes room for it, and count the chunks."""
    width, height = _size(data)
    check_pixels(width, height, MAX_PIXELS, " of WebP")
    position, num_chunks = _FIRST_CHUNK_AT, 0
    while position + _HEAD_BYTES <= len(data):
        num_chunks += 1
        check_number(num_chunks, MAX_CHUNKS, "chunks")
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        position += _HEAD_BYTES + length + length % 2
    return data


def _size(data: bytes) -> tuple[int, int]:
    kind, body = data[12:16], data[20:30]
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = (int.from_bytes(body[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    return width, height
