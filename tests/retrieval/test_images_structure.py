"""Of more parts than images have a file is refused by its headers; up to there it is decoded."""

import struct
import time

import pytest

from retrieval.images import MAX_PIXELS, Reason, load_rgb
from retrieval.images.structure import jpeg, other_formats, png
from tests.retrieval import photos
from tests.retrieval.hostile import (
    chunk,
    gif_with,
    jpeg_of_scans,
    jpeg_with,
    png_with,
    run_lengths,
    segment,
    tiff_of,
    webp_canvas,
    webp_of,
)
from tests.retrieval.photos import encode, noise, refusal

JPEG, PNG, WEBP, GIF = (encode(noise(0, 8, 8), each) for each in ("JPEG", "PNG", "WEBP", "GIF"))
EXIF = segment(0xE1, b"Exif\0\0" + bytes(65_527))
TABLES = segment(0xDB, (b"\0" + b"\1" * 64) * 1_000)
GREY = (
    *((256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1)),
    *((262, 3, 1, 1), (277, 3, 1, 1), (278, 3, 1, 8), (279, 4, 1, 64)),
)
STRIP = (273, 4, 1, bytes(64))  # lies where its offset points to
MANY = other_formats.MAX_NUMBERS + 1


def told_to_be(width, height, data):
    """A progressive JPEG whose header tells another size."""
    at = data.index(b"\xff\xc2") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def nested_exif():
    """A TIFF with a directory of EXIF that has a million fractions."""
    number, entries = 1_000_000, [*GREY, STRIP, (34665, 4, 1, 0)]
    at = len(tiff_of(*entries))
    entries[-1] = (34665, 4, 1, at)
    directory = struct.pack("<HHHIII", 1, 39321, 5, number, at + 18, 0)
    return tiff_of(*entries) + directory + bytes(8 * number)


TOO_COMPLEX = {
    "JPEG: scans": (lambda: jpeg_of_scans(2_000), "more than 50 scans of 16 × 16 pixels"),
    "JPEG: scans of a large image": (
        lambda: told_to_be(12_000, 10_000, jpeg_of_scans(9)),
        "more than 14 scans of 12000 × 10000 pixels",
    ),
    "JPEG: EXIF": (lambda: jpeg_with(JPEG, EXIF * 3_000), "more than 1000 segments"),
    "JPEG: comments": (lambda: jpeg_with(JPEG, segment(0xFE, b"a") * 1_001), "1000 segments"),
    "JPEG: tables": (lambda: jpeg_with(JPEG, TABLES * 900), "bytes of tables"),
    "PNG: texts": (lambda: png_with(PNG, chunk(b"tEXt", b"a\0b") * 500_000), "100000 chunks"),
    "PNG: texts past the image": (
        lambda: png_with(PNG, past=chunk(b"tEXt", b"a\0b") * 100_001),
        "more than 100000 chunks",
    ),
    "PNG: empty pieces": (lambda: png_with(PNG, chunk(b"IDAT") * 100_001), "100000 chunks"),
    "PNG: unknown": (lambda: png_with(PNG, chunk(b"abCd") * 100_001), "100000 chunks"),
    "WebP: chunks": (lambda: webp_of(webp_canvas(8, 8), *[(b"abcd", b"")] * 100_001), "chunks"),
    "GIF: comment": (lambda: gif_with(GIF, b"!\xfe" + b"\1a" * 100_001 + b"\0"), "100000 blocks"),
    "GIF: empty": (lambda: gif_with(GIF, b"!\xfe\0" * 100_001), "100000 blocks"),
    "GIF: application": (
        lambda: gif_with(GIF, b"!\xff\x0bNETSCAPE2.0" + b"\1a" * 100_001 + b"\0"),
        "more than 100000 blocks",
    ),
    "GIF: stray bytes": (lambda: gif_with(GIF, b"x" * 3_000_000), "100000 blocks"),
    "BMP: runs without pixels": (
        lambda: run_lengths(4, 4, b"\1\5" * 3_000_000),
        "more than 1048640 bytes of runs for 4 × 4 pixels",
    ),
    "TIFF: strips": (
        lambda: tiff_of(*GREY, (273, 4, MANY, bytes(4 * MANY))),
        "more than 250000 numbers in tag 273",
    ),
    "TIFF: tiles": (
        lambda: tiff_of(*GREY, (322, 3, 1, 8), (323, 3, 1, 8), (324, 4, MANY, bytes(4 * MANY))),
        "more than 250000 numbers in tag 324",
    ),
    "TIFF: bits": (
        lambda: tiff_of(*GREY[3:], STRIP, (258, 3, MANY, b"\x08\0" * MANY)),
        "more than 250000 numbers in tag 258",
    ),
    "TIFF: colours": (
        lambda: tiff_of(*GREY, STRIP, (320, 3, MANY, bytes(2 * MANY))),
        "more than 250000 numbers in tag 320",
    ),
    "TIFF: entries": (
        lambda: tiff_of(*((40_000 + each % 999, 3, 1, 1) for each in range(5_000))),
        "more than 4096 entries",
    ),
    "TIFF: entries of a large one": (
        lambda: tiff_of(*((40_000, 3, 1, 1) for _ in range(5_000)), big=True, num_entries=2**60),
        "more than 4096 entries",
    ),
    "TIFF: EXIF": (nested_exif, "more than 250000 numbers in tag 39321"),
}


@pytest.mark.parametrize(("make", "words"), TOO_COMPLEX.values(), ids=TOO_COMPLEX)
def test_more_parts_than_images_have_are_refused_by_the_headers(make, words):
    data = make()
    begun = time.process_time()
    error = refusal(data)
    assert time.process_time() - begun < 3  # decoded, they take up to minutes
    assert error.reason == Reason.TOO_COMPLEX
    assert words in error.message
    assert error.message.endswith("which is the limit")


TOO_MANY_PIXELS = {
    "PNG: one row": (photos.png((120_000_000, 1), 8, 2, b""), "120000000 × 1; the limit of a side"),
    "PNG: one column": (photos.png((1, 1_000_001), 8, 2, b""), "1 × 1000001; the limit of a side"),
    "PNG: beyond Pillow's limit": (
        photos.png((60_000, 60_000), 8, 2, b""),
        "3600000000 pixels; the limit is 120000000",
    ),
    "TIFF: one row": (
        tiff_of(*GREY[2:], (256, 4, 1, 2_000_000), (257, 3, 1, 8), STRIP),
        "2000000 × 8; the limit of a side is 1000000",
    ),
    "TIFF: a tile": (
        tiff_of(*GREY, (322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8)),
        "60000 × 60000; the limit of a tile is 120000000",
    ),
    "WebP: extended": (
        webp_of(webp_canvas(10_000, 5_001)),
        "10000 × 5001; the limit of WebP is 50000000",
    ),
    "WebP: canvas of gigabytes": (
        webp_of(webp_canvas(2**24, 255)),
        "16777216 × 255; the limit of WebP is 50000000",
    ),
    "WebP: lossless": (
        webp_of((b"VP8L", b"\x2f" + (9_999 | 5_000 << 14).to_bytes(4, "little") + bytes(9))),
        "10000 × 5001; the limit of WebP is 50000000",
    ),
    "WebP: lossy": (
        webp_of((b"VP8 ", b"\0\0\0\x9d\1\x2a" + struct.pack("<HH", 10_000, 5_001))),
        "10000 × 5001; the limit of WebP is 50000000",
    ),
    "BMP: runs": (
        run_lengths(12_000, 10_000, b"\1\1\0\0" * 10_000),
        "12000 × 10000; the limit of a run-length encoded BMP is 10000000",
    ),
    "BMP: runs from the top": (
        run_lengths(12_000, -10_000, b"\1\1\0\0" * 9, compression=2),
        "12000 × 10000; the limit of a run-length encoded BMP is 10000000",
    ),
}


@pytest.mark.parametrize(("data", "words"), TOO_MANY_PIXELS.values(), ids=TOO_MANY_PIXELS)
def test_too_many_pixels_are_refused_by_the_header_and_our_limit_is_told(data, words):
    error = refusal(data)
    assert error.reason == Reason.TOO_MANY_PIXELS
    assert words in error.message


def num_scans(data):
    return data.count(b"\xff\xda")


def test_limits_are_met_exactly(monkeypatch):
    scans = jpeg_of_scans(5)
    segments, chunks = jpeg_with(JPEG, segment(0xFE, b"a") * 9), png_with(PNG, chunk(b"abCd") * 9)
    num_segments = sum(JPEG.count(bytes((0xFF, kind))) for kind in (0xE0, 0xDB, 0xC0, 0xC4, 0xDA))
    runs = run_lengths(4, 4, b"\4\5\0\0" * 4)
    limits = [
        (jpeg, "MAX_SCANS", num_scans(scans), scans),
        (jpeg, "MAX_SCANNED_PIXELS", num_scans(scans) * 16 * 16, scans),
        (jpeg, "MAX_SEGMENTS", num_segments + 9, segments),
        (png, "MAX_CHUNKS", 11, chunks),  # IHDR and IDAT too
        (other_formats, "MAX_BLOCKS", 10, gif_with(GIF, b"!\xfe" + b"\1a" * 9 + b"\0")),
        (other_formats, "MAX_RUN_LENGTH_PIXELS", 16, runs),
        (other_formats, "MAX_WEBP_PIXELS", 64, WEBP),
        (other_formats, "MAX_WEBP_CHUNKS", 1, WEBP),
        (other_formats, "MAX_ENTRIES", 9, tiff_of(*GREY, STRIP)),
        (
            other_formats,
            "MAX_NUMBERS",
            8,
            tiff_of(*GREY[:6], (278, 3, 1, 1), (273, 4, 8, bytes(32))),
        ),
    ]
    for module, name, limit, data in limits:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, limit)
            load_rgb(data)
            patch.setattr(module, name, limit - 1)
            assert refusal(data).reason in (Reason.TOO_COMPLEX, Reason.TOO_MANY_PIXELS), name


def test_a_small_limit_counts_for_what_a_decoder_sees_not_for_what_lies_behind_the_image():
    scans = jpeg_of_scans(0)
    assert load_rgb(scans + scans * 60)[0].tobytes() == load_rgb(scans)[0].tobytes()
    film = bytes(range(256)) * 8 + b"\xff\xda" * 1_000  # of a photo that moves
    assert load_rgb(scans + film)[0].tobytes() == load_rgb(scans)[0].tobytes()
    assert load_rgb(JPEG + film)[0].tobytes() == load_rgb(JPEG)[0].tobytes()


def test_scans_that_hide_behind_a_false_end_are_not_decoded():
    scans = jpeg_of_scans(0)
    extra = jpeg_of_scans(200)[len(scans) - 2 : -2]
    hidden = scans[:-2] + segment(0xE5, b"\xff\xd9" * 9) + extra + b"\xff\xd9"
    assert refusal(hidden).reason == Reason.TOO_COMPLEX


def test_segments_within_the_image_are_walked_up_to_their_limit():
    """Beyond it no end is looked for: all that follows counts, and a million cost nothing."""
    scans = jpeg_of_scans(0)
    comment = segment(0xFE, b"a")
    for number in (900, jpeg.MAX_SEGMENTS + 1):
        data = scans[:-2] + comment * number + b"\xff\xd9" + scans * 60
        if number > jpeg.MAX_SEGMENTS:
            assert refusal(data).reason == Reason.TOO_COMPLEX
        else:
            assert load_rgb(data)[0].tobytes() == load_rgb(scans)[0].tobytes()


def test_directories_of_a_tiff_that_lead_to_each_other_are_walked_once(monkeypatch):
    check, walked = other_formats._check_directory, []

    def noted(data, offset, *how):
        walked.append(offset)
        assert len(walked) <= 9
        return check(data, offset, *how)

    monkeypatch.setattr(other_formats, "_check_directory", noted)
    itself = (34665, 4, 1, 8)  # the directory that it stands in
    assert load_rgb(tiff_of(*GREY, STRIP, itself))[0].size == (8, 8)
    assert walked == [8]


def test_a_tag_that_tells_more_numbers_than_its_file_has_costs_no_image():
    assert load_rgb(tiff_of(*GREY, STRIP, (40_000, 3, 2**30, 8)))[0].size == (8, 8)


def test_what_an_old_bmp_has_in_the_place_of_run_lengths_is_not_taken_for_them():
    pixels = bytearray(noise(0, 8, 8).tobytes())
    pixels[4:8] = struct.pack("<I", 1)  # where a longer header tells its compression
    header = struct.pack("<IHHIIHHHH", 26 + len(pixels), 0, 0, 26, 12, 8, 8, 1, 24)
    assert load_rgb(b"BM" + header + pixels)[0].size == (8, 8)


def test_the_limits_leave_room_for_what_cameras_and_programs_write():
    assert jpeg.MAX_SEGMENTS * 65_535 > 60 * 2**20  # depth maps and recordings in XMP
    assert jpeg.MAX_SCANNED_PIXELS >= 102_000_000 * 16
    assert png.MAX_CHUNKS * 8_192 > 512 * 2**20
    assert other_formats.MAX_RUN_LENGTH_PIXELS > 3_840 * 2_160
    assert other_formats.MAX_WEBP_PIXELS >= 8_160 * 6_120  # of a phone
    assert other_formats.MAX_NUMBERS > 3 * 65_535  # a strip a row, channels apart
    assert other_formats.MAX_TILE_PIXELS == MAX_PIXELS
