"""By its name a result of augmentation tells its photo, whatever other tools have made of both."""

from __future__ import annotations

import pytest

from retrieval.augmentations.registry import CATALOGUE
from retrieval.augmentations.result_names import photo_of, result_name, source_of


@pytest.mark.parametrize("technique", [*CATALOGUE, "chain"])
def test_the_name_of_each_technique_tells_its_photo(technique):
    name = result_name("a/0.jpg", technique, 12)
    assert source_of(name) == "a/0.jpg"
    assert photo_of([name, "a/0.jpg"], ["a", "a"]) == ["a/0.jpg", None]


@pytest.mark.parametrize(
    "name",
    [
        "a/0.jpg.chain-1.jpg",
        "a/0.JPG.CHAIN-1.JPG",
        "A/0.jpg.chain-1.jpg",
        "a/0.jpg.chain-1.png",
        "a/0.jpg.chain-1.jpg.webp",
        "a/0.jpg.chain-1",
        "a/0.jpg.chain-1 (2).jpg",
        "a/0.jpg.chain-1(2).jpg",
        "a/0.jpg.chain-1.jpg.invert-3.jpg",
        "elsewhere/a/0.jpg.chain-1.jpg",
    ],
)
def test_names_that_other_tools_have_changed(name):
    ids = [name, "b/0.jpg", "a/0.jpg", "a/1.jpg"]
    assert photo_of(ids, ["a", "b", "a", "a"]) == ["a/0.jpg", None, None, None]
    # Where the photo is not there all its results are of one.
    ids = [name, "a/0.jpg.crop-7.jpg", "b/0.jpg"]
    first, second, _ = photo_of(ids, ["a", "a", "b"])
    assert first is not None
    assert first == second or name.startswith("elsewhere")


@pytest.mark.parametrize(
    "name",
    ["a/0.jpg", "a/0.jpg.jpg", "a/house.crop-1.jpg", "a/crop-1.jpg", "a/0.jpg.nothing-1.jpg",
     "a/0.jpg.crop-.jpg", "a/0.jpg.crop1.jpg", "a/.crop-1.jpg"],
)  # fmt: skip
def test_a_photo_may_be_called_otherwise(name):
    assert photo_of([name], ["a"]) == [None]


def test_a_photo_with_the_name_of_a_technique_has_results_too():
    ids = ["a/house.crop-1.jpg", "a/house.crop-1.jpg.chain-2.jpg", "a/x", "a/x.crop-1.jpg"]
    assert photo_of(ids, ["a"] * 4) == [None, "a/house.crop-1.jpg", None, "a/x"]


def test_a_photo_of_another_class_is_another_one_though_it_is_called_alike():
    ids = ["p/0.jpg", "q/0.jpg.crop-1.jpg"]
    assert photo_of(ids, ["a", "a"]) == [None, "p/0.jpg"]
    assert photo_of(ids, ["a", "b"]) == [None, "q/0.jpg"]


def test_which_photo_it_is_is_not_guessed():
    ids = ["p/0.jpg", "q/0.jpg", "r/0.jpg.chain-1.jpg", "r/0.jpg.crop-2.jpg", "s/0.jpg.crop-1.jpg"]
    found = photo_of(ids, ["a", "a", "a", "a", "b"])
    assert found == [None, None, "r/0.jpg", "r/0.jpg", "s/0.jpg"]
