"""BMP, GIF, TIFF and WebP: what each counts is found in one short walk."""

from __future__ import annotations

import struct
from typing import Final

from retrieval.images.structure.limits import check_number, check_pixels

__all__ = ["walk_bmp", "walk_gif", "walk_tiff", "walk_webp"]

# BMP: Pillow unpacks runs in Python. They were made for screens of 1990; a screen of today has
# 8 million pixels.
MAX_RUN_LENGTH_PIXELS: Final = 10_000_000
# A run of one pixel takes 2 bytes, and the end of a row 2. The rest is a palette.
MAX_BYTES_OF_A_PIXEL: Final = 4
MAX_OTHER_BYTES: Final = 2**20

_WIDTH_AT, _HEIGHT_AT, _COMPRESSION_AT = 18, 22, 30
_RUN_LENGTHS: Final = (1, 2)
_SHORT_HEADER_BYTES: Final = 12  # of OS/2, which has no compression

# GIF: a comment or XMP of 1 MB has 4,000 to 10,000.
MAX_BLOCKS: Final = 100_000

_HEADER_BYTES: Final = 13
_FLAGS_AT: Final = 10
_HAS_PALETTE: Final = 0x80
_EXTENSION, _IMAGE, _END = b"!,;"
_COMMENT: Final = 254

# TIFF.
MAX_ENTRIES: Final = 4_096  # of a directory; raw files of cameras have some 100
# Numbers of one entry. Most have the offsets of strips: as many as rows, for each channel.
MAX_NUMBERS: Final = 250_000
MAX_TILE_PIXELS: Final = 120_000_000  # a tile is unpacked whole, however small the image

# Bytes of a number by its type; texts and bytes, which are not unpacked one by one, are missing.
_NUMBER_BYTES: Final = {3: 2, 4: 4, 5: 8, 6: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_DIRECTORIES: Final = frozenset({34665, 34853, 40965})  # EXIF, GPS, interoperability
_MAX_DIRECTORIES: Final = 4

# WebP: libwebp cannot reduce while it decodes through the interface for animations, which Pillow
# uses, and holds a whole image three times.
MAX_WEBP_PIXELS: Final = 50_000_000
MAX_WEBP_CHUNKS: Final = 100_000  # an animation has one or more a frame

_FIRST_CHUNK_AT: Final = 12
_HEAD_BYTES: Final = 8


def walk_bmp(data: bytes) -> bytes:
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


def walk_gif(data: bytes) -> bytes:
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


def walk_tiff(data: bytes) -> bytes:
    """Count the entries of directories and the numbers of an entry; check the size of a tile."""
    order, is_big = "<" if data[:1] == b"I" else ">", data[2:3] == b"\x2b"
    head = struct.Struct(order + ("8xQ" if is_big else "4xL"))
    if len(data) < head.size:
        return data
    waiting, seen = [head.unpack_from(data)[0]], set[int]()
    while waiting and len(seen) < _MAX_DIRECTORIES:
        offset = waiting.pop()
        if offset not in seen:
            seen.add(offset)
            waiting += _check_directory(data, offset, order, is_big)
    return data


def _check_directory(data: bytes, offset: int, order: str, is_big: bool) -> list[int]:
    """Check a directory, and return where those lie that belong to it."""
    count_of = struct.Struct(order + ("Q" if is_big else "H"))
    entry = struct.Struct(order + ("HHQ8s" if is_big else "HHL4s"))
    if offset + count_of.size > len(data):
        return []
    (num_entries,) = count_of.unpack_from(data, offset)
    first = offset + count_of.size
    num_entries = min(num_entries, (len(data) - first) // entry.size)
    check_number(num_entries, MAX_ENTRIES, "entries of a directory")
    directories, tile = [], {_TILE_WIDTH: 1, _TILE_HEIGHT: 1}
    for index in range(num_entries):
        tag, kind, count, value = entry.unpack_from(data, first + index * entry.size)
        # Pillow passes over what is longer than the file.
        if kind in _NUMBER_BYTES and count * _NUMBER_BYTES[kind] <= len(data):
            check_number(count, MAX_NUMBERS, f"numbers in tag {tag}")
        if tag in tile or tag in _DIRECTORIES:
            number = _first_number(value, kind, order)
            if tag in tile:
                tile[tag] = number
            else:
                directories.append(number)
    check_pixels(tile[_TILE_WIDTH], tile[_TILE_HEIGHT], MAX_TILE_PIXELS, " of a tile")
    return directories


def _first_number(value: bytes, kind: int, order: str) -> int:
    size = min(_NUMBER_BYTES.get(kind, 1), len(value))
    return int.from_bytes(value[:size], "little" if order == "<" else "big")


def walk_webp(data: bytes) -> bytes:
    """Check the size before the decoder makes room for it, and count the chunks."""
    width, height = _size(data)
    check_pixels(width, height, MAX_WEBP_PIXELS, " of WebP")
    position, num_chunks = _FIRST_CHUNK_AT, 0
    while position + _HEAD_BYTES <= len(data):
        num_chunks += 1
        check_number(num_chunks, MAX_WEBP_CHUNKS, "chunks")
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
