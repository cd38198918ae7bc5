"""A network whose answers are known by hand, importable in worker processes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import nn


class MeanColour(nn.Module):
    """(B, 3, S, S) → the mean of each channel, plus 3 so that no photo gives zeros."""

    def forward(self, images):
        return images.mean(dim=(2, 3)) + 3


def mean_colour():
    return MeanColour()


def stating():
    """It wants bytes on the scale [0, 1], 16 × 16, and says so."""
    network = MeanColour()
    network.preprocessing = {"size": 16, "mean": (0, 0, 0), "std": (1, 1, 1)}
    return network


class OneWeight(nn.Module):
    """A convolution, so that there are weights; gives a feature map, not a vector."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 8, stride=8)

    def forward(self, images):
        return torch.relu(self.conv(images))


def one_weight():
    return OneWeight()


def not_a_network():
    return 7


class Endless(MeanColour):
    """Makes the file named by ENDLESS_FLAG when it meets a real photo, then never answers."""

    def forward(self, images):
        if images[0].std(dim=(1, 2)).max() > 0.01:  # the probe at the start is of one colour
            Path(os.environ["ENDLESS_FLAG"]).touch()
            time.sleep(3600)
        return super().forward(images)


def endless():
    return Endless()


def drifting():
    """Other weights in every process, as if each machine had a file of its own."""
    torch.manual_seed(os.getpid())
    return OneWeight()


class Fragile(MeanColour):
    """NaN for photos that are mostly red, as a network that diverged in training gives."""

    def forward(self, images):
        is_red = images[:, :1].mean(dim=(2, 3)) > 1
        return torch.where(is_red, torch.nan, super().forward(images))


def fragile():
    return Fragile()


class Faulty(MeanColour):
    """Fails for real photos with an error that is none of ours."""

    def forward(self, images):
        if images[0].std(dim=(1, 2)).max() > 0.01:
            raise ValueError("shapes differ\nin many ways")
        return super().forward(images)


def faulty():
    return Faulty()


class BatchNormed(nn.Module):
    """A small network with batch normalisation; gives a feature map, not a vector."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, stride=4)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, images):
        return torch.relu(self.norm(self.conv(images)))


def batch_normed():
    return BatchNormed()


class Slow(MeanColour):
    """Takes three seconds for real photos, so that a test can come between."""

    def forward(self, images):
        if images[0].std(dim=(1, 2)).max() > 0.01:
            time.sleep(3)
        return super().forward(images)


def slow():
    return Slow()
