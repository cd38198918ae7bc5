"""Photo bytes → thumbnails."""

import base64
import io
import re

import pytest
from PIL import Image

from retrieval.errors import ImageError
from retrieval.report_page import (
    make_thumbnail,
    thumbnail_size,
)
from tests.retrieval.pages import (
    PAGE,
    photo,
    render,
)


def decode(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(body, validate=True)))


def colour(image: Image.Image, x: float, y: float) -> str:
    red, _, blue = image.convert("RGB").getpixel((int(x * image.width), int(y * image.height)))
    return "red" if red > blue else "blue"


@pytest.mark.parametrize(
    ("size", "expected"), [(50, (50, 25)), (64, (64, 32)), (400, (400, 200)), (999, (400, 200))]
)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_the_longest_side_has_the_size_and_small_photos_are_not_enlarged(
    size, expected, file_format
):
    image = decode(make_thumbnail(photo(400, 200, file_format), size=size))

    assert image.format == "WEBP"
    assert image.size == expected
    assert (colour(image, 0.1, 0.5), colour(image, 0.9, 0.5)) == ("red", "blue")


@pytest.mark.parametrize(
    ("orientation", "size", "red_at"),
    [
        (1, (60, 30), (0.1, 0.5)),
        (2, (60, 30), (0.9, 0.5)),
        (3, (60, 30), (0.9, 0.5)),
        (4, (60, 30), (0.1, 0.5)),
        (5, (30, 60), (0.5, 0.1)),
        (6, (30, 60), (0.5, 0.1)),
        (7, (30, 60), (0.5, 0.9)),
        (8, (30, 60), (0.5, 0.9)),
    ],
)
def test_thumbnails_are_upright(orientation, size, red_at):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(make_thumbnail(photo(240, 120, exif=exif), size=60))

    assert image.size == size
    x, y = red_at
    assert (colour(image, x, y), colour(image, 1 - x, 1 - y)) == ("red", "blue")


def test_thumbnails_carry_no_metadata():
    exif = Image.Exif()
    exif[0x010F] = "camera maker"
    data = photo(100, 100, exif=exif, icc_profile=b"profile" * 500, comment=b"at home")
    image = decode(make_thumbnail(data, size=50))

    assert set(image.info) <= {"loop", "background", "timestamp", "duration"}
    assert len(make_thumbnail(data, size=50)) < 1000


def test_a_very_thin_photo_keeps_a_pixel():
    assert decode(make_thumbnail(photo(2000, 2), size=64)).size == (64, 1)


@pytest.mark.parametrize("data", [b"", b"no photo", photo(300, 300)[:700]], ids=len)
def test_a_broken_photo_is_an_image_error(data):
    with pytest.raises(ImageError):
        make_thumbnail(data, size=64)


def test_a_thumbnail_fits_into_the_page():
    html = render(PAGE, {"q:hit.jpg": make_thumbnail(photo(300, 200), size=64)})

    assert len(re.findall(r"\{background-image:url\(data:image/webp;base64,", html)) == 1


def test_thumbnails_get_smaller_when_there_are_many():
    sizes = [thumbnail_size(num) for num in range(0, 60_000, 500)]

    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (256, 64)
    assert thumbnail_size(12_000) == 112
