"""The size of a run-length encoded BMP."""

from __future__ import annotations

from typing import Final

from retrieval.images.structure.limits import check_number, check_pixels

__all__ = ["walk"]

# Pillow unpacks runs in Python. They were made for screens of 1990; a screen of today has 8 million
# pixels.
MAX_RUN_LENGTH_PIXELS: Final = 10_000_000
# A run of one pixel takes 2 bytes, and the end of a row 2. The rest is a palette.
MAX_BYTES_OF_A_PIXEL: Final = 4
MAX_OTHER_BYTES: Final = 2**20

_WIDTH_AT, _HEIGHT_AT, _COMPRESSION_AT = 18, 22, 30
_RUN_LENGTHS: Final = (1, 2)
_SHORT_HEADER_BYTES: Final = 12  # of OS/2, which has no compression


def walk(data: bytes) -> bytes:
    """Check the pixels and bytes of run lengths."""
    header_bytes = int.from_bytes(data[14:18], "little")
    compression = int.from_bytes(data[_COMPRESSION_AT : _COMPRESSION_AT + 4], "little")
    if header_bytes == _SHORT_HEADER_BYTES or compression not in _RUN_LENGTHS:
        return data
    width = int.from_bytes(data[_WIDTH_AT : _WIDTH_AT + 4], "little")
    height = abs(int.from_bytes(data[_HEIGHT_AT : _HEIGHT_AT + 4], "little", signed=True))
    check_pixels(width, height, MAX_RUN_LENGTH_PIXELS, " of a run-length encoded BMP")
    limit = MAX_BYTES_OF_A_PIXEL * width * height + MAX_OTHER_BYTES
    check_number(len(data), limit, f"bytes of runs for {width} × {height} pixels")
    return data
