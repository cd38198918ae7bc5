"""The blocks of a GIF before its first image."""

from __future__ import annotations

from typing import Final

from retrieval.images.structure.limits import check_number

__all__ = ["walk"]

# A comment or XMP of 1 MB has 4,000 to 10,000.
MAX_BLOCKS: Final = 100_000

_HEADER_BYTES: Final = 13
_FLAGS_AT: Final = 10
_HAS_PALETTE: Final = 0x80
_EXTENSION, _IMAGE, _END = b"!,;"
_COMMENT: Final = 254


def walk(data: bytes) -> bytes:
    """Count the blocks before the first image; Pillow reads them one by one, also stray bytes."""
    flags = data[_FLAGS_AT] if len(data) > _FLAGS_AT else 0
    palette_bytes = 3 << ((flags & 7) + 1) if flags & _HAS_PALETTE else 0
    position, num_blocks = _HEADER_BYTES + palette_bytes, 0
    while position < len(data) and data[position] not in (_IMAGE, _END):
        is_extension = data[position] == _EXTENSION
        position += 1
        num_blocks += 1
        if is_extension:
            is_comment = data[position : position + 1] == bytes((_COMMENT,))
            position += 1
            # Of others Pillow reads the first block, and then up to an empty one all the same.
            if not is_comment:
                position += 1 + _length(data, position)
            while length := _length(data, position):
                position += 1 + length
                num_blocks += 1
                check_number(num_blocks, MAX_BLOCKS, "blocks before the image")
            position += 1
        check_number(num_blocks, MAX_BLOCKS, "blocks before the image")
    return data


def _length(data: bytes, position: int) -> int:
    return data[position] if position < len(data) else 0
