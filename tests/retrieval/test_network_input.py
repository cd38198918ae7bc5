"""Bytes of pixels → numbers for a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retrieval.images import Preprocessing
from retrieval.models.network_input import as_network_input

CPU = torch.device("cpu")
ODD = Preprocessing(size=4, mean=(0.5, 0.25, 0.1), std=(0.5, 2.0, 0.3))


@pytest.fixture(params=range(4), ids="seed{}".format)
def pixels(request):
    return np.random.default_rng(request.param).integers(0, 256, (3, 4, 4, 3), np.uint8)


def test_one_pixel_worked_by_hand():
    preprocessing = Preprocessing(size=1, mean=(0.5, 0.25, 0.0), std=(0.5, 2.0, 0.1))
    images = as_network_input(np.uint8([[[[255, 0, 51]]]]), preprocessing, CPU)
    assert (images.dtype, images.shape) == (torch.float32, (1, 3, 1, 1))
    # (1 - 0.5) / 0.5, (0 - 0.25) / 2, (0.2 - 0) / 0.1
    assert images.ravel().tolist() == pytest.approx([1.0, -0.125, 2.0])


def test_each_number_equals_its_definition_in_plain_loops(pixels):
    images = as_network_input(pixels, ODD, CPU)
    assert images.shape == (3, 3, 4, 4)
    assert images.is_contiguous(memory_format=torch.channels_last)
    for photo, channel, y, x in np.ndindex(3, 3, 4, 4):
        value = int(pixels[photo, y, x, channel]) / 255
        expected = (value - ODD.mean[channel]) / ODD.std[channel]
        assert images[photo, channel, y, x].item() == pytest.approx(expected, abs=1e-6)


def test_each_photo_comes_out_as_if_it_were_alone(pixels):
    whole = as_network_input(pixels, ODD, CPU)
    alone = [as_network_input(pixels[n : n + 1], ODD, CPU) for n in (2, 0, 1)]
    assert torch.equal(torch.cat(alone), whole[[2, 0, 1]])
    backwards = as_network_input(pixels[::-1], ODD, CPU)  # negative strides
    assert torch.equal(backwards, whole.flip(0))
    assert as_network_input(pixels[:0], ODD, CPU).shape == (0, 3, 4, 4)


def test_the_defaults_are_imagenet_s_mean_and_deviation():
    grey = np.full((1, 2, 2, 3), 128, np.uint8)
    images = as_network_input(grey, Preprocessing(size=2), CPU)
    expected = [
        (128 / 255 - 0.485) / 0.229,
        (128 / 255 - 0.456) / 0.224,
        (128 / 255 - 0.406) / 0.225,
    ]
    assert images[0, :, 0, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("is_writable", [True, False])
def test_the_pixels_stay_as_they_are_and_may_be_read_only(pixels, is_writable):
    before = pixels.copy()
    pixels.flags.writeable = is_writable
    torch.set_warn_always(True)  # else torch says it once in a process
    try:
        images = as_network_input(pixels, ODD, CPU)
    finally:
        torch.set_warn_always(False)
    images.zero_()
    assert pixels.tolist() == before.tolist()
