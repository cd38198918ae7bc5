"""Near copies and destroyed pictures, on drawn photos, by hand and by the definition in loops."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from retrieval.augmentations import CATALOGUE, Guard, Verdict, random_generator
from retrieval.augmentations.quality_filter import MIN_DEVIATION
from retrieval.drawn import draw_photo

GOOD, NEAR_COPY, DESTROYED = Verdict.GOOD, Verdict.NEAR_COPY, Verdict.DESTROYED


def drawn(building):
    """A drawn photo with a shorter side of 256, as the pictures of a run have."""
    image = draw_photo(building, 1)
    scale = 256 / min(image.size)
    size = tuple(round(side * scale) for side in image.size)
    return np.array(image.resize(size, Image.Resampling.BILINEAR))


@pytest.fixture(scope="module", params=[0, 4, 9], ids="building{}".format)
def photo(request):
    return drawn(request.param)


@pytest.fixture(scope="module")
def detailed_photo():
    """The one of the three with most to blur: a drawing has flat areas that a photo has not."""
    return drawn(0)


def as_jpeg(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def with_noise(image, sigma):
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


def apply(image, name, **parameters):
    return CATALOGUE[name].apply(image, np.random.default_rng(0), parameters)


def test_the_same_again_is_a_near_copy(photo):
    guard = Guard(photo)
    again = {
        "itself": photo,
        "encoded anew": as_jpeg(photo, 90),
        "noise of sigma 1": with_noise(photo, 1),
        "one column less": photo[:, 1:],
        "one row less": photo[1:],
        "gamma of 0.99": apply(photo, "lighten", gamma=0.99),
        "crop of almost all": apply(photo, "crop", fraction=0.99),
        "larger": apply(photo, "stretch", width=1.2, height=1.2),
    }
    for what, image in again.items():
        assert guard.verdict(image) == NEAR_COPY, what


@pytest.mark.parametrize("move", [(0, 1), (1, 0), (1, 1), (1, -1)])
def test_a_photo_moved_by_one_pixel_is_a_near_copy(photo, move):
    moved = np.roll(photo, move, axis=(0, 1))[1:-1, 1:-1]
    assert Guard(photo[1:-1, 1:-1]).verdict(moved) == NEAR_COPY


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "stretch"])
def test_every_technique_passes_with_its_default_ranges(detailed_photo, name):
    guard, technique, verdicts = Guard(detailed_photo), CATALOGUE[name], []
    for number in range(6):
        rng = random_generator(number, "photo", name)
        image = technique.apply(detailed_photo, rng, technique.draw(rng))
        verdicts.append(guard.verdict(image))
    assert verdicts.count(GOOD) >= 5


def test_a_stretched_photo_passes_only_if_its_proportions_change(photo):
    guard = Guard(photo)
    assert guard.verdict(apply(photo, "stretch", width=1.1, height=1)) == GOOD
    assert guard.verdict(apply(photo, "stretch", width=1, height=1.1)) == GOOD
    assert guard.verdict(apply(photo, "stretch", width=1.03, height=1)) == NEAR_COPY


def test_a_copy_of_an_accepted_sibling_is_a_near_copy(photo):
    guard = Guard(photo)
    flipped, padded = apply(photo, "flip_horizontal"), apply(photo, "padding", size=0.2)
    assert guard.verdict(flipped) == GOOD
    assert guard.verdict(flipped) == GOOD  # asking accepts nothing
    guard.accept(flipped)
    assert guard.verdict(as_jpeg(flipped, 90)) == NEAR_COPY
    assert guard.verdict(padded) == GOOD
    guard.accept(padded)
    assert guard.verdict(as_jpeg(flipped, 90)) == NEAR_COPY
    assert guard.verdict(as_jpeg(padded, 90)) == NEAR_COPY
    assert guard.verdict(photo) == NEAR_COPY


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("salt", {"amount": 1}),
        ("contrast", {"factor": 0.05}),
        ("canny", {"threshold": 1400}),
        ("darken", {"gamma": 10}),
    ],
)
def test_a_picture_of_one_brightness_is_destroyed(name, parameters):
    columns = np.linspace(100, 140, 80).astype(np.uint8)
    image = np.tile(columns[np.newaxis, :, np.newaxis], (60, 1, 3))
    assert Guard(image).verdict(255 - image) == GOOD
    assert Guard(image).verdict(apply(image, name, **parameters)) == DESTROYED


def test_colour_alone_does_not_save_a_picture_of_one_brightness():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32] = (200, 0, 0)  # luma 60
    image[:, 32:] = (0, 102, 0)  # luma 60
    assert Guard(image).verdict(image) == DESTROYED
    image[:, 32:] = (0, 140, 0)
    assert Guard(image).verdict(image) == NEAR_COPY


def slow_deviation(one, other):
    """The definition in the module's docstring."""
    total = 0
    for row in range(len(one)):
        for column in range(len(one)):
            around = other[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            for channel in range(3):
                value = int(one[row, column, channel])
                lowest, highest = around[..., channel].min(), around[..., channel].max()
                total += max(0, int(lowest) - value) + max(0, value - int(highest))
    return total / one.size


@pytest.mark.parametrize("seed", range(4), ids="seed{}".format)
def test_a_near_copy_is_what_the_definition_in_loops_says(seed):
    rng = np.random.default_rng(seed)
    # Pictures of 8 x 8 are their own thumbnails.
    source = rng.integers(0, 256, (8, 8, 3), np.uint8)
    blurred = cv2.blur(source, (3, 3)).astype(int)
    guard, found = Guard(source), set()
    for _ in range(60):
        # From a sharper picture to a blurred one, in a part of the pixels.
        weight = rng.uniform(-0.5, 0.9) * (rng.random(source.shape) < rng.random())
        image = (source + weight * (blurred - source)).round().clip(0, 255).astype(np.uint8)
        deviations = slow_deviation(image, source), slow_deviation(source, image)
        is_near = tuple(deviation < MIN_DEVIATION for deviation in deviations)
        assert guard.verdict(image) == (NEAR_COPY if all(is_near) else GOOD)
        found.add(is_near)
    assert {(True, True), (True, False), (False, True)} <= found


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 500), (20, 30)], ids=str)
def test_any_size_can_be_judged(size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    guard = Guard(image)
    assert guard.verdict(image) == (DESTROYED if size == (1, 1) else NEAR_COPY)
    guard.accept(image)
    assert guard.verdict(rng.integers(0, 256, (90, 90, 3), np.uint8)) in (GOOD, DESTROYED)


def test_a_small_photo_moved_by_one_pixel_is_a_near_copy_too(photo):
    small = np.array(Image.fromarray(photo).resize((90, 64), Image.Resampling.BILINEAR))
    moved = np.roll(small, 1, axis=1)
    assert Guard(small[1:-1, 1:-1]).verdict(moved[1:-1, 1:-1]) == NEAR_COPY


def test_the_guard_leaves_pictures_as_they_are(photo):
    before = photo.copy()
    guard = Guard(photo)
    guard.verdict(photo)
    guard.accept(photo)
    np.testing.assert_array_equal(photo, before)


def test_the_guard_keeps_no_picture_itself(photo):
    mine = photo.copy()
    guard = Guard(mine)
    mine[:] = 0
    assert guard.verdict(photo) == NEAR_COPY
