"""The catalogue: every technique by its name, with its parameters and their ranges.

A parameter has two ranges. [low, high] is what is drawn from if nobody says otherwise, chosen
by looking at photos of about 256 pixels on the shorter side: visible, and still the same
building to a person. [minimum, maximum] is what a recipe may ask for.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from retrieval.augmentations import colour, features, noise, proportion
from retrieval.augmentations.sizes import RGB
from retrieval.errors import UsageError

__all__ = ["CATALOGUE", "GROUPS", "NO_RANGES", "Parameter", "Technique", "random_generator"]

GROUPS: Final = ("noise", "colour", "proportion", "features")
NO_RANGES: Final[Mapping[str, tuple[float, float]]] = {}


@dataclass(frozen=True)
class Parameter:
    """A number that a technique takes.

    Attributes:
        low: Where drawing begins by default.
        high: Where it ends, included.
        minimum: The least that a recipe may ask for.
        maximum: The most.
        unit: What it counts, in words.
        is_whole: Whether only whole numbers mean something.
    """

    low: float
    high: float
    minimum: float
    maximum: float
    unit: str
    is_whole: bool = False

    def draw(self, rng: np.random.Generator, low: float, high: float) -> float:
        """A number between low and high, both included, each as likely as another."""
        if self.is_whole:
            return int(rng.integers(int(low), int(high), endpoint=True))
        return min(high, float(rng.uniform(low, high)))  # rounding must not lead beyond it


@dataclass(frozen=True)
class Technique:
    """One way to make another picture of a picture.

    Attributes:
        name: What recipes and reports call it; the name of its function.
        group: One of `GROUPS`.
        function: `function(image, rng, **parameters)`: pure, uint8 RGB to uint8 RGB.
        parameters: In the order in which they are drawn.
        keeps_label: Whether the result, in mild ranges, may pass for a photo of the same thing,
            so that a network may learn from it as from one. Where it is false, the thing can
            still be recognised, but no photo looks so.
    """

    name: str
    group: str
    function: Callable[..., RGB]
    parameters: Mapping[str, Parameter]
    keeps_label: bool

    def resolve(self, ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        """The range of every parameter: the given one, else the default.

        Args:
            ranges: Parameter → (low, high), both included.

        Raises:
            UsageError: No such parameter, or a range is reversed, no number or outside
                [minimum, maximum].
        """
        for name in ranges:
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none: leave it out"
                raise UsageError(
                    f"{self.name}: no parameter {reprlib.repr(name)}. It has: {known}."
                )
        resolved = {name: (value.low, value.high) for name, value in self.parameters.items()}
        for name, (low, high) in ranges.items():
            self._check(name, low, high)
            resolved[name] = (low, high)
        return {name: (float(low), float(high)) for name, (low, high) in resolved.items()}

    def _check(self, name: str, low: float, high: float) -> None:
        parameter = self.parameters[name]
        # Written so that NaN, which is in no order, fails too.
        if not parameter.minimum <= low <= high <= parameter.maximum:
            raise UsageError(
                f"{self.name}: {name} from {low:g} to {high:g}; needed is a range inside "
                f"{parameter.minimum:g} to {parameter.maximum:g} ({parameter.unit}), lower end "
                f"first."
            )
        if parameter.is_whole and (low % 1 or high % 1):
            raise UsageError(
                f"{self.name}: {name} from {low:g} to {high:g}; needed are whole numbers "
                f"({parameter.unit})."
            )

    def draw(
        self, rng: np.random.Generator, ranges: Mapping[str, tuple[float, float]] = NO_RANGES
    ) -> dict[str, float]:
        """Draw every parameter from its range; arguments and errors as `resolve`."""
        resolved = self.resolve(ranges).items()
        return {name: self.parameters[name].draw(rng, *ends) for name, ends in resolved}

    def apply(self, image: RGB, rng: np.random.Generator, parameters: Mapping[str, float]) -> RGB:
        """Make the picture.

        Args:
            image: uint8 RGB (H, W, 3), H and W >= 1; left as it is.
            rng: For what is random beyond the parameters: noise, the place of a crop.
            parameters: A value for every parameter, as `draw` gives them.

        Returns:
            uint8 RGB (H', W', 3), C-contiguous, in memory of its own.
        """
        return self.function(np.ascontiguousarray(image), rng, **parameters)


def random_generator(seed: int, image_id: str, *names: object) -> np.random.Generator:
    """A generator that depends on its arguments alone: not on process, order or machine.

    Args:
        seed: Of the whole run.
        image_id: Of the picture.
        names: What else tells one use from another, such as technique and number; as text.
    """
    words = [str(name) for name in (seed, image_id, *names)]
    # As JSON, since plain joining would not tell ("a", "bc") from ("ab", "c").
    digest = hashlib.sha256(json.dumps(words).encode()).digest()
    # Not default_rng: which generator that means may change with NumPy.
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest)))


_SIDE = "of the shorter side"
_LEVELS = "levels of 255"
_FACTOR = "times"


def _speck_amount() -> Parameter:
    return Parameter(0.03, 0.12, 0, 1, "of the pixels")


def _size(low: float, high: float) -> Parameter:
    return Parameter(low, high, 0, 0.5, _SIDE)


def _gain() -> Parameter:
    return Parameter(0.6, 1.4, 0, 4, _FACTOR)


# fmt: off
_TECHNIQUES: Final = (
    Technique("gaussian_noise", "noise", noise.gaussian_noise,
              {"sigma": Parameter(15, 40, 0, 255, _LEVELS)}, keeps_label=True),
    Technique("salt", "noise", noise.salt, {"amount": _speck_amount()}, keeps_label=True),
    Technique("pepper", "noise", noise.pepper, {"amount": _speck_amount()}, keeps_label=True),
    Technique("salt_and_pepper", "noise", noise.salt_and_pepper,
              {"amount": _speck_amount()}, keeps_label=True),
    Technique("average_blur", "noise", noise.average_blur,
              {"size": _size(0.02, 0.06)}, keeps_label=True),
    Technique("median_blur", "noise", noise.median_blur,
              {"size": _size(0.02, 0.06)}, keeps_label=True),
    Technique("gaussian_blur", "noise", noise.gaussian_blur,
              {"sigma": Parameter(0.008, 0.025, 0.0005, 0.25, _SIDE)}, keeps_label=True),
    Technique("bilateral_blur", "noise", noise.bilateral_blur,
              {"size": Parameter(0.03, 0.042, 0, 0.1, _SIDE),
               "sigma_colour": Parameter(80, 140, 1, 500, _LEVELS)}, keeps_label=True),
    Technique("black_hat", "noise", noise.black_hat,
              {"size": _size(0.03, 0.12)}, keeps_label=False),
    Technique("top_hat", "noise", noise.top_hat,
              {"size": _size(0.03, 0.12)}, keeps_label=False),
    Technique("saturation", "colour", colour.saturation,
              {"factor": Parameter(1.6, 3, 0, 10, _FACTOR)}, keeps_label=True),
    Technique("hue", "colour", colour.hue,
              {"shift": Parameter(30, 330, -360, 360, "degrees")}, keeps_label=True),
    Technique("contrast", "colour", colour.contrast,
              {"factor": Parameter(1.3, 1.9, 0, 10, _FACTOR)}, keeps_label=True),
    Technique("lighten", "colour", colour.lighten,
              {"gamma": Parameter(0.4, 0.7, 0.1, 1, "exponent")}, keeps_label=True),
    Technique("darken", "colour", colour.darken,
              {"gamma": Parameter(1.5, 2.5, 1, 10, "exponent")}, keeps_label=True),
    Technique("sharpen", "colour", colour.sharpen,
              {"radius": Parameter(0.005, 0.015, 0.0005, 0.25, _SIDE),
               "amount": Parameter(1, 2.5, 0, 20, _FACTOR)}, keeps_label=True),
    Technique("grayscale", "colour", colour.grayscale, {}, keeps_label=True),
    Technique("invert", "colour", colour.invert, {}, keeps_label=False),
    Technique("channel_gain", "colour", colour.channel_gain,
              {"red": _gain(), "green": _gain(), "blue": _gain()}, keeps_label=True),
    Technique("crop", "proportion", proportion.crop,
              {"fraction": Parameter(0.5, 0.85, 0.05, 1, "of each side")}, keeps_label=True),
    Technique("stretch", "proportion", proportion.stretch,
              {"width": Parameter(0.6, 1.5, 0.1, 4, _FACTOR),
               "height": Parameter(0.6, 1.5, 0.1, 4, _FACTOR)}, keeps_label=True),
    Technique("flip_horizontal", "proportion", proportion.flip_horizontal, {}, keeps_label=True),
    Technique("flip_vertical", "proportion", proportion.flip_vertical, {}, keeps_label=False),
    Technique("flip_both", "proportion", proportion.flip_both, {}, keeps_label=False),
    Technique("padding", "proportion", proportion.padding,
              {"size": Parameter(0.05, 0.25, 0, 1, _SIDE)}, keeps_label=True),
    Technique("dilation", "proportion", proportion.dilation,
              {"size": _size(0.01, 0.04)}, keeps_label=True),
    Technique("opening", "proportion", proportion.opening,
              {"size": _size(0.02, 0.06)}, keeps_label=True),
    Technique("closing", "proportion", proportion.closing,
              {"size": _size(0.02, 0.06)}, keeps_label=True),
    Technique("superpixels", "proportion", proportion.superpixels,
              {"size": Parameter(0.04, 0.1, 0.01, 0.5, _SIDE)}, keeps_label=False),
    Technique("sobel", "features", features.sobel,
              {"gain": Parameter(1.5, 3, 0, 20, _FACTOR)}, keeps_label=False),
    Technique("canny", "features", features.canny,
              {"threshold": Parameter(100, 250, 1, 1400, "of Sobel's kernel")}, keeps_label=False),
    Technique("emboss", "features", features.emboss,
              {"strength": Parameter(0.6, 1.4, 0, 10, _FACTOR),
               "corner": Parameter(0, 3, 0, 3, "quarter turns", is_whole=True)}, keeps_label=False),
    Technique("erosion", "features", features.erosion,
              {"size": _size(0.01, 0.04)}, keeps_label=True),
    Technique("gradient", "features", features.gradient,
              {"size": _size(0.01, 0.04)}, keeps_label=False),
    Technique("adaptive_threshold", "features", features.adaptive_threshold,
              {"size": _size(0.05, 0.25), "offset": Parameter(2, 10, -255, 255, _LEVELS)},
              keeps_label=False),
)
# fmt: on
CATALOGUE: Final[Mapping[str, Technique]] = {each.name: each for each in _TECHNIQUES}
