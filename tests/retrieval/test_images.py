"""Bytes → pixels, with right answers known by hand; every good and bad file is made here."""

import io
import json
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from retrieval import images
from retrieval.errors import ImageError, ModelError, UsageError
from retrieval.images import Preprocessing, Reason, decode_image, load_rgb

RED, BLUE, WHITE, BLACK = (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]


def encode(image, format, **settings):
    buffer = io.BytesIO()
    image.save(buffer, format, **settings)
    return buffer.getvalue()


def plain(mode, colour, size=(4, 4)):
    return Image.new(mode, size, colour)


def noise(seed, height=40, width=50):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    )


def png(size, bit_depth, colour_type, row, *chunks):
    """A PNG of equal rows; only headers are real where `row` is empty."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", *size, bit_depth, colour_type, 0, 0, 0)
    scan = zlib.compress((b"\0" + row) * (size[1] if row else 1))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", scan), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def tiff(size, bits, photometric, pixels, extra_samples=None):
    """An uncompressed little-endian TIFF of one strip; `bits` has one entry per sample."""
    tags = [(256, 1, size[0]), (257, 1, size[1]), (258, len(bits), bits[0] * 0x10001)]
    tags += [(259, 1, 1), (262, 1, photometric), (273, 1, 0), (277, 1, len(bits))]
    tags += [(278, 1, size[1]), (279, 1, len(pixels))]
    tags += [] if extra_samples is None else [(338, 1, extra_samples)]
    start = 8 + 2 + 12 * len(tags) + 4
    directory = b"".join(
        struct.pack("<HHI", tag, 3, count)
        + struct.pack("<I", start if tag == 273 else value if count == 2 else value & 0xFFFF)
        for tag, count, value in tags
    )
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4) + pixels


def colour_of(data):
    """The one colour of a picture."""
    pixels = np.asarray(load_rgb(data)[0])
    assert (pixels == pixels[0, 0]).all()
    return tuple(pixels[0, 0].tolist())


def refusal(data, size=8):
    with pytest.raises(ImageError) as caught:
        decode_image(data, Preprocessing(size=size))
    return caught.value


def attempt(data, size):
    try:
        return decode_image(data, Preprocessing(size=size))
    except ImageError as error:
        return error


# Colours


@pytest.mark.parametrize(
    ("image", "format", "settings", "expected"),
    [
        (plain("RGB", (10, 20, 30)), "PNG", {}, (10, 20, 30)),
        (plain("RGB", (10, 20, 30)), "BMP", {}, (10, 20, 30)),
        (plain("RGB", (10, 20, 30)), "TIFF", {"compression": "tiff_lzw"}, (10, 20, 30)),
        (plain("L", 77), "JPEG", {}, (77, 77, 77)),
        (plain("1", 1), "PNG", {}, WHITE),
        (plain("1", 1), "TIFF", {"compression": "group4"}, WHITE),
        (plain("LA", (100, 0)), "PNG", {}, WHITE),
        (plain("LA", (0, 128)), "PNG", {}, (127, 127, 127)),
        (plain("RGBA", (255, 0, 0, 128)), "PNG", {}, (255, 127, 127)),
        (plain("RGBA", (255, 0, 0, 128)), "WEBP", {"lossless": True}, (255, 127, 127)),
        (plain("RGBA", (255, 0, 0, 0)), "TIFF", {}, WHITE),
        (plain("CMYK", (0, 255, 255, 0)), "TIFF", {}, RED),
        (plain("I;16", 32768), "PNG", {}, (128, 128, 128)),
        (plain("I;16", 32768), "TIFF", {}, (128, 128, 128)),
        (plain("I;16B", 32768), "TIFF", {}, (128, 128, 128)),
        (plain("I;16", 65535), "PNG", {}, WHITE),
        (plain("I", 32768), "TIFF", {}, (128, 128, 128)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_every_mode_comes_out_in_the_colour_that_it_means(image, format, settings, expected):
    assert colour_of(encode(image, format, **settings)) == expected


@pytest.mark.parametrize(
    ("format", "settings", "expected"),
    [
        ("PNG", {}, RED),
        ("GIF", {}, RED),
        ("TIFF", {}, RED),
        ("PNG", {"transparency": 1}, WHITE),
        ("GIF", {"transparency": 1}, WHITE),
        ("PNG", {"transparency": b"\xff\x80"}, (255, 127, 127)),
        ("PNG", {"transparency": b"\x00\xff"}, RED),
    ],
)
def test_a_palette_is_looked_up_and_its_clear_colours_become_white(format, settings, expected):
    image = plain("P", 1)
    image.putpalette([*BLUE, *RED])
    assert colour_of(encode(image, format, **settings)) == expected


def test_a_cmyk_jpeg_of_adobe_is_not_inverted():
    red = colour_of(encode(plain("CMYK", (0, 255, 255, 0), (16, 16)), "JPEG", quality=100))
    np.testing.assert_allclose(red, RED, atol=2)


def test_a_ycck_jpeg_is_not_inverted_either():
    # Adobe stores luma and chroma of (C, M, Y) in the place of (R, G, B), and 255 - K.
    # Orange is C 0, M 127, Y 255, K 0; its luma 0.587 * 127 + 0.114 * 255 = 104.
    stored = (104, 128 + 0.564 * (255 - 104), 128 + 0.713 * (0 - 104), 255)
    # Pillow stores 255 - value of what it takes for CMYK.
    picture = plain("CMYK", tuple(255 - round(value) for value in stored), (16, 16))
    data = encode(picture, "JPEG", quality=100, subsampling=0)
    marker = data.index(b"Adobe")
    assert data[marker + 11] == 0  # no transform; 2 says YCCK
    data = data[: marker + 11] + b"\2" + data[marker + 12 :]
    np.testing.assert_allclose(colour_of(data), (255, 128, 0), atol=3)


def test_lab_becomes_srgb():
    red = plain("LAB", (138, 209, 198))  # L* 54, a* 81, b* 70: the sRGB red
    np.testing.assert_allclose(colour_of(encode(red, "TIFF")), RED, atol=6)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # 0x800 of 12 bits, two samples in three bytes
        (tiff((2, 1), [12], 1, b"\x80\x08\x00"), (128, 128, 128)),
        # 16 bits where 0 is white
        (tiff((1, 1), [16], 0, struct.pack("<H", 0x4000)), (191, 191, 191)),
        # premultiplied grey: 50 of 50 at half opacity is 100 of 100, on white 177
        (tiff((1, 1), [8, 8], 1, bytes([50, 128]), extra_samples=1), (177, 177, 177)),
        # a clear colour is told in the file's own depth: 4, 16, 3 x 16 bits
        (png((2, 2), 4, 0, b"\xff", (b"tRNS", b"\0\x0f")), WHITE),
        (png((2, 2), 4, 0, b"\x33", (b"tRNS", b"\0\x03")), WHITE),
        (png((2, 2), 4, 0, b"\x33", (b"tRNS", b"\0\x04")), (51, 51, 51)),
        (png((1, 2), 16, 0, b"\x80\x01", (b"tRNS", b"\x80\x01")), WHITE),
        (png((1, 2), 16, 0, b"\x80\x01", (b"tRNS", b"\x80\x00")), (128, 128, 128)),
        (png((1, 2), 16, 2, b"\x80\1\x90\1\xa0\1", (b"tRNS", b"\x80\1\x90\1\xa0\1")), WHITE),
        (png((1, 2), 8, 2, b"\x80\x90\xa0", (b"tRNS", b"\0\x80\0\x90\0\xa0")), WHITE),
    ],
)
def test_what_pillow_leaves_undone_is_done(data, expected):
    assert colour_of(data) == expected


def test_hidden_colours_of_clear_pixels_do_not_bleed_into_their_neighbours():
    image = plain("RGBA", (0, 0, 0, 0), (31, 31))  # clear black
    image.paste((255, 0, 0, 255), (0, 0, 16, 31))
    pixels = decode_image(encode(image, "PNG"), Preprocessing(size=7)).pixels
    assert (pixels[..., 0] == 255).all()  # between red and white, never towards black
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[0, -1].tolist() == [255, 255, 255]


# Geometry


def stored_for(orientation, upright):
    """What a camera stores, by the words of EXIF: where row 0 and column 0 lie."""
    turned = upright.transpose(1, 0, 2)
    return {
        1: upright,
        2: upright[:, ::-1],  # row 0 top, column 0 right
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: turned,  # row 0 left, column 0 top
        6: turned[::-1],  # row 0 right, column 0 top
        7: turned[::-1, ::-1],
        8: turned[:, ::-1],
    }[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "settings"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
    ],
)
def test_all_eight_orientations_come_out_upright(format, settings, orientation):
    upright = np.full((16, 32, 3), BLUE, np.uint8)
    upright[:8, :8] = RED
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(stored_for(orientation, upright)))
    data = encode(stored, format, exif=exif, **settings)

    image, *size = load_rgb(data)
    decoded = decode_image(data, Preprocessing(size=16))

    np.testing.assert_allclose(np.asarray(image).astype(int), upright, atol=3)
    assert size == [32, 16] == [decoded.width, decoded.height]
    assert decoded.pixels[3, 1, 0] > 250
    assert decoded.pixels[[3, 12, 12], [14, 1, 14], 0].max() < 5


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_orientation_is_also_read_from_xmp(format):
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    settings = {"xmp": xmp} if format == "JPEG" else {"tiffinfo": {700: xmp}}
    data = encode(noise(0, height=16, width=32), format, **settings)
    image, *size = load_rgb(data)
    decoded = decode_image(data, Preprocessing(size=8))
    expected = load_rgb(encode(noise(0, height=16, width=32), format))[0].transpose(
        Image.Transpose.ROTATE_270
    )
    np.testing.assert_array_equal(image, expected)
    assert size == [16, 32] == [decoded.width, decoded.height]
    resized = expected.resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(decoded.pixels.astype(int), np.asarray(resized), atol=1)


DAMAGED_EXIF = {
    "garbage": b"Exif\0\0garbage",
    "no end": b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
    "points outside": b"Exif\0\0MM\0*\xff\xff\xff\xff",
    "text as orientation": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\2\0\2\0\0\0ab\0\0\0\0\0\0",
    # one byte where a resolution should be: Pillow 13.0 cannot even open that JPEG
    "resolution of one byte": b"Exif\0\0II*\0\x08\0\0\0\2\0\x1a\1\7\0\1\0\0\0\x48\0\0\0"
    b"\x28\1\3\0\1\0\0\0\2\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", DAMAGED_EXIF.values(), ids=DAMAGED_EXIF)
def test_damaged_exif_does_not_lose_a_good_photo(exif, format):
    image, *size = load_rgb(encode(noise(0), format, exif=exif))
    np.testing.assert_array_equal(image, load_rgb(encode(noise(0), format))[0])
    assert size == [50, 40]


@pytest.mark.parametrize(
    ("format", "settings"),
    [
        ("GIF", {}),
        ("WEBP", {"lossless": True}),
        ("PNG", {}),
        ("TIFF", {}),
        ("MPO", {"quality": 100}),
    ],
)
def test_of_many_frames_the_first_counts(format, settings):
    frames = [plain("RGB", colour, (16, 16)) for colour in (RED, BLUE)]
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **settings)
    np.testing.assert_allclose(colour_of(data), RED, atol=2)


def test_a_photo_is_stretched_to_the_square_not_cropped():
    image = plain("RGB", BLACK, (40, 10))
    image.paste(WHITE, (20, 0, 40, 10))
    decoded = decode_image(encode(image, "PNG"), Preprocessing(size=8))
    assert decoded.pixels[:, [0, 1, 2, 5, 6, 7], 0].tolist() == [[0, 0, 0, 255, 255, 255]] * 8
    assert (decoded.width, decoded.height) == (40, 10)


@pytest.mark.parametrize("format", FORMATS)
def test_pixels_are_contiguous_writable_bytes(format):
    pixels = decode_image(encode(noise(1), format), Preprocessing()).pixels
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable  # torch warns about memory that it cannot write


# Reduced JPEG


def scene(height, width):
    """Waves of many lengths and hard edges, so that a shift or a blur shows."""
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x / 5) + np.sin(y / 7) + np.sin((x + y) / 31) + np.sin((x - 2 * y) / 90)
    waves += 2 * ((x // 60 + y // 40) % 2)
    grey = ((waves - waves.min()) / np.ptp(waves) * 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey, grey[::-1], grey[:, ::-1]], -1))


def test_a_jpeg_of_16_megapixels_is_decoded_at_an_eighth():
    data = encode(plain("RGB", (9, 99, 199), (4608, 3584)), "JPEG")
    image, *size = load_rgb(data, min_size=448)
    assert image.size == (576, 448)
    assert size == [4608, 3584]
    decoded = decode_image(data, Preprocessing())
    assert (decoded.width, decoded.height) == (4608, 3584)


@pytest.mark.parametrize("min_size", [1, 99, 100, 101, 199, 200, 201, 10_000])
def test_reducing_never_goes_below_the_size_asked_for(min_size):
    image, *size = load_rgb(encode(plain("L", 7, (1001, 801)), "JPEG"), min_size=min_size)
    assert min(image.size) >= min(min_size, 801)
    assert size == [1001, 801]
    expected = max([scale for scale in (1, 2, 4, 8) if 801 // scale >= min_size], default=1)
    assert image.size == (-(-1001 // expected), -(-801 // expected))


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_reducing_changes_little(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(scene(957, 1301), "JPEG", quality=92, exif=exif)  # 1301 = 2 * 650 + 1

    reduced = decode_image(data, Preprocessing()).pixels.astype(int)

    full = load_rgb(data)[0].resize((224, 224), Image.Resampling.BILINEAR)
    difference = abs(reduced - np.asarray(full))
    assert 0 < difference.mean() < 1  # 0 would mean that nothing was reduced
    assert difference.max() <= 20


# Refusals


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
        (b"\xff\xd8\xff", "corrupt: the decoder says: not identified by this driver"),
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
            "corrupt: the decoder says: broken PNG file (bad header checksum in …)",
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
        (KeyError("x"), "corrupt: the decoder says: 'x'"),
        (NotImplementedError(), "corrupt: the decoder says: NotImplementedError"),
        (struct.error("two\nlines"), "corrupt: the decoder says: two lines"),
        (OSError("bad <_io.BytesIO object at 0x7f> b'\\0'"), "corrupt: the decoder says: bad … …"),
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


# Limits


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


# Preprocessing


def test_the_fingerprint_of_the_papers_preprocessing_never_changes():
    # Only a raised DECODER_VERSION may change it: every index hangs on it. sha256sum of
    # {"decoder_version": 1, "mean": [0.485, 0.456, 0.406], "size": 224,
    #  "std": [0.229, 0.224, 0.225]} in one line
    golden = "e40df8fe4429ece999ab385c679b4ffd00ffd4be5b4ebbc713a3164ebe91b653"
    assert Preprocessing().fingerprint() == golden


@pytest.mark.parametrize(
    "change", [{"size": 225}, {"mean": (0.485, 0.456, 0.4)}, {"std": (0.229, 0.224, 0.2)}]
)
def test_every_field_counts_in_the_fingerprint(change):
    assert Preprocessing(**change).fingerprint() != Preprocessing().fingerprint()


def test_the_rules_of_decoding_count_in_the_fingerprint(monkeypatch):
    before = Preprocessing().fingerprint()
    monkeypatch.setattr(images, "DECODER_VERSION", images.DECODER_VERSION + 1)
    assert Preprocessing().fingerprint() != before


def test_equal_preprocessings_have_equal_fingerprints():
    one, other = Preprocessing(mean=(0, 0, 0)), Preprocessing(mean=[0.0, 0.0, 0.0])
    assert one == other
    assert one.fingerprint() == other.fingerprint()


def test_preprocessing_survives_json():
    before = Preprocessing(size=96, mean=(0.1, 0.2, 1 / 3), std=(1.0, 2.0, 3.0))
    after = Preprocessing.from_json(json.loads(json.dumps(before.to_json())))
    assert after == before
    assert after.fingerprint() == before.fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"crop": 1},
            r"keys \['crop', 'mean', 'size', 'std'\], needed are \['mean', 'size', 'std'\]",
        ),
        ({"size": "224"}, "needed are a whole size"),
        ({"mean": None}, "not iterable"),
        ({"std": ["a", 1, 1]}, "could not convert"),
    ],
)
def test_a_model_with_another_preprocessing_is_refused(change, message):
    with pytest.raises(ModelError, match=message):
        Preprocessing.from_json(Preprocessing().to_json() | change)


def test_a_missing_key_is_not_filled_from_the_defaults():
    with pytest.raises(ModelError, match="needed are"):
        Preprocessing.from_json({"size": 224})


@pytest.mark.parametrize(
    "values",
    [
        {"size": 0},
        {"size": 224.0},
        {"size": True},
        {"mean": (0.5, 0.5)},
        {"mean": (0.5, 0.5, float("nan"))},
        {"std": (1, 1, 0)},
        {"std": (1, 1, float("inf"))},
    ],
    ids=str,
)
def test_impossible_preprocessing_is_refused(values):
    with pytest.raises(
        UsageError, match="needed are a whole size >= 1, 3 finite means, 3 stds > 0"
    ):
        Preprocessing(**values)
