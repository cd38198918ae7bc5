"""Good and bad photos, made here, with right answers known by hand."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images import Preprocessing, decode_image, load_rgb

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


def scene(height, width):
    """Waves of many lengths and hard edges, so that a shift or a blur shows."""
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x / 5) + np.sin(y / 7) + np.sin((x + y) / 31) + np.sin((x - 2 * y) / 90)
    waves += 2 * ((x // 60 + y // 40) % 2)
    grey = ((waves - waves.min()) / np.ptp(waves) * 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey, grey[::-1], grey[:, ::-1]], -1))
