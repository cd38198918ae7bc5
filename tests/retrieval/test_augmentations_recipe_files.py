"""Recipe files: what they may say, and every way they can be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from retrieval.augmentations import CATALOGUE, RECIPES, Apply, Recipe, Step, load_recipe
from retrieval.augmentations.recipes import MAX_FILE_BYTES
from retrieval.errors import UsageError
from retrieval.storage import write_bytes

FILE = """\
apply: chain
techniques:
  - technique: crop
    probability: 1
    fraction: [0.6, 1.0]
  - technique: channel_gain
    probability: 0.25
    red: 1.2
  - technique: flip_horizontal
"""
KNOWN = ", ".join(CATALOGUE)
ONE_HUE = "apply: one\ntechniques: [{technique: hue%s}]"
WHERE = "{path}, technique 1"


@pytest.fixture
def file(tmp_path):
    """Write a recipe and get its path."""

    def write(content):
        path = tmp_path / "recipe.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def test_a_file_gives_its_steps(file):
    path = file(FILE)
    recipe = load_recipe(path)
    assert recipe == Recipe(
        path,
        Apply.CHAIN,
        (
            Step(CATALOGUE["crop"], 1, {"fraction": (0.6, 1)}),
            Step(CATALOGUE["channel_gain"], 0.25, {"red": (1.2, 1.2)}),
            Step(CATALOGUE["flip_horizontal"], 1, {}),
        ),
    )


def test_a_step_draws_from_its_own_ranges(file):
    recipe = load_recipe(file("apply: one\ntechniques: [{technique: padding, size: 0.5}]"))
    shapes = {
        recipe.augment(np.zeros((10, 1, 3), np.uint8), np.random.default_rng(n)).shape
        for n in range(9)
    }
    assert shapes == {(10, 1, 3), (12, 3, 3)}


def test_a_file_may_lie_in_a_bucket(s3):
    write_bytes(f"{s3}/recipes/mine.yaml", FILE.encode())
    assert load_recipe(f"{s3}/recipes/mine.yaml").name == f"{s3}/recipes/mine.yaml"
    with pytest.raises(UsageError, match=r"^s3://.*/other\.yaml: no such file\. Use paper"):
        load_recipe(f"{s3}/recipes/other.yaml")


def test_a_path_is_shown_in_full_and_a_file_may_be_named_like_a_built_in_recipe(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("light").write_text(FILE)
    assert load_recipe("light") is RECIPES["light"]
    assert load_recipe("./light").name == str(tmp_path / "light")
    assert len(load_recipe("./light").steps) == 3


def test_the_json_says_all_that_decides_the_results(file):
    recipe = load_recipe(file("\ufeff" + FILE))
    assert recipe.to_json() == {
        "augmentation_version": 1,
        "apply": "chain",
        "steps": [
            {"technique": "crop", "probability": 1.0, "ranges": {"fraction": [0.6, 1.0]}},
            {
                "technique": "channel_gain",
                "probability": 0.25,
                "ranges": {"red": [1.2, 1.2], "green": [0.6, 1.4], "blue": [0.6, 1.4]},
            },
            {"technique": "flip_horizontal", "probability": 1.0, "ranges": {}},
        ],
    }


def test_the_json_is_the_same_however_the_same_is_written(file):
    short = load_recipe(file("apply: one\ntechniques: [{technique: hue}]")).to_json()
    full = "apply: one\ntechniques: [{probability: 1, shift: [30, 330.0], technique: hue}]"
    assert load_recipe(file(full)).to_json() == short
    other = "apply: one\ntechniques: [{technique: hue, shift: [30, 329]}]"
    assert load_recipe(file(other)).to_json() != short


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "{path}: holds None; needed are the keys apply and techniques."),
        ("just words", "{path}: holds 'just words'; needed are the keys apply and techniques."),
        (
            "apply: one",
            "{path}: has the keys ['apply']; needed are apply and techniques.",
        ),
        (
            "apply: one\ntechniques: []\nname: x",
            "{path}: has the keys ['apply', 'techniques', 'name']; "
            "needed are apply and techniques.",
        ),
        ("apply: all\ntechniques: []", "{path}: apply is 'all'; needed is 'one' or 'chain'."),
        ("apply: [one]\ntechniques: []", "{path}: apply is ['one']; needed is 'one' or 'chain'."),
        (
            "apply: one\ntechniques: []",
            "{path}: techniques is []; needed is a list of at least 1.",
        ),
        (
            "apply: one\ntechniques: {technique: hue}",
            "{path}: techniques is {{'technique': 'hue'}}; needed is a list of at least 1.",
        ),
        (
            "apply: one\ntechniques: [hue]",
            WHERE + ": is 'hue'; needed is a mapping with the key technique.",
        ),
        (
            "apply: one\ntechniques: [{technique: hue}, {shift: 3}]",
            "{path}, technique 2: is {{'shift': 3}}; needed is a mapping with the key technique.",
        ),
        (
            "apply: one\ntechniques: [{technique: sobell}]",
            WHERE + ": 'sobell' is not in the catalogue. Nearest is sobel.",
        ),
        (
            "apply: one\ntechniques: [{technique: vignette}]",
            WHERE + f": 'vignette' is not in the catalogue. It has {KNOWN}.",
        ),
        (
            "apply: one\ntechniques: [{technique: [hue]}]",
            WHERE + f": ['hue'] is not in the catalogue. It has {KNOWN}.",
        ),
        (
            ONE_HUE % ", probability: 0.5",
            "{path}: probability 0.5 of hue; with apply 'one' all are equally likely. "
            "Leave it out, or use 'chain'.",
        ),
        *(
            (
                ONE_HUE % f", probability: {value}",
                WHERE + f": hue: probability {shown}; needed is a number above 0, at most 1. "
                "Leave the technique out to never have it.",
            )
            for value, shown in ((0, "0"), (-0.5, "-0.5"), (1.5, "1.5"))
        ),
        *(
            (
                ONE_HUE % f", probability: {value}",
                WHERE + f": probability is {shown}; needed is a number.",
            )
            for value, shown in (
                ("often", "'often'"), ("yes", "True"), (".nan", "nan"), (".inf", "inf"),
                ("[0.5]", "[0.5]"), ("", "None"),
            )
        ),
        *(
            (
                ONE_HUE % f", shift: {value}",
                WHERE + f", 'shift': is {shown}; needed is a number or two of them, "
                "as in [0.6, 1.0].",
            )
            for value, shown in (
                ("wide", "'wide'"), ("[1]", "[1]"), ("[1, 2, 3]", "[1, 2, 3]"), ("[]", "[]"),
                ("[1, no]", "[1, False]"), ("[1, .nan]", "[1, nan]"), ("-.inf", "-inf"),
                ("{low: 1}", "{{'low': 1}}"), ("2001-01-01", "datetime.date(2001, 1, 1)"),
                ("0x1" + 300 * "0", "172184794563857506...5913511141036261376"),
            )
        ),
        (ONE_HUE % ", angle: 3", WHERE + ": hue: no parameter 'angle'. It has: shift."),
        (ONE_HUE % ", 5: 3", WHERE + ": hue: no parameter '5'. It has: shift."),
        (
            ONE_HUE % ", shift: [90, 30]",
            WHERE + ": hue: shift from 90 to 30; needed is a range inside -360 to 360 (degrees), "
            "lower end first.",
        ),
        (
            ONE_HUE % ", shift: 400",
            WHERE + ": hue: shift from 400 to 400; needed is a range inside -360 to 360 (degrees), "
            "lower end first.",
        ),
        (
            "apply: one\ntechniques: [{technique: emboss, corner: 0.5}]",
            WHERE + ": emboss: corner from 0.5 to 0.5; needed are whole numbers (quarter turns).",
        ),
        (b"apply: caf\xe9", "{path}: byte 10 is not UTF-8; needed is a file of YAML in UTF-8."),
        (
            "apply: one\ntechniques:\n  - technique: hue\n shift: 3",
            "{path}: is not YAML (line 4: expected <block end>, but found "
            "'<block mapping start>').",
        ),
        ("a: b\0", "{path}: is not YAML (unacceptable character #x0000: special characters are "
         "not allowed)."),
        ("a: !!python/name:os.system", "{path}: is not YAML (line 1: could not determine a "
         "constructor for the tag 'tag:yaml.org,2002:python/name:os.system')."),
        ("a: !!bool maybe", "{path}: is not YAML ('maybe')."),
        ("a: 1\n---\nb: 2", "{path}: is not YAML (line 2: but found another document)."),
        (
            "apply: one\napply: chain",
            "{path}: the key 'apply' stands twice in one place. Write each once, and in full.",
        ),
        (
            ONE_HUE % ", shift: 1, shift: 2",
            "{path}: the key 'shift' stands twice in one place. Write each once, and in full.",
        ),
        (
            "apply: &a one\ntechniques: [*a]",
            "{path}: an alias (*name) is used. Write each once, and in full.",
        ),
        (
            b" " * (MAX_FILE_BYTES + 1),
            "{path}: more than 1048576 bytes; a recipe has a few hundred.",
        ),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_one_line(file, content, message):
    path = file(content)
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert str(caught.value) == message.format(path=path)


@pytest.mark.parametrize(
    "content",
    [
        "[" * 20_000,
        "{a: " * 50_000,
        "a: " + "9" * 5000,
        "0x" + "f" * 100_000 + ": 1",
        ONE_HUE % (", shift: 0x" + "f" * 100_000),
        ONE_HUE % (", " + "x" * 1000 + ": 3"),
        "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{n - 1}, *{n - 1}]\n" for n in range(1, 99)),
        "a: &a [*a]",
        "".join(f"{n}: 1\n" for n in range(5000)),
        "- !!timestamp x",
        "- !!int ''",
        "- !!binary '*'",
        "%YAML 9.9\n--- x",
        "apply: one\ntechniques: [{technique: " + "hue" * 10_000 + "}]",
    ],
    ids=lambda content: content[:20],
)
def test_a_hostile_file_is_refused_in_one_short_line(file, content):
    with pytest.raises(UsageError) as caught:
        load_recipe(file(content))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


def test_what_is_no_file_is_refused_and_the_built_in_recipes_named(tmp_path):
    with pytest.raises(UsageError) as caught:
        load_recipe(str(tmp_path / "strong"))
    assert str(caught.value) == (
        f"{tmp_path}/strong: no such file. Use paper, light, none, or name a file of YAML."
    )
    with pytest.raises(UsageError, match=r"cannot be read .*Name a file of YAML\.$"):
        load_recipe(str(tmp_path))
    with pytest.raises(UsageError, match="An empty path was given"):
        load_recipe("")
