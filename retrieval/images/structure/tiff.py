"""The directories of a TIFF's first image."""

from __future__ import annotations

import struct
from typing import Final

from retrieval.images.structure.limits import check_number, check_pixels

__all__ = ["walk"]

MAX_ENTRIES: Final = 4_096  # of a directory; raw files of cameras have some 100
# Numbers of one entry. Most have the offsets of strips: as many as rows, for each channel.
MAX_NUMBERS: Final = 250_000
MAX_TILE_PIXELS: Final = 120_000_000  # a tile is unpacked whole, however small the image

# Bytes of a number by its type; texts and bytes, which are not unpacked one by one, are missing.
_NUMBER_BYTES: Final = {3: 2, 4: 4, 5: 8, 6: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_DIRECTORIES: Final = frozenset({34665, 34853, 40965})  # EXIF, GPS, interoperability
_MAX_DIRECTORIES: Final = 4


def walk(data: bytes) -> bytes:
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
