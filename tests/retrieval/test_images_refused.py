"""What is no photo, or too large a one, is refused in one line."""

import io
import re
import struct
import threading
import warnings

import numpy as np
import pytest
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images import Preprocessing, Reason, decode_image, load_rgb
from retrieval.images import decode as images
from tests.retrieval.photos import (
    FORMATS,
    attempt,
    encode,
    noise,
    plain,
    png,
    refusal,
)


def test_a_reason_is_its_name_in_small_letters():
    assert all(reason == reason.name.lower() for reason in Reason)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty: the file has 0 bytes"),
        (b"Sorry, no photo here.\n" * 9, "unknown_format: none of JPEG, PNG, WEBP, GIF, BMP, TIFF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "unknown_format: none of JPEG, PNG, WEBP, GIF, BMP, TIFF"),
        (b"P6 1 1 255\nabc", "unknown_format: none of JPEG, PNG, WEBP, GIF, BMP, TIFF"),
        (png((20_000, 7000), 8, 2, b""), "too_many_pixels: 20000 × 7000; the limit is 120000000"),
        (b"\xff\xd8\xff", "corrupt: its header has no size or no colours"),
        (encode(noise(0), "JPEG")[:900], "truncated: the data ends early, after 900 bytes"),
        (encode(plain("F", 0.5), "TIFF"), "unsupported: float samples: no agreed value of white"),
        (
            encode(plain("I", 65536), "TIFF"),
            "unsupported: samples outside 0-65535: no agreed value of white",
        ),
        (
            encode(plain("L", 0), "JPEG").replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc0\0\x0b\x0c"),
            "unsupported: the decoder says: cannot handle 12-bit layers",
        ),
        (
            png((4, 4), 8, 2, b"").replace(b"IHDR", b"IHDX"),
            "corrupt: the decoder says: broken PNG file (bad header checksum in IHDX)",
        ),
    ],
    ids=range(11),
)
def test_a_refusal_says_in_one_line_why(data, expected):
    error = refusal(data)
    assert str(error) == expected
    assert error.reason in list(Reason)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("fraction", [0.5, 0.7, 0.9])
def test_a_file_that_ends_early_is_refused_as_such(format, fraction):
    data = encode(noise(2), format)
    assert refusal(data[: int(len(data) * fraction)]).reason == Reason.TRUNCATED


@pytest.mark.parametrize(
    ("format", "settings"),
    [
        *((format, {}) for format in FORMATS),
        ("JPEG", {"progressive": True}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_wherever_a_file_is_cut_it_is_refused_or_whole_never_filled_up(format, settings):
    data = encode(noise(3, 24, 24), format, **settings)
    whole = decode_image(data, Preprocessing(size=24)).pixels
    for length in range(1, len(data), 7):
        found = attempt(data[:length], size=24)
        if isinstance(found, ImageError):
            assert found.reason in list(Reason)
        else:  # only what follows the last pixel is missing
            assert len(data) - length < 30
            np.testing.assert_array_equal(found.pixels, whole)


UNREADABLE = re.compile(r"…|\.\.\.|b'|0x|: '?[\d-]+'?$|Error -?\d+$|MAX_|Pillow|driver|object")


def variants(seed):
    """A picture in every format, and in the forms that other code of the decoders reads."""
    good = noise(seed, 16, 24)
    return [
        *(encode(good, format) for format in FORMATS),
        encode(good, "JPEG", progressive=True),
        encode(good, "WEBP", lossless=True),
        *(encode(good.quantize(16), format) for format in ("PNG", "BMP", "TIFF")),
        *(
            encode(good, "TIFF", compression=name)
            for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        ),
        encode(good.convert("1"), "TIFF", compression="group4"),
        *(encode(good, each, save_all=True, append_images=[good]) for each in ("PNG", "MPO")),
    ]


@pytest.mark.parametrize("seed", range(2))
def test_no_damage_is_told_in_words_that_nobody_can_read(seed):
    rng = np.random.default_rng(seed)
    for good in variants(seed):
        for _ in range(60):
            data = bytearray(good)
            at, end = rng.integers(0, min(len(data), 400), 2)
            if rng.integers(3) == 0:
                del data[at : at + end % 20]
            for position in rng.integers(0, min(len(data), 400), rng.integers(1, 6)):
                data[position] = rng.integers(256)
            found = attempt(bytes(data), size=8)
            if isinstance(found, ImageError):
                assert len(re.findall("[A-Za-z]{2,}", found.message)) >= 3
                assert not UNREADABLE.search(found.message), found.message
                assert len(found.message) < 200


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        (320, "corrupt: the colours of its palette are missing (tag 320)"),
        (256, "corrupt: the decoder says: Missing dimensions"),
    ],
)
def test_a_tiff_without_a_field_names_it(tag, expected):
    data = encode(noise(0).quantize(16), "TIFF")
    at = next(at for at in range(8, len(data)) if data[at : at + 4] in tiff_entries(tag))
    without = data[:at] + struct.pack("<H", 40_000) + data[at + 2 :]
    assert str(refusal(without)) == expected


def tiff_entries(tag):
    return [struct.pack("<HH", tag, kind) for kind in (3, 4)]


def test_a_compression_that_is_not_read_is_unsupported():
    data = encode(noise(0), "TIFF")
    at = data.index(struct.pack("<HHI", 259, 3, 1)) + 8
    data = data[:at] + struct.pack("<H", 34_712) + data[at + 2 :]
    assert str(refusal(data)) == "unsupported: compression 34712 of TIFF is not read"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("format", FORMATS)
def test_whatever_a_decoder_raises_becomes_a_refusal_in_words(format, seed):
    rng = np.random.default_rng(seed)
    good = encode(noise(seed), format)
    for _ in range(60):
        data = bytearray(good)
        for position in rng.integers(0, min(len(data), 400), 6):
            data[position] = rng.integers(256)
        found = attempt(bytes(data), size=8)
        if isinstance(found, ImageError):
            assert found.reason in list(Reason)
            assert found.message.isprintable()
            assert "b'" not in found.message
            assert "0x" not in found.message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            KeyError("x"),
            "corrupt: a field of its header is missing or wrong (KeyError: 'x')",
        ),
        (NotImplementedError(), "corrupt: the decoder says: NotImplementedError"),
        (
            struct.error("two\nlines"),
            "corrupt: a field of its header is missing or wrong (error: two lines)",
        ),
        (
            OSError("bad <_io.BytesIO object at 0x7f> b'\\0'"),
            "corrupt: the decoder says: bad the file 00",
        ),
        (MemoryError(), "too_many_pixels: not enough memory"),
    ],
    ids=repr,
)
def test_no_exception_of_a_decoder_gets_through(monkeypatch, error, expected):
    def load(_):
        raise error

    data = encode(noise(0), "BMP")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert str(refusal(data)) == expected


@pytest.mark.parametrize("pillow_limit", [Image.MAX_IMAGE_PIXELS, None])
@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_bomb_is_refused_by_its_header(monkeypatch, side, pillow_limit):
    def load(_):
        raise AssertionError("memory for its pixels would be taken now")

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    assert refusal(png((side, side), 8, 2, b"")).reason == Reason.TOO_MANY_PIXELS
    assert pillow_limit == Image.MAX_IMAGE_PIXELS


def test_the_limits_are_met_exactly(monkeypatch):
    data = encode(plain("L", 0, (10, 20)), "BMP")
    monkeypatch.setattr(images, "MAX_PIXELS", 200)
    monkeypatch.setattr(images, "MAX_FILE_BYTES", len(data))
    assert load_rgb(data)[1:] == (10, 20)
    monkeypatch.setattr(images, "MAX_PIXELS", 199)
    assert refusal(data).reason == Reason.TOO_MANY_PIXELS
    monkeypatch.setattr(images, "MAX_FILE_BYTES", len(data) - 1)
    assert refusal(data).reason == Reason.TOO_LARGE


def test_a_photo_of_100_megapixels_is_within_the_limits():
    assert images.MAX_PIXELS >= 11_648 * 8_736
    assert images.MAX_FILE_BYTES >= 11_648 * 8_736 * 4


def test_pillows_warnings_stay_in_when_threads_overlap_and_the_filters_come_back(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)  # 2000 pixels warn, 3001 would fail
    data, before, real_open = encode(noise(0), "PNG"), list(warnings.filters), Image.open
    with pytest.warns(Image.DecompressionBombWarning):
        real_open(io.BytesIO(data))
    first_is_in, second_is_in = threading.Event(), threading.Event()

    def open_late(*args, **kwargs):
        if threading.current_thread() is first:
            first_is_in.set()
            assert second_is_in.wait(10)
        else:
            second_is_in.set()
            first.join(10)  # the first one in is out before the second one can warn
        return real_open(*args, **kwargs)

    monkeypatch.setattr(Image, "open", open_late)
    first = threading.Thread(target=load_rgb, args=[data])
    first.start()
    assert first_is_in.wait(10)
    load_rgb(data)  # a warning would be an error here
    assert warnings.filters == before
