"""What each technique of noise means, by hand-worked cases and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from retrieval.augmentations import noise
from retrieval.augmentations.sizes import kernel_side, square_kernel


@pytest.fixture(params=range(3), ids="seed{}".format)
def rng(request):
    return np.random.default_rng(request.param)


@pytest.fixture
def picture(rng):
    """Neither black nor white anywhere, so that specks of both can be told."""
    return rng.integers(10, 240, (60, 90, 3), np.uint8)


def flat(level, height=9, width=9):
    return np.full((height, width, 3), level, np.uint8)


def windows(image, side):
    """Every square of an odd side that lies inside: (row, column, its values)."""
    half = side // 2
    for row in range(half, image.shape[0] - half):
        for column in range(half, image.shape[1] - half):
            yield row, column, image[row - half : row + half + 1, column - half : column + half + 1]


@pytest.mark.parametrize("size", [0, 0.01, 0.02, 0.045, 0.1, 0.5])
@pytest.mark.parametrize("shorter", [1, 3, 100, 255, 256, 1024])
def test_a_kernel_has_the_odd_side_of_3_or_more_that_is_nearest(shorter, size):
    image = np.zeros((shorter, shorter + 7, 3), np.uint8)
    distances = {side: abs(side - size * shorter) for side in range(3, 1025, 2)}
    side = kernel_side(image, size)
    assert distances[side] == min(distances.values())
    kernel = square_kernel(image, size)
    assert kernel.shape == (side, side)
    assert (kernel == 1).all()


def test_gaussian_noise_has_the_mean_and_the_deviation_that_were_asked_for(rng):
    noisy = noise.gaussian_noise(flat(128, 200, 200), rng, sigma=20).astype(np.float64)
    assert noisy.mean() == pytest.approx(128, abs=0.3)
    assert noisy.std() == pytest.approx(20, abs=0.2)


def test_gaussian_noise_is_drawn_for_each_channel_by_itself(rng):
    noisy = noise.gaussian_noise(flat(128, 200, 200), rng, sigma=20).reshape(-1, 3)
    assert np.abs(np.corrcoef(noisy.T) - np.eye(3)).max() < 0.03


def test_gaussian_noise_is_cut_off_at_white_and_never_wraps_around(rng):
    noisy = noise.gaussian_noise(flat(255, 100, 100), rng, sigma=10)
    assert noisy.min() > 255 - 6 * 10
    assert (noisy == 255).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("technique", "level"), [(noise.salt, 255), (noise.pepper, 0)])
def test_specks_are_whole_pixels_and_the_rest_is_left_alone(technique, level, picture, rng):
    result = technique(picture, rng, amount=0.1)
    is_speck = (result != picture).any(axis=2)
    assert (result[is_speck] == level).all()
    assert is_speck.mean() == pytest.approx(0.1, abs=4 * math.sqrt(0.1 * 0.9 / is_speck.size))


def test_salt_and_pepper_are_equally_many_and_together_the_amount(rng):
    picture = flat(90, 100, 100)
    result = noise.salt_and_pepper(picture, rng, amount=0.2)
    white, black = (result == 255).all(axis=2), (result == 0).all(axis=2)
    assert ((result == picture).all(axis=2) | white | black).all()
    assert white.mean() == pytest.approx(0.1, abs=0.015)
    assert black.mean() == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize(("technique", "level"), [(noise.salt, 255), (noise.pepper, 0)])
def test_an_amount_of_1_is_every_pixel(technique, level, picture, rng):
    assert (technique(picture, rng, amount=1) == level).all()


def test_an_average_blur_makes_a_box_of_a_point():
    image = flat(0)
    image[4, 4] = (90, 45, 9)
    result = noise.average_blur(image, np.random.default_rng(0), size=1 / 3)
    expected = flat(0)
    expected[3:6, 3:6] = (10, 5, 1)
    np.testing.assert_array_equal(result, expected)


def test_an_average_blur_is_the_mean_of_the_square(picture, rng):
    result = noise.average_blur(picture, rng, size=5 / 60)
    for row, column, square in windows(picture, 5):
        np.testing.assert_allclose(result[row, column], square.mean(axis=(0, 1)), atol=0.51)


def test_a_median_blur_is_the_median_of_the_square(picture, rng):
    result = noise.median_blur(picture, rng, size=5 / 60)
    for row, column, square in windows(picture, 5):
        np.testing.assert_array_equal(result[row, column], np.median(square, axis=(0, 1)))


def test_a_median_blur_removes_a_lone_speck_and_keeps_an_edge():
    image = flat(40)
    image[:, 5:] = 200
    clean = image.copy()
    image[2, 2] = 255
    np.testing.assert_array_equal(
        noise.median_blur(image, np.random.default_rng(0), size=1 / 3), clean
    )


def test_a_gaussian_blur_makes_a_bell_of_a_line():
    image = flat(0, 40, 41)
    image[:, 20] = 250
    result = noise.gaussian_blur(image, np.random.default_rng(0), sigma=3 / 40)
    bell = [math.exp(-((column - 20) ** 2) / (2 * 3**2)) for column in range(41)]
    np.testing.assert_allclose(result[7, :, 1], 250 * np.array(bell) / sum(bell), atol=1)
    assert (result == result[:1]).all()


@pytest.mark.parametrize(
    ("technique", "parameters"),
    [
        (noise.average_blur, {"size": 0.2}),
        (noise.median_blur, {"size": 0.2}),
        (noise.gaussian_blur, {"sigma": 0.1}),
        (noise.bilateral_blur, {"size": 0.2, "sigma_colour": 80}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_blur_of_one_colour_is_that_colour(technique, parameters, rng):
    np.testing.assert_array_equal(technique(flat(77, 20, 30), rng, **parameters), flat(77, 20, 30))


def test_a_bilateral_blur_smooths_an_area_and_keeps_the_edge_beside_it(rng):
    image = flat(60, 60, 60)
    image[:, 30:] = 200
    noisy = (image + rng.integers(-10, 11, image.shape)).astype(np.uint8)
    result = noise.bilateral_blur(noisy, rng, size=0.12, sigma_colour=40)
    assert result[:, :25].std() < noisy[:, :25].std() / 2
    plain = noise.gaussian_blur(noisy, rng, sigma=0.12)
    for side in (slice(28, 30), slice(30, 32)):
        assert abs(result[:, side].mean() - image[:, side].mean()) < 5
        assert abs(plain[:, side].mean() - image[:, side].mean()) > 30


@pytest.mark.parametrize(
    ("technique", "line", "block"), [(noise.black_hat, 90, 60), (noise.top_hat, 130, 160)]
)
def test_a_hat_shows_narrow_details_of_its_side_and_nothing_wider(technique, line, block):
    image = flat(110, 50, 70)
    image[:, 10:12] = line
    image[20:45, 20:45] = block
    image[:, 60] = 220 - line  # narrow, but of the other side
    result = technique(image, np.random.default_rng(0), size=0.1)
    expected = flat(0, 50, 70)
    expected[:, 10:12] = 255  # by 20 levels darker or brighter: the largest difference there is
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("technique", [noise.black_hat, noise.top_hat])
def test_a_hat_of_one_colour_is_black(technique, rng):
    np.testing.assert_array_equal(technique(flat(77, 20, 30), rng, size=0.2), flat(0, 20, 30))


def test_a_hat_brightens_all_differences_by_one_factor():
    image = flat(200, 50, 60)
    image[:, 10] = 150
    image[:, 30] = 180
    result = noise.black_hat(image, np.random.default_rng(0), size=0.1)
    assert set(result[:, 10].ravel().tolist()) == {255}
    assert set(result[:, 30].ravel().tolist()) == {20 * 255 // 50}
