"""Many pictures out of one photo: the same ones everywhere, no near copies, nothing lost."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pytest
from PIL import Image

from retrieval.augmentations.multiplying import (
    MAX_DRAWS,
    Method,
    encode_jpeg,
    reduced_picture,
)
from retrieval.augmentations.quality_filter import Guard, Verdict
from retrieval.augmentations.recipes import Apply, Recipe, Step, load_recipe
from retrieval.augmentations.registry import CATALOGUE, random_generator
from retrieval.augmentations.shares import Share, share_out, share_rest
from retrieval.drawn import draw_photo
from retrieval.errors import ImageError, UsageError


@functools.cache
def photo():
    return encoded(draw_photo(0, 0).resize((160, 120)))


def encoded(image, kind="JPEG", **settings):
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def recipe_of(*names, apply=Apply.ONE):
    return Recipe("test", apply, tuple(Step(CATALOGUE[name]) for name in names))


def method(recipe, seed=0, size=96):
    return Method(recipe, seed, size, 90)


def names(multiplied):
    return [(result.technique, result.copy) for result in multiplied.results]


def contents(multiplied):
    return [result.content for result in multiplied.results]


@pytest.mark.parametrize("num_techniques", [1, 2, 7, 35])
@pytest.mark.parametrize(("num_photos", "per_class"), [(1, 9), (3, 4), (15, 600), (7, 8), (4, 100)])
def test_a_class_is_shared_out_evenly_over_photos_and_techniques(
    num_photos, per_class, num_techniques
):
    shares = share_out(num_photos, per_class, num_techniques)
    counts = [share.count for share in shares]
    assert num_photos + sum(counts) == per_class
    assert counts == sorted(counts, reverse=True)  # the remainder goes to the first
    assert max(counts) - min(counts) <= 1
    used = Counter(range(num_techniques))
    for share in shares:
        used.update((share.first + turn) % num_techniques for turn in range(share.count))
    assert max(used.values()) - min(used.values()) <= 1


@pytest.mark.parametrize(("per_class", "num_techniques"), [(5, 3), (4, 3), (1, 3), (600, 0)])
def test_a_class_that_is_large_enough_or_a_recipe_of_nothing_asks_for_nothing(
    per_class, num_techniques
):
    shares = share_out(5, per_class, num_techniques)
    assert [share.count for share in shares] == [0] * 5


def test_what_photos_could_not_give_is_asked_of_those_that_never_failed():
    shares = [Share(0, 4), Share(4, 4), Share(1, 3), Share(4, 0)]
    later = share_rest(shares, [1, 4, 3, 0])
    assert [share.count for share in later] == [0, 1, 1, 1]
    assert [share.skip for share in later] == [1, 4, 3, 0]
    assert [share.is_dry for share in later] == [True, False, False, False]
    last = share_rest(later, [0, 0, 1, 1])
    assert [share.count for share in last] == [0, 0, 1, 0]
    assert [share.skip for share in last] == [1, 4, 4, 1]
    assert [share.is_dry for share in last] == [True, True, False, False]


@pytest.mark.parametrize("seed", range(20), ids="seed{}".format)
def test_sharing_again_and_again_ends_with_all_there_is_or_all_that_is_wanted(seed):
    rng = np.random.default_rng(seed)
    limits = rng.integers(0, 30, rng.integers(1, 9)).tolist()  # what each photo can give at most
    wanted = int(rng.integers(0, 120))
    shares = share_out(len(limits), len(limits) + wanted, 5)
    total = [0] * len(limits)
    for _ in range(len(limits) + 1):
        made = [
            min(share.count, limit - given)
            for share, limit, given in zip(shares, limits, total, strict=True)
        ]
        total = [a + b for a, b in zip(total, made, strict=True)]
        shares = share_rest(shares, made)
    assert not any(share.count for share in shares)
    assert sum(total) == min(wanted, sum(limits))


def test_a_photo_takes_the_techniques_in_turn_from_where_the_one_before_stopped():
    recipe = recipe_of("flip_horizontal", "crop", "invert", "padding")
    made = method(recipe).multiply(photo(), "a.jpg", Share(1, 5))
    assert names(made) == [
        ("crop", 1), ("invert", 1), ("padding", 1), ("flip_horizontal", 1), ("crop", 2),
    ]  # fmt: skip
    assert not made.dropped


def test_a_result_is_what_the_catalogue_makes_with_its_own_generator():
    recipe = Recipe("test", Apply.ONE, (Step(CATALOGUE["crop"], 1.0, {"fraction": (0.5, 0.6)}),))
    first, second = method(recipe, seed=7).multiply(photo(), "a/b.jpg", Share(0, 2)).results
    source = reduced_picture(photo(), 96)
    for copy, result in enumerate((first, second), start=1):
        rng = random_generator(7, "a/b.jpg", "crop", copy, 0)
        fraction = float(rng.uniform(0.5, 0.6))
        expected = CATALOGUE["crop"].apply(source, rng, {"fraction": fraction})
        assert json.loads(result.parameters) == {"fraction": fraction}
        assert result.content == encode_jpeg(expected, 90)


def test_results_do_not_depend_on_how_many_more_are_asked_for():
    paper = method(load_recipe("paper"))
    whole = paper.multiply(photo(), "a.jpg", Share(3, 60))
    begin = paper.multiply(photo(), "a.jpg", Share(3, 45))
    rest = paper.multiply(photo(), "a.jpg", Share(3, 15, skip=45))
    assert names(whole) == names(begin) + names(rest)
    assert contents(whole) == contents(begin) + contents(rest)
    assert Counter(whole.dropped) == Counter(begin.dropped) + Counter(rest.dropped)


def test_another_process_makes_the_same_bytes():
    code = (
        "import hashlib; from tests.retrieval.test_augmentations_multiplying import *\n"
        "made = method(load_recipe('paper')).multiply(photo(), 'a.jpg', Share(0, 36))\n"
        "print(hashlib.sha256(b''.join(contents(made))).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    made = method(load_recipe("paper")).multiply(photo(), "a.jpg", Share(0, 36))
    assert len(made.results) == 36
    assert done.stdout.strip() == hashlib.sha256(b"".join(contents(made))).hexdigest()


def test_seed_and_image_id_decide_what_is_drawn():
    recipe = recipe_of("crop")
    made = {
        (seed, image_id): method(recipe, seed).multiply(photo(), image_id, Share(0, 1)).results[0]
        for seed in (0, 1)
        for image_id in ("a.jpg", "b.jpg")
    }
    assert len({result.content for result in made.values()}) == 4


def test_a_copy_of_the_photo_or_of_a_result_before_is_dropped_counted_and_not_tried_for_ever():
    recipe = recipe_of("flip_horizontal", "flip_vertical", "flip_both")
    made = method(recipe).multiply(photo(), "a.jpg", Share(0, 10))
    assert names(made) == [("flip_horizontal", 1), ("flip_vertical", 1), ("flip_both", 1)]
    # Without parameters one draw tells; with some, several are given a chance.
    assert made.dropped == {(name, Verdict.NEAR_COPY): 1 for name, _ in names(made)}
    same = Recipe("test", Apply.ONE, (Step(CATALOGUE["contrast"], 1.0, {"factor": (1, 1.001)}),))
    nothing = method(same).multiply(photo(), "a.jpg", Share(0, 10))
    assert not nothing.results
    assert nothing.dropped == {("contrast", Verdict.NEAR_COPY): MAX_DRAWS}


def test_a_technique_that_fails_is_left_out_and_the_others_make_up_for_it():
    made = method(recipe_of("invert", "crop", "stretch")).multiply(photo(), "a.jpg", Share(0, 9))
    assert Counter(name for name, _ in names(made)) == {"invert": 1, "crop": 4, "stretch": 4}
    assert [copy for name, copy in names(made) if name == "crop"] == [1, 2, 3, 4]


def test_a_destroyed_picture_is_dropped():
    black = encoded(Image.new("RGB", (100, 100), (40, 90, 120)))
    made = method(recipe_of("canny", "invert")).multiply(black, "a.jpg", Share(0, 2))
    assert not made.results
    assert made.dropped == {
        ("canny", Verdict.DESTROYED): MAX_DRAWS,
        ("invert", Verdict.DESTROYED): 1,
    }


def test_among_the_results_of_a_photo_are_no_near_copies():
    made = method(load_recipe("paper")).multiply(photo(), "a.jpg", Share(0, 70))
    assert len(made.results) == 70
    source = reduced_picture(photo(), 96)
    guard = Guard(source)
    for result in made.results:
        picture = next(
            picture
            for picture in (drawn_again(source, result, draw) for draw in range(MAX_DRAWS))
            if encode_jpeg(picture, 90) == result.content
        )
        assert guard.verdict(picture) == Verdict.GOOD, result.technique
        guard.accept(picture)


def drawn_again(source, result, draw):
    rng = random_generator(0, "a.jpg", result.technique, result.copy, draw)
    technique = CATALOGUE[result.technique]
    return technique.apply(source, rng, technique.draw(rng))


def test_a_result_of_a_chain_is_the_whole_recipe_and_says_what_it_took():
    light = load_recipe("light")
    made = method(light).multiply(photo(), "a.jpg", Share(0, 12))
    assert names(made) == [("chain", number) for number in range(1, 13)]
    source = reduced_picture(photo(), 96)
    for result in made.results:
        drawn = [random_generator(0, "a.jpg", "chain", result.copy, draw) for draw in range(30)]
        pictures = [encode_jpeg(light.augment(source, rng), 90) for rng in drawn]
        assert result.content in pictures
        taken = json.loads(result.parameters)
        assert taken[0]["technique"] == "crop"  # the only one that is always taken
        assert 0.7 <= taken[0]["fraction"] <= 1
    assert len({result.parameters for result in made.results}) == 12


def test_the_recipe_of_nothing_makes_nothing():
    none = method(load_recipe("none"))
    assert none.num_techniques == 0
    assert not none.multiply(photo(), "a.jpg", Share(0, 0)).results


def test_a_photo_that_gives_nothing_is_not_even_decoded():
    assert not method(load_recipe("paper")).multiply(b"no photo", "a.jpg", Share(0, 0)).results
    with pytest.raises(ImageError):
        method(load_recipe("paper")).multiply(b"no photo", "a.jpg", Share(0, 1))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1000, 800), (100, 125)),  # height, width
        ((800, 1000), (125, 100)),
        ((90, 60), (60, 90)),  # never enlarged
        ((100, 100), (100, 100)),
        ((4000, 90), (9, 400)),  # a strip: four times as long as asked for
    ],
)
def test_a_photo_is_reduced_by_its_shorter_side(size, expected):
    for kind in ("JPEG", "PNG"):
        picture = reduced_picture(encoded(Image.new("RGB", size, "red"), kind), 100)
        assert picture.shape == (*expected, 3)
        assert picture.dtype == np.uint8


def test_reducing_averages_and_turns_the_photo_upright():
    stored = Image.new("RGB", (400, 200), "red")
    stored.paste("blue", (0, 0, 200, 200))
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored left side is the upper one
    picture = reduced_picture(encoded(stored, quality=95, exif=exif), 50)
    assert picture.shape == (100, 50, 3)
    assert np.abs(picture[10, 25].astype(int) - (0, 0, 255)).max() < 8
    assert np.abs(picture[90, 25].astype(int) - (255, 0, 0)).max() < 8
    lines = np.zeros((300, 300, 3), np.uint8)
    lines[:, ::2] = 255
    grey = reduced_picture(encoded(Image.fromarray(lines), "PNG"), 30)
    assert np.abs(grey.astype(int) - 127).max() <= 8


def test_a_result_is_a_jpeg_of_its_quality_in_its_colours():
    image = np.array(draw_photo(1, 1).resize((120, 90)))
    sizes = {}
    for quality in (30, 90):
        content = encode_jpeg(image, quality)
        sizes[quality] = len(content)
        decoded = np.array(Image.open(io.BytesIO(content)))
        error = np.abs(decoded.astype(int) - image).mean()
        assert error < (3 if quality == 90 else 8)
        assert Image.open(io.BytesIO(content)).format == "JPEG"
    assert sizes[30] < sizes[90] / 2
    with pytest.raises(UsageError, match=r"^a result of 70000 × 1 pixels: 65535 a side are the"):
        encode_jpeg(np.zeros((1, 70_000, 3), np.uint8), 90)


def test_the_plain_values_of_a_method_tell_what_changes_its_results():
    light, paper = load_recipe("light"), load_recipe("paper")
    methods = [
        Method(paper, 0, 256, 90), Method(paper, 1, 256, 90), Method(paper, 0, 255, 90),
        Method(paper, 0, 256, 91), Method(light, 0, 256, 90),
    ]  # fmt: skip
    assert len({json.dumps(each.to_json()) for each in methods}) == len(methods)
    renamed = Method(Recipe("other", paper.apply, paper.steps), 0, 256, 90)
    assert renamed.to_json() == methods[0].to_json()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (300, 2)])
def test_a_tiny_photo_stops_nothing(size):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    made = method(load_recipe("paper")).multiply(
        encoded(Image.fromarray(pixels), "PNG"), "a.png", Share(0, 40)
    )
    assert all(
        cv2.imdecode(np.frombuffer(each, np.uint8), 1) is not None for each in contents(made)
    )
