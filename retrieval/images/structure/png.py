"""The chunks of a PNG."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Final, NamedTuple

from PIL.PngImagePlugin import MAX_TEXT_CHUNK, MAX_TEXT_MEMORY

from retrieval.images.structure.limits import check_number

__all__ = ["walk"]

# A file of the largest size has 65,536 pieces of the 8 KB that libpng writes by default.
MAX_CHUNKS: Final = 100_000

_SIGNATURE_BYTES: Final = 8
_HEAD: Final = struct.Struct(">I4s")
_CHECKSUM_BYTES: Final = 4
_NAME: Final = re.compile(rb"\w{4}")  # what Pillow takes for one; elsewhere it stops
_IMAGE: Final = frozenset({b"IDAT", b"fdAT"})
_MORE_OF_IMAGE: Final = frozenset({b"IDAT", b"DDAT", b"fdAT"})
_FRAME: Final = b"fcTL"
_ANIMATION: Final = frozenset({b"acTL", _FRAME})
_IS_ANCILLARY: Final = 0x20  # in the first letter of a name
# Pillow looks for the orientation in texts of these keys.
_TEXTS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_MAX_KEY_BYTES: Final = 80
_KEYS: Final = frozenset({b"exif", b"Raw profile type exif", b"XML:com.adobe.xmp"})
_MAX_TEXTS: Final = 64  # of these keys; each may unpack to 1 MB, twice
_COLOUR_TYPE_AT: Final = 25
_PALETTE: Final = 3
_MAX_ALPHAS: Final = 256  # entries that a palette can have


class _Chunk(NamedTuple):
    name: bytes
    begin: int
    end: int


def walk(data: bytes) -> bytes:
    """Count chunks; leave out texts, profiles, later frames, and alphas of no palette entry."""
    chunks, view = list(_chunks(data)), memoryview(data)
    before = list(takewhile(lambda chunk: chunk.name not in _IMAGE, chunks))
    image = list(takewhile(lambda chunk: chunk.name in _MORE_OF_IMAGE, chunks[len(before) :]))
    past = takewhile(lambda chunk: chunk.name != _FRAME, chunks[len(before) + len(image) :])
    walked = chunks[-1].end if chunks else _SIGNATURE_BYTES
    pieces = [view[:_SIGNATURE_BYTES], *_needed(view, before, is_past=False)]
    if image:
        pieces.append(view[image[0].begin : image[-1].end])
        pieces += _needed(view, past, is_past=True)
    # What is cut or damaged goes to the decoder, unless all pixels are there already.
    name = data[walked + 4 : walked + 8]
    is_last = len(before) + len(image) == len(chunks)
    is_cut = not _NAME.match(name) or name in _MORE_OF_IMAGE
    if not image or (is_last and is_cut) or name == b"IEND":
        pieces.append(view[walked:])
    return data if sum(map(len, pieces)) == len(data) else b"".join(pieces)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """The chunks before the end, or before the first one that is cut or none.

    Of the last one the checksum may be cut, since Pillow does not read it past the image.
    """
    begin, number = _SIGNATURE_BYTES, 0
    while begin + _HEAD.size <= len(data):
        length, name = _HEAD.unpack_from(data, begin)
        end = begin + _HEAD.size + length + _CHECKSUM_BYTES
        if name == b"IEND" or end - _CHECKSUM_BYTES > len(data) or not _NAME.match(name):
            return
        number += 1
        check_number(number, MAX_CHUNKS, "chunks")
        yield _Chunk(name, begin, end)
        begin = end


def _needed(view: memoryview, chunks: Iterable[_Chunk], is_past: bool) -> list[memoryview]:
    """What of the chunks before or past the image decides pixels or the orientation."""
    needed, num_texts, text_bytes = [], 0, 0
    for name, begin, end in chunks:
        chunk, body = view[begin:end], view[begin + _HEAD.size : end - _CHECKSUM_BYTES]
        if name == b"tRNS":
            needed.append(_without_excess(chunk, body, view[_COLOUR_TYPE_AT]))
        elif not name[0] & _IS_ANCILLARY or name in _ANIMATION:
            needed += [] if is_past else [chunk]
        # Pillow gives a file up over a checksum, but looks at none past the image.
        elif is_past or _checksum(chunk[4:-_CHECKSUM_BYTES]) == chunk[-_CHECKSUM_BYTES:]:
            if name == b"eXIf":
                needed.append(chunk)
            elif _may_have_orientation(name, body) and num_texts < _MAX_TEXTS:
                num_texts += 1
                size = _text_bytes(name, body)
                if size is not None and text_bytes + size <= MAX_TEXT_MEMORY:
                    text_bytes += size
                    needed.append(chunk)
    return needed


def _without_excess(chunk: memoryview, alphas: memoryview, colour_type: int) -> memoryview:
    """The alphas of a palette, as many as it can have; Pillow refuses more."""
    if colour_type != _PALETTE or len(alphas) <= _MAX_ALPHAS:
        return chunk
    body = b"tRNS" + alphas[:_MAX_ALPHAS]
    return memoryview(_MAX_ALPHAS.to_bytes(4) + body + _checksum(body))


def _checksum(name_and_body: bytes | memoryview) -> bytes:
    return zlib.crc32(name_and_body).to_bytes(_CHECKSUM_BYTES)


def _may_have_orientation(name: bytes, body: memoryview) -> bool:
    return name in _TEXTS and bytes(body[:_MAX_KEY_BYTES]).partition(b"\0")[0] in _KEYS


def _text_bytes(name: bytes, body: memoryview) -> int | None:
    """Bytes of a text in memory; None of one that Pillow would refuse or cannot unpack."""
    key, _, rest = bytes(body[:_MAX_KEY_BYTES]).partition(b"\0")
    value = body[len(key) + 1 :]
    if name == b"tEXt" or (name == b"iTXt" and rest[:1] == b"\0"):
        return len(value)
    if name == b"zTXt":
        return _unpacked_bytes(value[1:]) if rest[:1] == b"\0" else None
    parts = bytes(value[2:]).split(b"\0", 2)  # language, the key in it, text
    return _unpacked_bytes(parts[2]) if rest[1:2] == b"\0" and len(parts) > 2 else None


def _unpacked_bytes(packed: bytes | memoryview) -> int | None:
    unpacker = zlib.decompressobj()
    try:
        size = len(unpacker.decompress(packed, MAX_TEXT_CHUNK))
    except zlib.error:
        return None
    return None if unpacker.unconsumed_tail else size
