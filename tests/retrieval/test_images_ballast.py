"""What decides no pixel costs no image: damaged, huge or packed as a bomb, it is passed over."""

import random
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from retrieval.images import decode as images
from retrieval.images import load_rgb
from retrieval.images.structure import without_ballast
from tests.retrieval.hostile import chunk, jpeg_of_scans, jpeg_with, png_with, segment
from tests.retrieval.photos import FORMATS, RED, WHITE, attempt, encode, noise, plain, png, refusal

PICTURE = noise(0, 16, 24)
PNG, JPEG = encode(PICTURE, "PNG"), encode(PICTURE, "JPEG")
BOMB = zlib.compress(bytes(64 * 2**20), 9)
TURNED = Image.Exif()
TURNED[0x0112] = 6
EXIF = TURNED.tobytes()  # begins with Exif\0\0
XMP = b'<rdf:Description tiff:Orientation="6"/>'
RAW_PROFILE = b"\nexif\n%8d\n" % len(EXIF) + EXIF.hex().encode()

PNG_BALLAST = {
    "text of 3 MB": chunk(b"tEXt", b"workflow\0" + b"x" * 3_000_000),
    "packed text of 3 MB": chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(3_000_000))),
    "bomb of text": chunk(b"zTXt", b"workflow\0\0" + BOMB),
    "bomb of text of all tongues": chunk(b"iTXt", b"workflow\0\1\0\0\0" + BOMB),
    "bomb of XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
    "bomb of EXIF as text": chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB),
    "profile of 2 MB": chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(2_000_000))),
    "bomb of a profile": chunk(b"iCCP", b"name\0\0" + BOMB),
    "profile packed otherwise": chunk(b"iCCP", b"name\0\7abc"),
    "profile without content": chunk(b"iCCP", b"name\0"),
    "text packed otherwise": chunk(b"zTXt", b"a\0\7abc"),
    "gamma of 1 byte": chunk(b"gAMA", b"\1"),
    "colours of 1 byte": chunk(b"cHRM", b"\1"),
    "resolution of 1 byte": chunk(b"pHYs", b"\1"),
    "intent of 0 bytes": chunk(b"sRGB"),
    "a wrong checksum": chunk(b"tEXt", b"a\0b", checksum=1),
    "a key of Pillow": chunk(b"tEXt", b"transparency\0x"),
    "no text": chunk(b"tEXt"),
}


@pytest.mark.parametrize("ballast", PNG_BALLAST.values(), ids=PNG_BALLAST)
def test_a_png_is_whole_whatever_its_texts_and_profiles_are(ballast):
    for data in (png_with(PNG, ballast), png_with(PNG, past=ballast)):
        np.testing.assert_array_equal(load_rgb(data)[0], PICTURE)
        turned = png_with(data, chunk(b"eXIf", EXIF[6:]))
        np.testing.assert_array_equal(
            load_rgb(turned)[0], PICTURE.transpose(Image.Transpose.ROTATE_270)
        )


@pytest.mark.parametrize(
    "turning",
    [
        chunk(b"eXIf", EXIF[6:]),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(RAW_PROFILE)),
        chunk(b"tEXt", b"Raw profile type exif\0" + RAW_PROFILE),
    ],
    ids=["EXIF", "XMP", "packed XMP", "packed profile", "profile"],
)
def test_wherever_pillow_finds_an_orientation_it_is_kept(turning):
    ballast = b"".join(PNG_BALLAST[name] for name in ("bomb of text", "profile of 2 MB"))
    for data in (png_with(PNG, ballast + turning), png_with(PNG, ballast, turning)):
        upright = load_rgb(data)[0]
        np.testing.assert_array_equal(upright, PICTURE.transpose(Image.Transpose.ROTATE_270))


def test_a_png_that_is_cut_behind_its_pixels_is_whole_and_before_them_it_is_not():
    text = chunk(b"tEXt", b"a\0" + b"x" * 1_000)
    past = png_with(PNG, past=text)
    np.testing.assert_array_equal(load_rgb(past[:-500])[0], PICTURE)
    assert refusal(png_with(PNG, text)[:500]).reason == "truncated"


def test_of_more_text_than_pillow_takes_the_first_part_is_kept():
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP + b" " * 17_000_000)
    upright = load_rgb(png_with(PNG, xmp * 4))[0]
    np.testing.assert_array_equal(upright, PICTURE.transpose(Image.Transpose.ROTATE_270))


def test_exif_of_a_wrong_checksum_is_ignored_as_other_damage_in_it_is():
    for body in (b"II*\0", EXIF[6:]):
        data = png_with(PNG, chunk(b"eXIf", body, checksum=1))
        np.testing.assert_array_equal(load_rgb(data)[0], PICTURE)


def test_bombs_are_passed_over_in_little_memory():
    data = png_with(PNG, PNG_BALLAST["bomb of XMP"] * 200 + PNG_BALLAST["bomb of a profile"])
    tracemalloc.start()
    assert without_ballast(data) == PNG
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_no_more_texts_are_unpacked_than_a_file_has_use_for():
    """Each may take a millisecond, and a file may have 100,000."""
    packed = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP))
    assert without_ballast(png_with(PNG, packed * 64)) == png_with(PNG, packed * 64)
    assert without_ballast(png_with(PNG, packed * 99)) == png_with(PNG, packed * 64)


JPEG_BALLAST = {
    "profile of one part of two": segment(0xE2, b"ICC_PROFILE\0\1\2abc"),
    "profile without a number": segment(0xE2, b"ICC_PROFILE\0"),
    "JFIF of 5 bytes": segment(0xE0, b"JFIF\0"),
    "Adobe of 5 bytes": segment(0xEE, b"Adobe"),
    "Photoshop that is cut": segment(0xED, b"Photoshop 3.0\0008BIM\4\4"),
    "pictures that are none": segment(0xE2, b"MPF\0II*\0\x08\0\0\0\1\0\1\xb0\4\0\1\0\0\0\2\0\0\0"),
    "pictures of a damaged directory": segment(0xE2, b"MPF\0garbage"),
    "300 parts of extended XMP": segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" * 1_800)
    * 300,
    "900 segments of EXIF": segment(0xE1, b"Exif\0\0" + bytes(65_527)) * 900,
    "a comment": segment(0xFE, b"a"),
    "a comment of length 0": b"\xff\xfe\0\0",
    "stray bytes": b"\xff\xe5\0\2" + bytes(1_000_000),
    "fill bytes": b"\xff" * 100_000,
    "escaped bytes": b"\xff\0" * 100_000,
}


def test_of_more_exif_than_cameras_write_the_first_part_is_kept():
    """Pillow joins all of it, in time quadratic in the number of its segments."""
    part = segment(0xE1, b"Exif\0\0" + bytes(65_527))
    assert without_ballast(jpeg_with(JPEG, part * 900)).count(part) == 16


def test_what_follows_much_exif_still_says_the_colours():
    part = segment(0xE1, b"Exif\0\0" + bytes(65_527))
    colours = segment(0xE0, b"JFIF\0" + bytes(9)) + segment(0xEE, b"Adobe" + bytes(7))
    found = without_ballast(jpeg_with(JPEG, part * 20 + colours))
    assert (found.count(part), found.count(colours)) == (16, 1)


@pytest.mark.parametrize("ballast", JPEG_BALLAST.values(), ids=JPEG_BALLAST)
def test_a_jpeg_is_whole_whatever_lies_before_its_image(ballast):
    for good in (JPEG, jpeg_of_scans(0)):
        expected = load_rgb(good)[0]
        np.testing.assert_array_equal(load_rgb(jpeg_with(good, ballast))[0], expected)
        turned = jpeg_with(good, segment(0xE1, EXIF), ballast)
        expected = expected.transpose(Image.Transpose.ROTATE_270)
        np.testing.assert_array_equal(load_rgb(turned)[0], expected)


def test_the_colours_that_adobe_and_jfif_tell_are_kept_beside_ballast():
    for picture in (plain("CMYK", (0, 255, 255, 0), (16, 16)), PICTURE):
        for settings in ({}, {"keep_rgb": True} if picture.mode == "RGB" else {}):
            good = encode(picture, "JPEG", **settings)
            data = jpeg_with(good, *[segment(0xE7, bytes(9))] * 9)
            assert load_rgb(data)[0].tobytes() == load_rgb(good)[0].tobytes()


@pytest.mark.parametrize("num_alphas", [257, 300])
def test_more_alphas_than_a_palette_can_have_count_up_to_its_end(num_alphas):
    palette = (b"PLTE", bytes((*RED, *RED)) + bytes(254 * 3))
    alphas = (b"tRNS", b"\0\x80" + b"\xff" * (num_alphas - 2))
    data = png((2, 1), 8, 3, b"\0\1", palette, alphas)
    assert np.asarray(load_rgb(data)[0]).tolist() == [[list(WHITE), [255, 127, 127]]]


@pytest.mark.parametrize(("num_colours", "num_alphas"), [(2, 3), (2, 256), (2, 257), (4, 300)])
def test_clear_colours_of_a_palette_that_is_shorter_become_white(num_colours, num_alphas):
    palette = (b"PLTE", bytes(RED) * num_colours)
    for alphas in (b"\0" + b"\xff" * (num_alphas - 1), bytes(num_alphas)):
        data = png((2, 1), 8, 3, b"\0\0", palette, (b"tRNS", alphas))
        assert np.asarray(load_rgb(data)[0]).tolist() == [[list(WHITE)] * 2]


def animated(format, **settings):
    frames = [noise(seed, 16, 16) for seed in range(3)]
    return encode(frames[0], format, save_all=True, append_images=frames[1:], **settings)


def samples():
    metadata = {"exif": EXIF, "icc_profile": bytes(3_000)}
    tiff = {"tiffinfo": {274: 6, 700: XMP}}
    return [
        *(encode(PICTURE, each) for each in FORMATS),
        *(encode(PICTURE, each, **metadata) for each in ("JPEG", "PNG", "WEBP")),
        *(animated(each) for each in ("PNG", "GIF", "WEBP", "TIFF", "MPO")),
        animated("PNG", default_image=True),
        encode(PICTURE, "JPEG", progressive=True, comment=b"a", xmp=XMP, **metadata),
        encode(PICTURE.convert("CMYK"), "JPEG"),
        encode(PICTURE.quantize(16), "PNG", transparency=b"\0\x80", exif=EXIF),
        encode(PICTURE.convert("LA"), "PNG"),
        encode(PICTURE, "TIFF", compression="tiff_lzw", **tiff),
        encode(PICTURE, "TIFF", big_tiff=True),
        encode(PICTURE.quantize(16), "BMP"),
        png_with(PNG, chunk(b"tIME", bytes(7)), chunk(b"eXIf", EXIF[6:])),
    ]


def changed(data, rng):
    """A copy with bytes changed, cut, deleted or doubled."""
    data, at = bytearray(data), rng.randrange(len(data))
    kind = rng.randrange(5)
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        del data[at : at + rng.randint(1, 20)]
    elif kind == 2:
        data[at:at] = data[rng.randrange(len(data)) :][:40]
    else:
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(min(len(data), rng.choice((60, 400, 10**6))))
            data[at] = rng.choice((0, 1, 255, rng.randrange(256)))
    return bytes(data)


@pytest.mark.parametrize("seed", range(3))
def test_what_pillow_decodes_of_the_whole_file_comes_out_the_same(monkeypatch, seed):
    rng, num_accepted = random.Random(seed), 0
    for data in samples():
        for each in (data, *(changed(data, rng) for _ in range(20))):
            with monkeypatch.context() as patch:
                patch.setattr(images, "without_ballast", lambda content: content)
                expected = attempt(each, size=16)
            found = attempt(each, size=16)
            if isinstance(expected, images.DecodedImage):
                num_accepted += 1
                np.testing.assert_array_equal(found.pixels, expected.pixels)
                assert (found.width, found.height) == (expected.width, expected.height)
    assert num_accepted > 50
