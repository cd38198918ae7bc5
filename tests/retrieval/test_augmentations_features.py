"""What each technique of features means, by hand-worked cases and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retrieval.augmentations import colour, features, proportion

NO_CHANCE = np.random.default_rng(0)  # nothing in this module draws from it


@pytest.fixture(params=range(3), ids="seed{}".format)
def picture(request):
    return np.random.default_rng(request.param).integers(0, 256, (30, 41, 3), np.uint8)


def step(low, high, *, is_upright=True):
    """An edge in the middle of a square of 40."""
    image = np.full((40, 40, 3), low, np.uint8)
    image[:, 20:] = high
    return image if is_upright else np.ascontiguousarray(image.transpose(1, 0, 2))


@pytest.mark.parametrize("is_upright", [True, False])
def test_sobel_is_as_bright_as_a_step_is_high_and_black_elsewhere(is_upright):
    for gain, brightness in ((1, 60), (2, 120), (10, 255)):
        result = features.sobel(step(50, 110, is_upright=is_upright), NO_CHANCE, gain=gain)
        expected = step(0, 0)
        expected[:, 19:21] = brightness
        expected = expected if is_upright else expected.transpose(1, 0, 2)
        np.testing.assert_array_equal(result, expected)


def test_sobel_is_the_length_of_the_slope_by_the_textbook(picture):
    result = features.sobel(picture, NO_CHANCE, gain=0.5)
    grey = colour.grayscale(picture, NO_CHANCE)[..., 0].astype(int)
    for row in range(1, 29):
        for column in range(1, 40):
            a, b, c = grey[row - 1, column - 1 : column + 2]
            d, _, e = grey[row, column - 1 : column + 2]
            f, g, h = grey[row + 1, column - 1 : column + 2]
            slope = math.hypot(c + 2 * e + h - a - 2 * d - f, f + 2 * g + h - a - 2 * b - c)
            expected = min(255, 0.5 * slope / 4)
            assert result[row, column].tolist() == pytest.approx([expected] * 3, abs=0.51)


@pytest.mark.parametrize("is_upright", [True, False])
def test_canny_draws_a_white_line_of_one_pixel_along_an_edge(is_upright):
    result = features.canny(step(50, 150, is_upright=is_upright), NO_CHANCE, threshold=300)
    lines = result if is_upright else result.transpose(1, 0, 2)
    assert set(np.unique(lines)) == {0, 255}
    is_line = (lines == 255).all(axis=2)
    assert (is_line.sum(axis=1) == 1).all()
    assert set(np.nonzero(is_line)[1].tolist()) <= {19, 20}


def test_canny_passes_over_an_edge_below_its_threshold():
    # A step of 100 has a steepness of 400.
    assert features.canny(step(50, 150), NO_CHANCE, threshold=399).any()
    assert not features.canny(step(50, 150), NO_CHANCE, threshold=401).any()


def test_canny_follows_an_edge_down_to_half_its_threshold():
    image = step(50, 150)
    image[20:, 20:] = 125  # a steepness of 300, joined to one of 400
    assert features.canny(image, NO_CHANCE, threshold=390)[30:].any()
    image[:20, 20:] = 125
    assert not features.canny(image, NO_CHANCE, threshold=390).any()


def test_emboss_adds_the_slope_towards_a_corner(picture):
    values = picture.astype(int)
    result = features.emboss(picture, NO_CHANCE, strength=0.5, corner=0)
    for row in range(1, 29):
        for column in range(1, 40):
            relief = 2 * values[row + 1, column + 1] - 2 * values[row - 1, column - 1]
            relief += values[row + 1, column] - values[row - 1, column]
            relief += values[row, column + 1] - values[row, column - 1]
            expected = (values[row, column] + 0.5 * relief).clip(0, 255)
            np.testing.assert_allclose(result[row, column], expected, atol=0.51)


def test_emboss_lights_a_block_from_one_corner_and_shades_the_other():
    image = np.full((30, 30, 3), 100, np.uint8)
    image[10:20, 10:20] = 140
    result = features.emboss(image, NO_CHANCE, strength=1, corner=0)
    assert result[9, 9, 0] > 100  # in front of the upper left corner the ground rises
    assert result[20, 20, 0] < 100
    assert (result[:8] == 100).all()
    assert (result[12:18, 12:18] == 140).all()


@pytest.mark.parametrize("corner", [1, 2, 3])
def test_a_corner_turns_the_light_by_quarters(picture, corner):
    turned = np.ascontiguousarray(np.rot90(picture, -corner))
    result = features.emboss(picture, NO_CHANCE, strength=1, corner=corner)
    expected = np.rot90(features.emboss(turned, NO_CHANCE, strength=1, corner=0), corner)
    np.testing.assert_array_equal(result, expected)
    assert (result != features.emboss(picture, NO_CHANCE, strength=1, corner=0)).any()


def test_erosion_is_the_smallest_value_of_the_square(picture):
    result = features.erosion(picture, NO_CHANCE, size=5 / 30)
    for row in range(30):
        for column in range(41):
            square = picture[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
            assert result[row, column].tolist() == square.min(axis=(0, 1)).tolist()


def test_gradient_is_dilation_minus_erosion(picture):
    dilated = proportion.dilation(picture, NO_CHANCE, size=0.1)
    eroded = features.erosion(picture, NO_CHANCE, size=0.1)
    result = features.gradient(picture, NO_CHANCE, size=0.1)
    np.testing.assert_array_equal(result, dilated - eroded)


def test_gradient_is_an_outline_as_bright_as_the_step():
    result = features.gradient(step(50, 110), NO_CHANCE, size=5 / 40)
    expected = step(0, 0)
    expected[:, 18:22] = 60
    np.testing.assert_array_equal(result, expected)


def test_an_adaptive_threshold_finds_strokes_that_no_single_threshold_would():
    image = np.zeros((60, 120, 3), np.uint8)
    image[:] = np.linspace(60, 220, 120)[np.newaxis, :, np.newaxis]
    is_stroke = np.zeros((60, 120), bool)
    is_stroke[10:50, 10:110:10] = True
    image[is_stroke] -= 40
    assert image[is_stroke].max() > image[~is_stroke].min()
    result = features.adaptive_threshold(image, NO_CHANCE, size=15 / 60, offset=10)
    np.testing.assert_array_equal(result, np.where(is_stroke, 0, 255)[..., np.newaxis].repeat(3, 2))


def test_an_adaptive_threshold_compares_with_the_mean_around(picture):
    grey = colour.grayscale(picture, NO_CHANCE)[..., 0].astype(int)
    result = features.adaptive_threshold(picture, NO_CHANCE, size=5 / 30, offset=20)
    for row in range(2, 28):
        for column in range(2, 39):
            mean = grey[row - 2 : row + 3, column - 2 : column + 3].mean()
            if abs(grey[row, column] - (mean - 20)) > 1:  # OpenCV rounds the mean
                assert result[row, column, 0] == (255 if grey[row, column] > mean - 20 else 0)
