"""docs/images.md has every reason and every limit, as the code has them."""

from __future__ import annotations

import re
from pathlib import Path

from retrieval.images import MAX_FILE_BYTES, MAX_PIXELS, Reason
from retrieval.images.structure import jpeg, limits, other_formats, png

TEXT = (Path(__file__).parents[2] / "docs/images.md").read_text()


def test_every_reason_is_explained():
    assert re.findall(r"(?m)^\| `(\w+)` \|", TEXT) == [str(reason) for reason in Reason]


def test_every_limit_is_told():
    rows = re.findall(r"(?m)^\| ([^|`]+) \| ([^|]*\d[^|]*) \| `(\w+)` \|", TEXT)
    found = {name: [int(each.replace(",", "")) for each in re.findall(r"[\d,]+", number)]
             for name, number, _ in rows}  # fmt: skip
    assert found == {
        "bytes of a file": [MAX_FILE_BYTES],
        "pixels": [MAX_PIXELS],
        "pixels of a side": [limits.MAX_SIDE],
        "JPEG: segments before the image": [jpeg.MAX_SEGMENTS],
        "JPEG: bytes of tables before the image": [jpeg.MAX_TABLE_BYTES],
        "JPEG: scans": [jpeg.MAX_SCANS],
        "JPEG: scans × pixels": [jpeg.MAX_SCANNED_PIXELS],
        "PNG: chunks": [png.MAX_CHUNKS],
        "WebP: pixels": [other_formats.MAX_WEBP_PIXELS],
        "WebP: chunks": [other_formats.MAX_WEBP_CHUNKS],
        "GIF: blocks before the image": [other_formats.MAX_BLOCKS],
        "BMP, run-length encoded: pixels": [other_formats.MAX_RUN_LENGTH_PIXELS],
        "BMP, run-length encoded: bytes": [
            other_formats.MAX_BYTES_OF_A_PIXEL,
            other_formats.MAX_OTHER_BYTES,
        ],
        "TIFF: entries of a directory": [other_formats.MAX_ENTRIES],
        "TIFF: numbers of an entry": [other_formats.MAX_NUMBERS],
        "TIFF: pixels of a tile": [other_formats.MAX_TILE_PIXELS],
    }
    assert {reason for *_, reason in rows} == {"too_large", "too_many_pixels", "too_complex"}
