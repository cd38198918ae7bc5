"""The segments and scans of a JPEG."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from retrieval.images.structure.limits import check_number

__all__ = ["walk"]

# Before the image. Phones write some 20; a depth map or a recording in extended XMP up to 300.
MAX_SEGMENTS: Final = 1_000
# Quantisation and Huffman tables before the image, of which a photo has 1 KB.
MAX_TABLE_BYTES: Final = 131_072
# Progressive photos have some 10, the most of 738 had 16. Each goes through the whole image, so
# that a large one may have fewer: 14 at 120 megapixels.
MAX_SCANS: Final = 50
MAX_SCANNED_PIXELS: Final = 1_700_000_000
# Cameras write one segment of 64 KB. Pillow joins all, in time quadratic in their number.
_MAX_EXIF_BYTES: Final = 2**20

_MARKER: Final = re.compile(rb"\xff([\x01-\xfe])")
_MARKER_IN_SCANS: Final = re.compile(rb"\xff([\x02-\xcf\xd8-\xfe])")  # no restarts
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SEQUENTIAL_FRAMES: Final = (0xC0, 0xC1, 0xC9)
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xDA), *range(0xF0, 0xFE)})
_END: Final = 0xD9
_SCAN: Final = 0xDA
_COMMENTS: Final = frozenset({*range(0xE0, 0xF0), 0xFE})
_EXIF: Final = b"Exif\0\0"
# What of the APP segments decides a pixel or the orientation, and the fewest bytes that a decoder
# takes it with. JFIF's and Adobe's say what the colours are.
_NEEDED: Final = {
    0xE0: ((b"JFIF\0", 14),),
    0xE1: ((_EXIF, 6), (b"http://ns.adobe.com/xap/1.0/\0", 29)),
    0xEE: ((b"Adobe", 12),),
}


def walk(data: bytes) -> bytes:
    """Count segments and scans; leave out profiles, comments, other pictures' directories.

    Bytes between segments, where there should be none, go too: Pillow looks at each.
    """
    kept, position, num_segments, table_bytes, exif_bytes = [data[:2]], 2, 0, 0, 0
    frame = b""
    while found := _MARKER.search(data, position):
        marker, begin = found[1][0], found.start()
        num_segments += 1
        check_number(num_segments, MAX_SEGMENTS, "segments before the image")
        # Decoders take a length below 2, which is damage, for 2.
        length = max(2, int.from_bytes(data[begin + 2 : begin + 4]))
        position = begin + 2 + (0 if marker in _WITHOUT_LENGTH else length)
        if marker == _SCAN:
            end = _end_of_scans(data, begin, frame)
            return _joined(kept, data, begin, end)
        if marker in _COMMENTS and position <= len(data):
            body = data[begin + 4 : position]
            if not _is_needed(marker, body):
                continue
            if body.startswith(_EXIF):
                exif_bytes += length
                if exif_bytes > _MAX_EXIF_BYTES:
                    continue
        else:
            table_bytes += position - begin
            check_number(table_bytes, MAX_TABLE_BYTES, "bytes of tables before the image")
            frame = data[begin:position] if marker in _FRAMES else frame
        kept.append(data[begin:position])
    return b"".join((*kept, b"\xff"))  # no scan: the decoder says so, but it wants a third byte


def _is_needed(marker: int, body: bytes) -> bool:
    return any(
        body.startswith(name) and len(body) >= num_bytes
        for name, num_bytes in _NEEDED.get(marker, ())
    )


def _joined(kept: list[bytes], data: bytes, begin: int, end: int) -> bytes:
    if end == len(data) and sum(map(len, kept)) == begin:
        return data
    return b"".join((*kept, memoryview(data)[begin:end]))


def _end_of_scans(data: bytes, begin: int, frame: bytes) -> int:
    """Where the image ends that begins with the scan at `begin`, or the whole file does."""
    if frame and frame[1] in _SEQUENTIAL_FRAMES and data[begin + 4 : begin + 5] == frame[9:10]:
        return len(data)  # one scan has all components: decoders take no second one
    height, width = int.from_bytes(frame[5:7]), int.from_bytes(frame[7:9])
    limit = min(MAX_SCANS, MAX_SCANNED_PIXELS // max(1, width * height))
    if (
        _num_scans(data, begin, len(data)) <= limit
    ):  # an upper bound: it also counts what follows the image
        return len(data)
    end = _end_of_image(data, begin)
    what = f"scans of {width} × {height} pixels"
    check_number(_num_scans(data, begin, end), limit, what)
    return end


def _num_scans(data: bytes, begin: int, end: int) -> int:
    """How often the two bytes that begin a scan occur; within coded samples they never do."""
    marker = int.from_bytes(bytes((0xFF, _SCAN)), "little")
    return sum(
        int(np.count_nonzero(np.frombuffer(data, "<u2", (end - at) // 2, at) == marker))
        for at in (begin, begin + 1)
    )


def _end_of_image(data: bytes, position: int) -> int:
    num_segments = 0
    while found := _MARKER_IN_SCANS.search(data, position):
        if found[1][0] == _END:
            return found.end()
        num_segments += 1
        if num_segments > MAX_SEGMENTS:
            break
        length = int.from_bytes(data[found.end() : found.end() + 2])
        position = found.end() + max(2, length)
    return len(data)
