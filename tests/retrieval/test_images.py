"""Bytes → pixels: colours, geometry, reduced JPEG."""

import struct

import numpy as np
import pytest
from PIL import Image

from retrieval.images import Preprocessing, decode_image, load_rgb
from tests.retrieval.photos import (
    BLACK,
    BLUE,
    FORMATS,
    RED,
    WHITE,
    colour_of,
    encode,
    noise,
    plain,
    png,
    scene,
    stored_for,
    tiff,
)


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
