"""Many pictures out of one photo.

Every result hangs on (seed, image id, technique, copy number) and on what the same photo has
given before, for a near copy of that is dropped: never on process, machine or order of photos.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from PIL import Image

from retrieval.augmentations.quality_filter import Guard, Verdict
from retrieval.augmentations.recipes import Apply, Recipe, Step
from retrieval.augmentations.registry import random_generator
from retrieval.augmentations.shares import Share
from retrieval.augmentations.sizes import RGB
from retrieval.errors import UsageError
from retrieval.images import FIRST_DECODER, load_rgb

__all__ = [
    "MAX_DRAWS",
    "Method",
    "Multiplied",
    "Result",
    "encode_jpeg",
    "reduced_picture",
]

# Draws for one result before the photo goes on without the technique. More make the techniques
# a little more even, and cost what they take: most that fail once have no room left to differ.
MAX_DRAWS: Final = 3
_MAX_CHAIN_DRAWS: Final = 30  # of a chain, which has nothing to go on to
_OVERSAMPLING: Final = 2  # a JPEG is decoded at least this many times as large as needed
_MAX_PROPORTION: Final = 4  # a strip is made shorter, or its 40 copies would fill the memory
_MAX_JPEG_SIDE: Final = 65_535


@dataclass(frozen=True, eq=False)
class Result:
    """One picture made of a photo.

    Attributes:
        technique: Its name, or "chain" where a result is a whole recipe.
        copy: Which of the photo's results by this technique it is, from 1.
        parameters: What was drawn for it, as JSON: an object, or of a chain a list of them.
        content: A JPEG file.
    """

    technique: str
    copy: int
    parameters: str
    content: bytes


@dataclass(frozen=True, eq=False)
class Multiplied:
    """What one photo gave.

    Attributes:
        results: As many as were asked for, or fewer.
        dropped: How many draws of each technique the guard refused, and why.
    """

    results: Sequence[Result]
    dropped: Mapping[tuple[str, Verdict], int]


@dataclass(frozen=True)
class Method:
    """How photos are multiplied: all that their results hang on but the photos themselves.

    Attributes:
        recipe: The techniques.
        seed: Of all that is drawn.
        size: Shorter side in pixels to which a larger photo is reduced before.
        quality: Of the JPEG results, 1 to 100.
        decoder: By which photos are read; see `retrieval.images`.
    """

    recipe: Recipe
    seed: int
    size: int
    quality: int
    decoder: int = FIRST_DECODER

    @property
    def num_techniques(self) -> int:
        """How many the photos of a class take turns at; 0 if the recipe makes nothing."""
        return len(_ways(self.recipe))

    def to_json(self) -> dict[str, Any]:
        """Plain values: equal ones give equal results."""
        return {
            "decoder_version": self.decoder,
            "recipe": self.recipe.to_json(),
            "seed": self.seed,
            "size": self.size,
            "quality": self.quality,
        }

    def multiply(self, content: bytes, image_id: str, share: Share) -> Multiplied:
        """Make a photo's share of results.

        The photo takes the techniques in turn. A picture that is destroyed, or a near copy of
        the photo or of a result before, is dropped and drawn again; a technique that has
        failed so `MAX_DRAWS` times in a row is left out from then on. So a photo comes to an
        end: with its share, or with no technique left.

        Args:
            content: The photo's file.
            image_id: The photo's.
            share: What it has to give.

        Raises:
            ImageError: the photo cannot be decoded.

        Cost: one decoding, whatever the share; memory for the results and for their
            thumbnails (see `Guard`).
        """
        if not share.count:
            return Multiplied([], {})
        work = _Work(self, reduced_picture(content, self.size, self.decoder), image_id)
        return work.results(share)


def reduced_picture(content: bytes, size: int, decoder: int = FIRST_DECODER) -> RGB:
    """Decode a photo, its shorter side reduced to `size` pixels at most; never enlarged.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ImageError: the photo cannot be decoded.
    """
    picture, *_ = load_rgb(content, min_size=_OVERSAMPLING * size, decoder=decoder)
    shorter, longer = sorted(picture.size)
    scale = min(1.0, size / shorter, _MAX_PROPORTION * size / longer)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(picture)


_Drawn: TypeAlias = tuple[Any, RGB]  # parameters, as plain values, and the picture


@dataclass(frozen=True)
class _Way:
    """One way to a result: a technique, or the whole recipe."""

    name: str
    make: Callable[[RGB, np.random.Generator], _Drawn]
    max_draws: int


def _ways(recipe: Recipe) -> list[_Way]:
    if recipe.apply == Apply.CHAIN:
        return [_Way(recipe.apply, partial(_apply_chain, recipe.steps), _MAX_CHAIN_DRAWS)]
    return [
        # Without parameters a second draw would be the first one again.
        _Way(
            step.technique.name,
            partial(_apply_one, step),
            MAX_DRAWS if step.technique.parameters else 1,
        )
        for step in recipe.steps
    ]


def _apply_one(step: Step, image: RGB, rng: np.random.Generator) -> _Drawn:
    parameters = step.technique.draw(rng, step.ranges)
    return parameters, step.technique.apply(image, rng, parameters)


def _apply_chain(steps: Sequence[Step], image: RGB, rng: np.random.Generator) -> _Drawn:
    """As `Recipe.augment`, but tells what was drawn."""
    taken = []
    for step in steps:
        if rng.random() < step.probability:
            parameters, image = _apply_one(step, image, rng)
            taken.append({"technique": step.technique.name, **parameters})
    return taken, image


class _Work:
    """The work on one photo."""

    def __init__(self, method: Method, source: RGB, image_id: str) -> None:
        self._method, self._source, self._image_id = method, source, image_id
        self._guard = Guard(source)
        self._dropped: Counter[tuple[str, Verdict]] = Counter()

    def results(self, share: Share) -> Multiplied:
        ways = deque(_ways(self._method.recipe))
        ways.rotate(-share.first)
        numbers: Counter[str] = Counter()
        results: list[Result] = []
        while ways and numbers.total() < share.skip + share.count:
            way = ways.popleft()
            found = self._draw(way, numbers[way.name] + 1)
            if found is None:
                continue
            ways.append(way)
            numbers[way.name] += 1
            if numbers.total() > share.skip:
                parameters, image = found
                content = encode_jpeg(image, self._method.quality)
                results.append(Result(way.name, numbers[way.name], json.dumps(parameters), content))
            elif numbers.total() == share.skip:
                self._dropped.clear()  # counted when those were made the first time
        return Multiplied(results, self._dropped)

    def _draw(self, way: _Way, number: int) -> _Drawn | None:
        for draw in range(way.max_draws):
            rng = random_generator(self._method.seed, self._image_id, way.name, number, draw)
            parameters, image = way.make(self._source, rng)
            verdict = self._guard.verdict(image)
            if verdict == Verdict.GOOD:
                self._guard.accept(image)
                return parameters, image
            self._dropped[way.name, verdict] += 1
        return None


def encode_jpeg(image: RGB, quality: int) -> bytes:
    """A picture, uint8 RGB (H, W, 3), as a JPEG file.

    Raises:
        UsageError: a side is longer than JPEG allows.
    """
    if max(image.shape) > _MAX_JPEG_SIDE:
        raise UsageError(
            f"a result of {image.shape[1]} × {image.shape[0]} pixels: {_MAX_JPEG_SIDE} a side are "
            f"the most that JPEG holds. Use a smaller size, or a recipe that stretches less."
        )
    # By OpenCV: to the same number of bytes as Pillow in three quarters of the time.
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), settings)
    return encoded.tobytes()
