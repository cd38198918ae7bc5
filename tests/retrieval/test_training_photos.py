"""The bytes of a photo → what training sees of it: seeded draws, one size, embed's own pixels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from retrieval.augmentations import CATALOGUE, Apply, Recipe, Step, load_recipe
from retrieval.errors import ImageError
from retrieval.images import Preprocessing, Reason, decode_image
from retrieval.training.photos import training_pixels
from tests.retrieval.photos import encode, noise, scene

SIDE = 56  # augmented at 64
SMALL = Preprocessing(size=SIDE)
FLIP = Recipe("flip", Apply.CHAIN, (Step(CATALOGUE["flip_horizontal"]),))
PHOTOS = {
    "large JPEG": encode(scene(1500, 2000), "JPEG", quality=90),
    "portrait PNG": encode(noise(1, height=150, width=90), "PNG"),
    "smaller than the input": encode(noise(2, height=20, width=31), "PNG"),
    "one pixel": encode(noise(3, height=1, width=1), "PNG"),
    "a line": encode(noise(4, height=1, width=900), "JPEG"),
}


@pytest.fixture(params=PHOTOS)
def content(request):
    return PHOTOS[request.param]


def pixels_of(content, recipe, *, seed=0, image_id="a/1.jpg", number=0):
    return training_pixels(content, SMALL, recipe, seed=seed, draw=(image_id, number))


def spy(seen, give=lambda image: image):
    """A recipe that notes what it is given."""

    def augment(image, rng):
        seen.append(image)
        return give(image)

    return SimpleNamespace(steps=("spy",), augment=augment)


def test_without_a_recipe_the_pixels_are_those_of_embed(content):
    found = pixels_of(content, load_recipe("none"), number=7)
    assert found.tobytes() == decode_image(content, SMALL).pixels.tobytes()
    assert (found.dtype, found.shape) == (np.uint8, (SIDE, SIDE, 3))


@pytest.mark.parametrize("name", ["light", "paper"])
def test_every_photo_comes_out_as_the_square_that_the_network_takes(content, name):
    for number in range(8):
        found = pixels_of(content, load_recipe(name), number=number)
        assert (found.dtype, found.shape) == (np.uint8, (SIDE, SIDE, 3))
        assert found.flags.writeable  # torch warns of memory that is not


def test_a_draw_is_a_function_of_seed_photo_and_number():
    recipe, content = load_recipe("light"), PHOTOS["portrait PNG"]
    draws = [
        {"seed": 0}, {"seed": 1}, {"image_id": "a/2.jpg"}, {"number": 1}, {"number": 1 << 40},
    ]  # fmt: skip
    found = [pixels_of(content, recipe, **draw).tobytes() for draw in draws]
    assert len(set(found)) == len(draws)
    np.random.seed(3)  # noqa: NPY002 - the generator of the process must not matter
    assert [pixels_of(content, recipe, **draw).tobytes() for draw in draws] == found


def test_many_draws_of_a_photo_are_many_pictures():
    recipe, content = load_recipe("light"), PHOTOS["portrait PNG"]
    assert len({pixels_of(content, recipe, number=n).tobytes() for n in range(20)}) == 20


def test_a_recipe_that_flips_flips():
    # Of the network's size already, so that nothing else happens to it.
    content = encode(noise(5, height=SIDE, width=SIDE), "PNG")
    found = pixels_of(content, FLIP)
    assert found.tolist() == decode_image(content, SMALL).pixels[:, ::-1].tolist()


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (300, 400, (64, 85)),
        (400, 300, (85, 64)),
        (1500, 2000, (64, 85)),
        (64, 64, (64, 64)),
        (65, 130, (64, 128)),
        (63, 256, (63, 256)),  # not enlarged, whatever the longer side
        (20, 31, (20, 31)),
        (63, 400, (40, 256)),  # of a strip the longer side is at most 4 · 64
        (100, 1000, (26, 256)),
    ],
)
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_photo_is_augmented_at_a_little_more_than_the_network_s_size(
    height, width, expected, format
):
    seen = []
    pixels_of(encode(scene(height, width), format), spy(seen))
    assert seen[0].shape == (*expected, 3)
    assert seen[0].dtype == np.uint8
    assert seen[0].flags.writeable


def test_what_a_recipe_sees_is_the_whole_photo_reduced():
    photo = scene(1500, 2000)
    seen = []
    pixels_of(encode(photo, "JPEG", quality=95), spy(seen))
    expected = np.asarray(photo.resize((85, 64), Image.Resampling.BILINEAR), np.int32)
    assert np.abs(seen[0] - expected).mean() < 4  # of 255; a shift by a pixel makes it 17


@pytest.mark.parametrize("name", ["large JPEG", "portrait PNG", "smaller than the input"])
def test_a_recipe_that_does_nothing_gives_nearly_what_embed_sees(name):
    found = pixels_of(PHOTOS[name], spy([])).astype(np.int32)
    difference = np.abs(found - decode_image(PHOTOS[name], SMALL).pixels)
    assert difference.mean() < 6
    if name == "smaller than the input":
        assert not difference.any()


def test_a_photo_is_turned_upright_before_it_is_augmented():
    image, seen = scene(100, 200), []
    exif = image.getexif()
    exif[0x0112] = 6
    content = encode(image, "PNG", exif=exif)
    found = pixels_of(content, spy(seen)).astype(np.int32)
    assert seen[0].shape == (128, 64, 3)
    assert np.abs(found - decode_image(content, SMALL).pixels).mean() < 6


def test_what_a_recipe_gives_is_stretched_to_the_square():
    red = np.full((5, 9, 3), (200, 10, 10), np.uint8)
    found = pixels_of(PHOTOS["portrait PNG"], spy([], give=lambda image: red))
    assert found.tolist() == np.broadcast_to(red[0, 0], (SIDE, SIDE, 3)).tolist()


@pytest.mark.parametrize("name", ["none", "light"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", Reason.EMPTY), (PHOTOS["large JPEG"][:-5000], Reason.TRUNCATED)],
    ids=["empty", "truncated"],
)
def test_a_photo_that_cannot_be_decoded_is_an_error_with_a_reason(name, content, reason):
    with pytest.raises(ImageError) as caught:
        pixels_of(content, load_recipe(name))
    assert caught.value.reason == reason
