"""What holds for every technique, drawing parameters, and seeded generators."""

from __future__ import annotations

import inspect
import itertools
import pickle

import cv2
import numpy as np
import pytest

from retrieval.augmentations import CATALOGUE, Parameter, Technique, random_generator
from retrieval.augmentations.registry import GROUPS
from retrieval.errors import UsageError

NAMES = {
    "noise": [
        "gaussian_noise", "salt", "pepper", "salt_and_pepper", "average_blur", "median_blur",
        "gaussian_blur", "bilateral_blur", "black_hat", "top_hat",
    ],
    "colour": [
        "saturation", "hue", "contrast", "lighten", "darken", "sharpen", "grayscale", "invert",
        "channel_gain",
    ],
    "proportion": [
        "crop", "stretch", "flip_horizontal", "flip_vertical", "flip_both", "padding", "dilation",
        "opening", "closing", "superpixels",
    ],
    "features": ["sobel", "canny", "emboss", "erosion", "gradient", "adaptive_threshold"],
}  # fmt: skip
every_technique = pytest.mark.parametrize("technique", CATALOGUE.values(), ids=CATALOGUE)


def picture(height, width):
    """Soft shapes, faint blocks and a little noise, in all colours."""
    rng = np.random.default_rng(height * 1000 + width)
    soft = cv2.resize(rng.integers(0, 170, (5, 6, 3), np.uint8), (width, height))
    blocks = cv2.resize(
        rng.integers(0, 80, (8, 9, 3), np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
    )
    return (soft + blocks + rng.normal(0, 3, soft.shape)).clip(0, 255).astype(np.uint8)


def make(technique, image, seed=0):
    rng = np.random.default_rng(seed)
    return technique.apply(image, rng, technique.draw(rng))


def test_the_catalogue_is_complete_and_in_its_order():
    assert tuple(NAMES) == GROUPS
    found = [(each.group, each.name) for each in CATALOGUE.values()]
    assert found == [(group, name) for group, names in NAMES.items() for name in names]
    assert list(CATALOGUE) == [name for _, name in found]


@every_technique
def test_a_technique_is_named_after_its_function_and_knows_its_parameters(technique):
    assert technique.function.__name__ == technique.name
    assert technique.function.__module__ == f"retrieval.augmentations.{technique.group}"
    signature = inspect.signature(technique.function)
    assert list(signature.parameters) == ["image", "rng", *technique.parameters]


@every_technique
def test_default_ranges_lie_inside_the_allowed_ones(technique):
    assert not {"technique", "probability"} & set(technique.parameters)  # keys of recipe files
    for value in technique.parameters.values():
        assert value.minimum <= value.low < value.high <= value.maximum
        assert value.unit


@every_technique
def test_the_input_stays_and_the_result_is_a_picture_of_its_own(technique):
    image = picture(60, 80)
    before = image.copy()
    image.flags.writeable = False
    result = make(technique, image)
    np.testing.assert_array_equal(image, before)
    assert result.dtype == np.uint8
    assert result.ndim == 3
    assert result.shape[2] == 3
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert not np.shares_memory(result, image)
    assert result.shape != image.shape or (result != image).any()


@every_technique
def test_the_result_hangs_on_the_generator_alone(technique):
    image = picture(256, 300)
    first = make(technique, image)
    np.testing.assert_array_equal(make(technique, image), first)
    others = [make(technique, image, seed) for seed in (1, 2, 3)]  # two sizes may round to one
    is_same = all(np.array_equal(other, first) for other in others)
    assert is_same == (not technique.parameters)


@every_technique
def test_the_result_does_not_hang_on_threads_or_on_the_layout_in_memory(technique):
    image = picture(300, 400)  # large enough for OpenCV to share the work
    expected = make(technique, image)
    for num_threads in (1, 4):
        before = cv2.getNumThreads()
        cv2.setNumThreads(num_threads)
        try:
            np.testing.assert_array_equal(make(technique, image), expected)
        finally:
            cv2.setNumThreads(before)
    np.testing.assert_array_equal(make(technique, np.asfortranarray(image)), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3), (3, 500)], ids=str)
@every_technique
def test_any_size_will_do_at_any_parameters_that_are_allowed(technique, size):
    image = picture(*size)
    ranges = [(each.minimum, each.low, each.maximum) for each in technique.parameters.values()]
    for values in itertools.product(*ranges):
        rng = np.random.default_rng(0)
        result = technique.apply(image, rng, dict(zip(technique.parameters, values, strict=True)))
        assert result.dtype == np.uint8
        assert result.shape[2] == 3
        assert min(result.shape) >= 1
        if technique.name not in ("crop", "stretch", "padding"):
            assert result.shape == image.shape


@every_technique
def test_drawn_parameters_lie_in_their_ranges_and_all_over_them(technique):
    rng = np.random.default_rng(0)
    draws = [technique.draw(rng) for _ in range(300)]
    for name, value in technique.parameters.items():
        drawn = [each[name] for each in draws]
        assert value.low <= min(drawn) <= value.low + 0.02 * (value.high - value.low)
        assert value.high >= max(drawn) >= value.high - 0.02 * (value.high - value.low)
        assert np.mean(drawn) == pytest.approx((value.low + value.high) / 2, rel=0.1)
        if value.is_whole:
            assert set(drawn) == set(range(value.low, value.high + 1))


def test_given_ranges_come_before_the_default_ones():
    technique, rng = CATALOGUE["channel_gain"], np.random.default_rng(0)
    for _ in range(50):
        drawn = technique.draw(rng, {"green": (0.1, 0.2), "blue": (2, 2)})
        assert list(drawn) == ["red", "green", "blue"]
        assert 0.6 <= drawn["red"] <= 1.4
        assert 0.1 <= drawn["green"] <= 0.2
        assert drawn["blue"] == 2


def test_one_given_range_does_not_change_what_else_is_drawn():
    technique = CATALOGUE["channel_gain"]
    default = technique.draw(np.random.default_rng(0))
    given = technique.draw(np.random.default_rng(0), {"red": (2, 2)})
    assert given == {**default, "red": 2}


def test_resolved_ranges_are_given_or_default_and_always_floats():
    resolved = CATALOGUE["channel_gain"].resolve({"blue": (1, 2)})
    assert resolved == {"red": (0.6, 1.4), "green": (0.6, 1.4), "blue": (1.0, 2.0)}
    assert {type(end) for ends in resolved.values() for end in ends} == {float}


@pytest.mark.parametrize(
    ("name", "ranges", "message"),
    [
        ("crop", {"size": (1, 1)}, "crop: no parameter 'size'. It has: fraction."),
        ("invert", {"a": (1, 1)}, "invert: no parameter 'a'. It has: none: leave it out."),
        (
            "crop",
            {"fraction": (0.8, 0.5)},
            "crop: fraction from 0.8 to 0.5; needed is a range inside 0.05 to 1 (of each side), "
            "lower end first.",
        ),
        (
            "hue",
            {"shift": (-400, 0)},
            "hue: shift from -400 to 0; needed is a range inside -360 to 360 (degrees), "
            "lower end first.",
        ),
        (
            "salt",
            {"amount": (0.5, float("nan"))},
            "salt: amount from 0.5 to nan; needed is a range inside 0 to 1 (of the pixels), "
            "lower end first.",
        ),
        (
            "emboss",
            {"corner": (0, 1.5)},
            "emboss: corner from 0 to 1.5; needed are whole numbers (quarter turns).",
        ),
    ],
)
def test_a_range_that_is_not_allowed_is_refused(name, ranges, message):
    for act in (CATALOGUE[name].resolve, lambda it: CATALOGUE[name].draw(None, it)):
        with pytest.raises(UsageError) as caught:
            act(ranges)
        assert str(caught.value) == message


def test_a_drawn_value_never_lies_beyond_its_range_by_rounding():
    class Last:  # a generator that draws as much as rounding can make of it
        def uniform(self, low, high):
            return np.nextafter(high, np.inf)

    assert Parameter(0, 1, 0, 1, "").draw(Last(), 0.1, 0.7) == 0.7


def test_techniques_travel_to_other_processes():
    for technique in CATALOGUE.values():
        again = pickle.loads(pickle.dumps(technique))
        assert isinstance(again, Technique)
        assert again == technique


def test_a_generator_is_the_same_on_every_machine():
    drawn = random_generator(7, "a/b.jpg", "crop", 3).integers(0, 1000, 6).tolist()
    assert drawn == [74, 955, 812, 127, 105, 946]
    assert random_generator(7, "café.jpg").integers(0, 1000) == 896


def test_generators_of_different_names_draw_differently():
    uses = [
        (0, "a"),
        (1, "a"),
        (0, "b"),
        (0, "a", "x"),
        (0, "a", "x", 1),
        (0, "a", "x1"),
        (0, "ax"),
    ]
    uses += [(0, "a", '", "b'), (0, 'a", "b'), (0, "a", "", ""), (0, "a", "")]
    firsts = {int(random_generator(*use).integers(0, 2**62)) for use in uses}
    assert len(firsts) == len(uses)


def test_a_generator_takes_numbers_of_numpy_and_names_that_are_no_utf8():
    first = random_generator(np.int64(7), "a", np.int32(3)).integers(0, 2**62)
    assert first == random_generator(7, "a", 3).integers(0, 2**62)
    random_generator(0, "\udcff")
