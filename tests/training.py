"""Photos to train on, and networks that fail in ways known beforehand; importable in workers."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

COLOURS = {"red": (200, 40, 40), "green": (40, 190, 50), "blue": (50, 50, 200)}
PHOTOS_PER_CLASS = 8


def draw_photos(root: Path) -> Path:
    """Three classes of eight photos each: stripes of the class's colour in changing light."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(PHOTOS_PER_CLASS):
            stripes = (np.arange(48) // (3 + number) % 2 * 60)[:, None, None]
            pixels = np.asarray(colour) - stripes + rng.integers(-30, 30, (48, 40, 3))
            (root / name / f"{number}.jpg").write_bytes(encode(pixels))
    return root


def encode(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


class Small(nn.Module):
    """Two convolutions with batch normalisation, averaged to 8 features."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(),
        )  # fmt: skip

    def forward(self, images):
        return self.layers(images).mean(dim=(2, 3)) + 0.01


def small():
    return Small()


class Plain(nn.Module):
    """Without batch normalisation, so that it does not matter who sees which photos."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 5, stride=3), nn.ReLU())

    def forward(self, images):
        return self.layers(images).mean(dim=(2, 3)) + 0.01


def plain():
    return Plain()


class Slow(Plain):
    """As plain, in no hurry."""

    def forward(self, images):
        time.sleep(0.3)
        return super().forward(images)


def slow():
    return Slow()


def _count_steps() -> int:
    """How often training networks of this test have been called, in all processes together."""
    file = Path(os.environ["STEPS_FILE"])
    with file.open("ab") as stream:
        stream.write(b".")
    return file.stat().st_size


class Mortal(Small):
    """Kills its process in one training step, once."""

    def forward(self, images):
        if self.training and _count_steps() == int(os.environ["DIE_AT_STEP"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(images)


def mortal():
    return Mortal()


class Diverging(Small):
    """Gives NaN from one training step on."""

    def forward(self, images):
        features = super().forward(images)
        if self.training and _count_steps() >= int(os.environ["DIVERGE_AT_STEP"]):
            return features * torch.nan
        return features


def diverging():
    return Diverging()


class Hopeless(Small):
    """Gives NaN from the start."""

    def forward(self, images):
        return super().forward(images) * (torch.nan if self.training else 1)


def hopeless():
    return Hopeless()


class Wrong(Plain):
    """Raises in training, each time."""

    def forward(self, images):
        if self.training:
            raise IndexError("no such thing")
        return super().forward(images)


def wrong():
    return Wrong()


class Headed(Plain):
    """With a classifier that is built and never called, as of a network made for something else."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(8, 4)


def headed():
    return Headed()


class PooledNorm(Plain):
    """Batch normalisation of a feature map of one pixel: one photo gives it no variance."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, images):
        return self.norm(super().forward(images))


def pooled():
    return PooledNorm()
