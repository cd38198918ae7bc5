"""Small generators of images that are hostile, odd, or whole under damaged ballast."""

from __future__ import annotations

import struct
import zlib

from tests.retrieval.photos import encode, noise

SIGNATURE = b"\x89PNG\r\n\x1a\n"
SCAN, END = b"\xff\xda", b"\xff\xd9"


def chunk(name, body=b"", checksum=None):
    """A chunk of a PNG; `checksum` where it is to be wrong."""
    right = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum or right)


def png_parts(data):
    """Head with IHDR and PLTE, image data, and the rest of a PNG."""
    first, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    return data[:first], data[first:end], data[end:]


def png_with(data, before=b"", past=b""):
    head, image, rest = png_parts(data)
    return head + before + image + past + rest


def segment(marker, body, length=None):
    """A segment of a JPEG; `length` where it is to be wrong."""
    return bytes((0xFF, marker)) + struct.pack(">H", length or len(body) + 2) + body


def jpeg_with(data, *segments):
    """A JPEG with segments behind its first two bytes."""
    return data[:2] + b"".join(segments) + data[2:]


def jpeg_of_scans(num_more, size=16):
    """A progressive JPEG whose last scan comes `num_more` times again."""
    data = encode(noise(0, size, size), "JPEG", progressive=True)
    return data[:-2] + data[data.rindex(SCAN) : -2] * num_more + END


def gif_with(data, blocks):
    """A GIF with blocks before its first image."""
    start = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    return data[:start] + blocks + data[start:]


def tiff_of(*entries, big=False, num_entries=None, blob=b""):
    """A little-endian TIFF of one directory: (tag, type, count, value or bytes elsewhere)."""
    head, entry, count = ("<QQ", "<HHQQ", "<Q") if big else ("<IH", "<HHII", "<H")
    start = (16 if big else 8) + struct.calcsize(count)
    elsewhere = start + struct.calcsize(entry) * len(entries) + 8
    directory = b""
    for tag, kind, number, value in sorted(entries, key=lambda each: each[0]):
        place = value
        if isinstance(value, bytes):
            place, blob = elsewhere + len(blob), blob + value
        directory += struct.pack(entry, tag, kind, number, place)
    first = b"II+\0\x08\0\0\0" if big else b"II*\0"
    number = len(entries) if num_entries is None else num_entries
    return (
        first
        + struct.pack(head, start - struct.calcsize(count), number)
        + directory
        + bytes(8)
        + blob
    )


def run_lengths(width, height, runs, compression=1):
    """A BMP of run lengths: 1 by bytes, 2 by half bytes."""
    palette = b"".join(bytes((each, 0, each, 0)) for each in range(256 if compression == 1 else 16))
    start = 54 + len(palette)
    head = struct.pack("<IHHI", start + len(runs), 0, 0, start)
    bits = 8 if compression == 1 else 4
    information = struct.pack(
        "<IiiHHIIiiII",
        40,
        width,
        height,
        1,
        bits,
        compression,
        len(runs),
        0,
        0,
        len(palette) // 4,
        0,
    )
    return b"BM" + head + information + palette + runs


def webp_of(*chunks):
    """A WebP of chunks: (name, body)."""
    body = b"".join(
        name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
        for name, content in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webp_canvas(width, height):
    return b"VP8X", bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(
        3, "little"
    )
