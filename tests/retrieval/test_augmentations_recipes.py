"""Recipes: the built-in ones, and what a recipe does with a photo."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest

from retrieval.augmentations import CATALOGUE, RECIPES, Apply, Recipe, Step, Technique, load_recipe
from retrieval.errors import UsageError


def digit(number):
    """A technique that writes one more digit: 0, then 2, then 3 gives 23."""

    def function(image, rng):
        return image * 10 + number

    return Step(Technique(f"digit_{number}", "noise", function, {}, keeps_label=True))


def number_of(image):
    return int(image[0, 0, 0])


ZERO = np.zeros((1, 1, 3), np.uint8)


def test_paper_is_each_technique_of_the_catalogue_by_itself():
    recipe = load_recipe("paper")
    assert recipe.apply == Apply.ONE
    assert [step.technique for step in recipe.steps] == list(CATALOGUE.values())
    assert [step.ranges for step in recipe.steps] == [{}] * len(CATALOGUE)


def test_light_is_a_chain_of_mild_techniques_that_keep_the_label():
    recipe = load_recipe("light")
    assert recipe.apply == Apply.CHAIN
    assert all(step.technique.keeps_label for step in recipe.steps)
    chances = {step.technique.name: step.probability for step in recipe.steps}
    assert chances["crop"] == 1
    assert chances["flip_horizontal"] == 0.5
    assert chances["grayscale"] < 0.1
    assert set(step.technique.name for step in recipe.steps if step.technique.parameters) == {
        step.technique.name for step in recipe.steps if step.ranges
    }


def test_none_is_the_photo_itself():
    image, rng = np.ones((2, 2, 3), np.uint8), np.random.default_rng(0)
    assert load_recipe("none").augment(image, rng) is image
    assert rng.random() == np.random.default_rng(0).random()


def test_one_gives_each_step_and_the_photo_itself_equally_often():
    recipe, rng = (
        Recipe("mine", Apply.ONE, (digit(1), digit(2), digit(3))),
        np.random.default_rng(0),
    )
    counts = Counter(number_of(recipe.augment(ZERO, rng)) for _ in range(4000))
    assert set(counts) == {0, 1, 2, 3}
    assert min(counts.values()) > 900


def test_a_chain_takes_its_steps_in_order_and_each_with_its_probability():
    steps = (digit(1), Step(digit(2).technique, 0.25), Step(digit(3).technique, 0.5))
    recipe, rng = Recipe("mine", Apply.CHAIN, steps), np.random.default_rng(0)
    counts = Counter(number_of(recipe.augment(ZERO, rng)) for _ in range(4000))
    assert set(counts) == {1, 12, 13, 123}
    expected = {1: 0.375, 12: 0.125, 13: 0.375, 123: 0.125}
    assert all(abs(counts[each] / 4000 - share) < 0.03 for each, share in expected.items())


@pytest.mark.parametrize("name", RECIPES)
def test_augmenting_hangs_on_the_generator_alone_and_leaves_the_photo(name):
    photo = np.random.default_rng(5).integers(0, 256, (40, 50, 3), np.uint8)
    photo.flags.writeable = False
    recipe = RECIPES[name]
    results = [recipe.augment(photo, np.random.default_rng(seed)) for seed in range(20)]
    again = [recipe.augment(photo, np.random.default_rng(seed)) for seed in range(20)]
    assert all(map(np.array_equal, results, again))
    assert len({result.tobytes() for result in results}) > (0 if name == "none" else 12)


def test_recipes_travel_to_other_processes():
    for recipe in RECIPES.values():
        assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_a_recipe_that_contradicts_itself_is_refused():
    with pytest.raises(UsageError) as caught:
        Recipe("mine", Apply.CHAIN, ())
    needed = "'one' and 'chain' need at least 1, 'none' needs 0."
    assert str(caught.value) == f"mine: apply 'chain' with 0 techniques; {needed}"
    with pytest.raises(UsageError) as caught:
        Recipe("mine", Apply.NONE, (digit(1),))
    assert str(caught.value) == f"mine: apply 'none' with 1 techniques; {needed}"
