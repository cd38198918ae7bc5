"""What each technique of proportion means, by hand-worked cases and plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.augmentations import proportion


@pytest.fixture(params=range(3), ids="seed{}".format)
def rng(request):
    return np.random.default_rng(request.param)


@pytest.fixture
def picture(rng):
    return rng.integers(0, 256, (30, 41, 3), np.uint8)


def numbered(height, width):
    """Each pixel tells its own place: (row, column, 7)."""
    image = np.full((height, width, 3), 7, np.uint8)
    image[..., 0], image[..., 1] = np.indices((height, width))
    return image


def dark(height=40, width=40):
    return np.full((height, width, 3), 30, np.uint8)


def test_a_crop_is_a_rectangle_of_the_picture_of_the_same_proportions(rng):
    image = numbered(100, 150)
    result = proportion.crop(image, rng, fraction=0.6)
    assert result.shape == (60, 90, 3)
    top, left, _ = result[0, 0]
    np.testing.assert_array_equal(result, image[top : top + 60, left : left + 90])


def test_a_crop_may_lie_anywhere_up_to_each_border():
    image, rng = numbered(4, 6), np.random.default_rng(0)
    corners = [proportion.crop(image, rng, fraction=0.5)[0, 0] for _ in range(300)]
    found = {(int(top), int(left)) for top, left, _ in corners}
    assert found == {(top, left) for top in range(3) for left in range(4)}


def test_a_crop_of_all_is_the_picture(picture, rng):
    np.testing.assert_array_equal(proportion.crop(picture, rng, fraction=1), picture)


def test_stretch_changes_width_and_height_by_their_own_factors(rng):
    image = numbered(40, 60)
    result = proportion.stretch(image, rng, width=1.5, height=0.5)
    assert result.shape == (20, 90, 3)
    # The middle of a new pixel lies at (n + 1/2) / factor of the old ones.
    columns = ((np.arange(90) + 0.5) / 1.5 - 0.5).clip(0, 59)
    rows = (np.arange(20) + 0.5) / 0.5 - 0.5
    np.testing.assert_allclose(result[..., 1], np.tile(columns, (20, 1)), atol=0.6)
    np.testing.assert_allclose(result[..., 0], np.tile(rows[:, np.newaxis], 90), atol=0.6)


def test_stretch_averages_where_pixels_become_one(picture, rng):
    result = proportion.stretch(picture[:, :40], rng, width=0.5, height=0.5)
    for row in range(15):
        for column in range(20):
            square = picture[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            np.testing.assert_allclose(result[row, column], square.mean(axis=(0, 1)), atol=0.51)


def test_flips_are_the_slices_that_run_backwards(picture, rng):
    np.testing.assert_array_equal(proportion.flip_horizontal(picture, rng), picture[:, ::-1])
    np.testing.assert_array_equal(proportion.flip_vertical(picture, rng), picture[::-1])
    np.testing.assert_array_equal(proportion.flip_both(picture, rng), picture[::-1, ::-1])


def test_padding_keeps_the_picture_inside_a_black_frame(rng):
    picture = rng.integers(1, 256, (30, 50, 3), np.uint8)
    result = proportion.padding(picture, rng, size=0.1)
    assert result.shape == (36, 56, 3)
    np.testing.assert_array_equal(result[3:-3, 3:-3], picture)
    assert np.count_nonzero(result) == picture.size


def test_dilation_is_the_largest_value_of_the_square(picture, rng):
    result = proportion.dilation(picture, rng, size=5 / 30)
    for row in range(30):
        for column in range(41):
            square = picture[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
            assert result[row, column].tolist() == square.max(axis=(0, 1)).tolist()


def test_opening_removes_a_small_bright_dot_and_keeps_a_large_one(rng):
    image = dark()
    image[20:31, 20:31] = 220
    clean = image.copy()
    image[5:8, 5:8] = 220
    np.testing.assert_array_equal(proportion.opening(image, rng, size=5 / 40), clean)


def test_closing_removes_a_small_dark_dot_and_keeps_a_large_one(rng):
    image = 255 - dark()
    image[20:31, 20:31] = 20
    clean = image.copy()
    image[5:8, 5:8] = 20
    np.testing.assert_array_equal(proportion.closing(image, rng, size=5 / 40), clean)


def test_opening_only_darkens_closing_only_lightens_and_twice_changes_nothing(picture, rng):
    opened = proportion.opening(picture, rng, size=0.1)
    closed = proportion.closing(picture, rng, size=0.1)
    assert (opened <= picture).all()
    assert (closed >= picture).all()
    assert (opened != closed).any()
    np.testing.assert_array_equal(proportion.opening(opened, rng, size=0.1), opened)
    np.testing.assert_array_equal(proportion.closing(closed, rng, size=0.1), closed)


@pytest.fixture
def two_areas(rng):
    """A slanting edge between a dark red and a light blue area, both shaded and a little noisy."""
    rows, columns = np.indices((80, 120))
    is_red = columns < 40 + rows // 4
    image = np.where(is_red[..., np.newaxis], (120, 30, 30), (150, 170, 220))
    shade = (rows // 4 + columns // 8)[..., np.newaxis]
    return (image + shade + rng.integers(-3, 4, image.shape)).clip(0, 255).astype(np.uint8)


def test_superpixels_are_few_patches_each_in_its_mean_colour(two_areas, rng):
    result = proportion.superpixels(two_areas, rng, size=0.25)
    colours, patches = np.unique(result.reshape(-1, 3), axis=0, return_inverse=True)
    expected = 80 * 120 / 20**2  # patches of 20 x 20
    assert expected * 0.7 <= len(colours) <= expected * 1.2
    for number, colour in enumerate(colours):
        inside = two_areas.reshape(-1, 3)[patches.ravel() == number]
        np.testing.assert_allclose(colour, inside.mean(axis=0), atol=0.51)


@pytest.mark.parametrize("size", [0.1, 0.15, 0.25])
def test_superpixels_follow_an_edge_that_squares_would_cut_across(two_areas, rng, size):
    result = proportion.superpixels(two_areas, rng, size=size)
    # A patch with both areas in it would be far from each. (Of squares 5 to 12 % are.)
    is_mixed = np.abs(result.astype(int) - two_areas).max(axis=2) > 30
    assert is_mixed.mean() < 0.002


def test_superpixels_of_a_pale_photo_do_not_hang_on_one_glaring_pixel(two_areas, rng):
    pale = (two_areas * 0.2 + 180).astype(np.uint8)
    glaring = pale.copy()
    glaring[0, 0] = (0, 0, 255)
    one, other = (proportion.superpixels(image, rng, size=0.25) for image in (pale, glaring))
    np.testing.assert_array_equal(one[40:, 40:], other[40:, 40:])


def test_larger_superpixels_are_fewer(two_areas, rng):
    numbers = [
        len(np.unique(proportion.superpixels(two_areas, rng, size=size).reshape(-1, 3), axis=0))
        for size in (0.1, 0.2, 0.5)
    ]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > 8 * numbers[2]
