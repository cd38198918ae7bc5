"""Recipes: which techniques are applied, how often and how strongly.

Built in are `paper` (each result is one technique of a photo, all of the catalogue), `light`
(mild changes one after the other, for a network that learns from them on the fly) and `none`.
Others are YAML files:

    apply: chain               # one after the other; or "one": each result is one technique
    techniques:
      - technique: crop
        fraction: [0.6, 1.0]   # a parameter's range, or one number; left out: the default
      - technique: flip_horizontal
        probability: 0.5       # above 0, at most 1; left out: 1. Not with "one"
"""

from __future__ import annotations

import difflib
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NoReturn, TypeGuard

import numpy as np
import yaml

from retrieval.augmentations.registry import CATALOGUE, Technique
from retrieval.augmentations.sizes import RGB
from retrieval.errors import UsageError
from retrieval.storage import absolute_uri, first_line, open_input

__all__ = ["AUGMENTATION_VERSION", "RECIPES", "Apply", "Recipe", "Step", "load_recipe"]

AUGMENTATION_VERSION: Final = 1  # raised with every change of what a technique or recipe gives
MAX_FILE_BYTES: Final = 2**20  # a recipe of the whole catalogue has 2 KB
_OWN_KEYS: Final = ("technique", "probability")


class Apply(StrEnum):
    """What a recipe does with its steps."""

    ONE = "one"  # each result is one step's, applied to the photo
    CHAIN = "chain"  # each result is the photo after all steps, each with its probability
    NONE = "none"  # the photo itself


@dataclass(frozen=True)
class Step:
    """One technique in a recipe.

    Attributes:
        technique: Of the catalogue.
        probability: How often a chain takes it, above 0, at most 1.
        ranges: Parameter → (low, high); what is left out is drawn from its default range.
            A value outside what is allowed raises UsageError.
    """

    technique: Technique
    probability: float = 1.0
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.technique.resolve(self.ranges)
        if not 0 < self.probability <= 1:
            raise UsageError(
                f"{self.technique.name}: probability {self.probability:g}; needed is a number "
                f"above 0, at most 1. Leave the technique out to never have it."
            )

    def apply(self, image: RGB, rng: np.random.Generator) -> RGB:
        """Draw the parameters and make the picture."""
        return self.technique.apply(image, rng, self.technique.draw(rng, self.ranges))

    def to_json(self) -> dict[str, Any]:
        """Plain values that decide the results, with every range."""
        ranges = self.technique.resolve(self.ranges)
        return {
            "technique": self.technique.name,
            "probability": float(self.probability),
            "ranges": {name: list(ends) for name, ends in ranges.items()},
        }


@dataclass(frozen=True)
class Recipe:
    """A set of augmentations.

    Attributes:
        name: A built-in name or the file; for people, it changes nothing.
        apply: What is done with the steps.
        steps: In their order; without any only if apply is "none". Breaking this, or a
            probability that has no effect, raises UsageError.
    """

    name: str
    apply: Apply
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.steps) == (self.apply == Apply.NONE):
            raise UsageError(
                f"{self.name}: apply {self.apply.value!r} with {len(self.steps)} techniques; "
                f"'one' and 'chain' need at least 1, 'none' needs 0."
            )
        for step in self.steps if self.apply == Apply.ONE else ():
            if step.probability != 1:
                raise UsageError(
                    f"{self.name}: probability {step.probability:g} of {step.technique.name}; "
                    f"with apply 'one' all are equally likely. Leave it out, or use 'chain'."
                )

    def augment(self, image: RGB, rng: np.random.Generator) -> RGB:
        """One picture for training on the fly.

        "one": a step's result or the photo itself, each equally likely. "chain": the photo
        after the steps, each taken with its probability. "none": the photo itself.

        Args:
            image: uint8 RGB (H, W, 3); left as it is.
            rng: Decides everything.

        Returns:
            uint8 RGB (H', W', 3); `image` itself where nothing was done.
        """
        if self.apply == Apply.ONE:
            number = int(rng.integers(len(self.steps) + 1))
            return self.steps[number].apply(image, rng) if number < len(self.steps) else image
        for step in self.steps:
            if rng.random() < step.probability:
                image = step.apply(image, rng)
        return image

    def to_json(self) -> dict[str, Any]:
        """Plain values that decide the results: equal exactly where those are."""
        return {
            "augmentation_version": AUGMENTATION_VERSION,
            "apply": self.apply.value,
            "steps": [step.to_json() for step in self.steps],
        }


def _light() -> Iterator[Step]:
    yield _step("crop", 1.0, fraction=(0.7, 1.0))
    yield _step("flip_horizontal", 0.5)
    yield _step("lighten", 0.25, gamma=(0.7, 1.0))
    yield _step("darken", 0.25, gamma=(1.0, 1.4))
    yield _step("contrast", 0.3, factor=(0.75, 1.3))
    yield _step("saturation", 0.3, factor=(0.6, 1.4))
    yield _step("hue", 0.2, shift=(-12, 12))
    yield _step("channel_gain", 0.2, red=(0.85, 1.15), green=(0.85, 1.15), blue=(0.85, 1.15))
    yield _step("gaussian_noise", 0.15, sigma=(2, 10))
    yield _step("gaussian_blur", 0.15, sigma=(0.002, 0.008))
    yield _step("grayscale", 0.05)


def _step(name: str, probability: float, **ranges: tuple[float, float]) -> Step:
    return Step(CATALOGUE[name], probability, ranges)


RECIPES: Final[Mapping[str, Recipe]] = {
    "paper": Recipe("paper", Apply.ONE, tuple(map(Step, CATALOGUE.values()))),
    "light": Recipe("light", Apply.CHAIN, tuple(_light())),
    "none": Recipe("none", Apply.NONE),
}


def load_recipe(name_or_path: str) -> Recipe:
    """A built-in recipe, or one from a YAML file.

    Args:
        name_or_path: One of `RECIPES`, which comes before a file of that name; else a local
            path or an object-store address.

    Raises:
        UsageError: There is no such recipe, or the file is not what it should be: one line
            that names the file, what was found and what is needed.
        StorageError: The object store cannot be reached.
    """
    if name_or_path in RECIPES:
        return RECIPES[name_or_path]
    uri = absolute_uri(name_or_path)
    document = _document(uri, _read(uri))
    if not isinstance(document, dict):
        _refuse(uri, f"holds {_shown(document)}; needed are the keys apply and techniques")
    if set(document) != {"apply", "techniques"}:
        _refuse(uri, f"has the keys {_shown(list(document))}; needed are apply and techniques")
    apply, items = document["apply"], document["techniques"]
    if apply not in (Apply.ONE.value, Apply.CHAIN.value):
        _refuse(uri, f"apply is {_shown(apply)}; needed is 'one' or 'chain'")
    if not isinstance(items, list) or not items:
        _refuse(uri, f"techniques is {_shown(items)}; needed is a list of at least 1")
    steps = [_parse_step(f"{uri}, technique {n}", item) for n, item in enumerate(items, start=1)]
    return Recipe(uri, Apply(apply), tuple(steps))


def _read(uri: str) -> bytes:
    try:
        with open_input(uri) as source:  # not read_bytes: what is too large is not read at all
            data = bytes(source.read(MAX_FILE_BYTES + 1))
    except FileNotFoundError:
        _refuse(uri, f"no such file. Use {', '.join(RECIPES)}, or name a file of YAML")
    except OSError as error:
        _refuse(uri, f"cannot be read ({first_line(error)}). Name a file of YAML")
    if len(data) > MAX_FILE_BYTES:
        _refuse(uri, f"more than {MAX_FILE_BYTES} bytes; a recipe has a few hundred")
    return data


def _document(uri: str, data: bytes) -> object:
    """What yaml.safe_load gives, without aliases, which could grow without end."""
    try:
        loader = yaml.SafeLoader(data.decode())
        root = loader.get_single_node()
        if (found := _repetition(root)) is not None:
            _refuse(uri, f"{found}. Write each once, and in full")
        return None if root is None else loader.construct_document(root)
    except UsageError:
        raise
    except UnicodeDecodeError as error:
        _refuse(uri, f"byte {error.start} is not UTF-8; needed is a file of YAML in UTF-8")
    except Exception as error:  # noqa: BLE001 - of a damaged tag PyYAML raises whatever comes
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        _refuse(uri, f"is not YAML ({line}{getattr(error, 'problem', None) or first_line(error)})")


def _repetition(root: yaml.Node | None) -> str | None:
    """An alias or a key that stands twice in one mapping, of which YAML keeps the last."""
    pending, seen = [root], set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            return "an alias (*name) is used"
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            if keys and (most := keys.most_common(1)[0])[1] > 1:
                return f"the key {_shown(most[0])} stands twice in one place"
            pending += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            pending += node.value
    return None


def _parse_step(where: str, item: object) -> Step:
    if not isinstance(item, dict) or "technique" not in item:
        _refuse(where, f"is {_shown(item)}; needed is a mapping with the key technique")
    name = item["technique"]
    if not isinstance(name, str) or name not in CATALOGUE:
        _refuse(where, f"{_shown(name)} is not in the catalogue. {_nearest(name)}")
    probability = item.get("probability", 1.0)
    if not _is_number(probability):
        _refuse(where, f"probability is {_shown(probability)}; needed is a number")
    ranges = {
        key if isinstance(key, str) else _shown(key): _parse_range(f"{where}, {_shown(key)}", value)
        for key, value in item.items()
        if key not in _OWN_KEYS
    }
    try:
        return Step(CATALOGUE[name], float(probability), ranges)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _nearest(name: object) -> str:
    text = name[:50] if isinstance(name, str) else ""  # comparing takes the square of the length
    near = difflib.get_close_matches(text, CATALOGUE)
    return f"Nearest is {', then '.join(near)}" if near else f"It has {', '.join(CATALOGUE)}"


def _parse_range(where: str, value: object) -> tuple[float, float]:
    ends = list(value) if isinstance(value, list) else [value, value]
    numbers = [float(end) for end in ends if _is_number(end)]
    if not len(ends) == len(numbers) == 2:
        _refuse(where, f"is {_shown(value)}; needed is a number or two of them, as in [0.6, 1.0]")
    return numbers[0], numbers[1]


def _is_number(value: object) -> TypeGuard[float]:
    # bool is an int to Python. The limit is there for whole numbers that no float can hold,
    # and so that neither infinity nor NaN passes.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _shown(value: object) -> str:
    try:
        return reprlib.repr(value)  # which is short, whatever the value
    except ValueError:  # a whole number of more than 4300 digits
        return "a number too long to show"


def _refuse(what: str, why: str) -> NoReturn:
    raise UsageError(f"{what}: {why}.")
