"""What each technique of colour means, by hand-worked cases and plain loops."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from scipy import ndimage

from retrieval.augmentations import colour

NO_CHANCE = np.random.default_rng(0)  # nothing in this module draws from it


@pytest.fixture(params=range(3), ids="seed{}".format)
def picture(request):
    return np.random.default_rng(request.param).integers(0, 256, (30, 41, 3), np.uint8)


def pixel(*values):
    """A picture of one row."""
    return np.array([values], np.uint8).reshape(1, -1, 3)


def luma(image):
    return image.astype(np.float64) @ [0.299, 0.587, 0.114]


def test_saturation_doubles_the_distance_from_the_luma():
    # luma of (100, 150, 200): 29.9 + 88.05 + 22.8 = 140.75, which is 141
    result = colour.saturation(pixel(100, 150, 200), NO_CHANCE, factor=2)
    assert result.tolist() == [[[59, 159, 255]]]


def test_saturation_of_0_is_grey_and_of_1_the_picture(picture):
    grey = colour.saturation(picture, NO_CHANCE, factor=0)
    np.testing.assert_array_equal(grey, colour.grayscale(picture, NO_CHANCE))
    np.testing.assert_array_equal(colour.saturation(picture, NO_CHANCE, factor=1), picture)


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (0, [200, 10, 10]), (60, [200, 200, 10]), (120, [10, 200, 10]), (-120, [10, 10, 200]),
        (240, [10, 10, 200]), (360, [200, 10, 10]),
    ],
)  # fmt: skip
def test_hue_turns_red_around_the_wheel(shift, expected):
    assert colour.hue(pixel(200, 10, 10), NO_CHANCE, shift=shift).tolist() == [[expected]]


@pytest.mark.parametrize("shift", [-77, 30, 190.5, 330])
def test_hue_keeps_the_largest_and_the_smallest_value_of_each_pixel(picture, shift):
    result = colour.hue(picture, NO_CHANCE, shift=shift)
    np.testing.assert_array_equal(result.max(axis=2), picture.max(axis=2))
    np.testing.assert_allclose(result.min(axis=2).astype(int), picture.min(axis=2), atol=1)


def test_hue_keeps_grey():
    grey = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    np.testing.assert_array_equal(colour.hue(grey, NO_CHANCE, shift=100), grey)


def test_hue_is_what_the_standard_library_makes_of_it(picture):
    result = colour.hue(picture, NO_CHANCE, shift=75)
    for before, after in zip(picture.reshape(-1, 3), result.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(before / 255))
        expected = np.array(colorsys.hsv_to_rgb((h + 75 / 360) % 1, s, v)) * 255
        np.testing.assert_allclose(after, expected, atol=0.6)


def test_contrast_moves_values_away_from_the_mean():
    image = pixel(100, 100, 100, 200, 200, 200)
    result = colour.contrast(image, NO_CHANCE, factor=1.5)
    assert result.tolist() == [[[75] * 3, [225] * 3]]
    assert colour.contrast(image, NO_CHANCE, factor=5).tolist() == [[[0] * 3, [255] * 3]]


def test_contrast_of_0_is_the_mean_luma_and_of_1_the_picture(picture):
    flat = colour.contrast(picture, NO_CHANCE, factor=0)
    assert len(np.unique(flat)) == 1
    assert flat[0, 0, 0] == pytest.approx(luma(picture).mean(), abs=1)
    np.testing.assert_array_equal(colour.contrast(picture, NO_CHANCE, factor=1), picture)


@pytest.mark.parametrize(
    ("technique", "gamma", "expected"),
    # 255 * sqrt(64 / 255) = 127.7; 255 * (128 / 255) ** 2 = 64.3
    [(colour.lighten, 0.5, [0, 128, 255]), (colour.darken, 2, [0, 16, 255])],
)
def test_gamma_worked_by_hand(technique, gamma, expected):
    result = technique(pixel(0, 64, 255), NO_CHANCE, gamma=gamma)
    assert result.tolist() == [[expected]]


def test_lighten_never_darkens_and_darken_never_lightens(picture):
    assert (colour.lighten(picture, NO_CHANCE, gamma=0.4) >= picture).all()
    assert (colour.darken(picture, NO_CHANCE, gamma=2.5) <= picture).all()
    for technique in (colour.lighten, colour.darken):
        np.testing.assert_array_equal(technique(picture, NO_CHANCE, gamma=1), picture)


def test_sharpen_overshoots_on_both_sides_of_an_edge_and_nowhere_else():
    image = np.full((40, 60, 3), 80, np.uint8)
    image[:, 30:] = 160
    result = colour.sharpen(image, NO_CHANCE, radius=0.05, amount=1)
    assert (result[:, 29] < 60).all()
    assert (result[:, 30] > 180).all()
    assert (result[:, :20] == 80).all()
    assert (result[:, 40:] == 160).all()


def test_sharpen_adds_what_a_blur_takes_away_in_every_row_and_channel(picture):
    result = colour.sharpen(picture, NO_CHANCE, radius=2 / 30, amount=1.5)
    for channel in range(3):
        values = picture[..., channel].astype(np.float64)
        blurred = ndimage.gaussian_filter(values, 2, mode="reflect")
        expected = (values + 1.5 * (values - blurred)).clip(0, 255)
        np.testing.assert_allclose(result[..., channel], expected, atol=0.51)


def test_grayscale_has_three_equal_channels_with_the_luma(picture):
    result = colour.grayscale(picture, NO_CHANCE)
    for channel in range(3):
        np.testing.assert_allclose(result[..., channel], luma(picture), atol=0.51)


def test_invert_takes_from_255_and_twice_is_the_picture(picture):
    result = colour.invert(picture, NO_CHANCE)
    np.testing.assert_array_equal(result, 255 - picture)
    np.testing.assert_array_equal(colour.invert(result, NO_CHANCE), picture)


def test_channel_gain_multiplies_each_channel_by_its_own_factor():
    image = pixel(100, 100, 100, 200, 201, 202)
    result = colour.channel_gain(image, NO_CHANCE, red=0.5, green=1, blue=1.4)
    assert result.tolist() == [[[50, 100, 140], [100, 201, 255]]]
