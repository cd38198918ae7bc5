"""Joined convolutions: the answers of the network as it was, and nobody's photos written into."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn
from torch.fx.experimental.optimization import fuse

from retrieval.models import inference
from retrieval.models.backbones import BACKBONES, BackboneSpec, build_backbone
from retrieval.models.fusion import _Convolution, _MaxPool, join_convolutions
from retrieval.models.inference import QuickNetwork, agreement


def joined(network, dtype=torch.float32):
    folded = fx.symbolic_trace(network.eval())
    folded.to(dtype=dtype, memory_format=torch.channels_last)
    return join_convolutions(folded)


def images(*shape, seed=0):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn.contiguous(memory_format=torch.channels_last)


def kinds(network):
    return [type(module) for module in network.modules()]


class Block(nn.Module):
    """relu(2 (x + 1) + 1 + x), as a residual block."""

    def __init__(self):
        super().__init__()
        self.as_it_is, self.plus_one, self.twice_plus_one = (nn.Conv2d(1, 1, 1) for _ in range(3))
        self.relu = nn.ReLU(inplace=True)
        for layer, weight, bias in (
            (self.as_it_is, 1.0, 0.0),
            (self.plus_one, 1.0, 1.0),
            (self.twice_plus_one, 2.0, 1.0),
        ):
            nn.init.constant_(layer.weight, weight)
            nn.init.constant_(layer.bias, bias)

    def forward(self, x):
        x = self.as_it_is(x)
        y = self.twice_plus_one(self.plus_one(x))
        y += x
        return self.relu(y)


@torch.inference_mode()
def test_a_block_worked_by_hand():
    network = joined(Block())
    found = network(torch.tensor([[[[1.0, -1.0, -2.0, 0.5]]]]))
    assert found.flatten().tolist() == [6.0, 0.0, 0.0, 4.5]  # 3x + 3, at least 0
    assert kinds(network).count(_Convolution) == 3
    assert nn.ReLU not in kinds(network)


def wanted_later(relu, x, a, b, c, d):
    kept = a(x)
    return relu(b(kept) + c(x)) * kept


def overwritten_too_early(relu, x, a, b, c, d):
    kept = a(x)
    return relu(b(x) + kept) + c(kept)


def of_another_name(relu, x, a, b, c, d):
    kept = a(x)
    some = kept[:, 1:]
    return relu(b(x) + kept)[:, 1:] + some


def convolution_wanted_before_relu(relu, x, a, b, c, d):
    y = a(x)
    return relu(y) + y


def sum_wanted_before_relu(relu, x, a, b, c, d):
    y = a(x) + b(x)
    return relu(y) * y


def moved_behind_a_change_of_its_input(relu, x, a, b, c, d):
    kept = a(x)
    late = b(kept)
    early = relu(c(x) + kept)
    return relu(late + d(early))


def chain(relu, x, a, b, c, d):
    y = relu(a(x))
    for convolution in (b, c, d):
        y = relu(convolution(y) + y)
    return y


# Graphs in which one thing or another must not be joined, or not be written into.
TANGLES = {
    "the sum's other part is the input": lambda relu, x, a, b, c, d: relu(a(x) + x),
    "it is wanted later": wanted_later,
    "it is wanted by a convolution later": overwritten_too_early,
    "it has another name": of_another_name,
    "the convolution is wanted before ReLU": convolution_wanted_before_relu,
    "the sum is wanted before ReLU": sum_wanted_before_relu,
    "the convolution would move behind a change of its input": moved_behind_a_change_of_its_input,
    "both parts are one": lambda relu, x, a, b, c, d: relu((y := a(x)) + y),
    "a number is added": lambda relu, x, a, b, c, d: relu(a(x) + 1.5),
    "a convolution is used twice": lambda relu, x, a, b, c, d: relu(a(relu(a(x))) + b(x)),
    "the convolution reads the sum's other part": chain,
}


class Tangle(nn.Module):
    def __init__(self, wiring):
        super().__init__()
        self.wiring = wiring
        self.convolutions = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4))
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.wiring(self.relu, x, *self.convolutions)


@pytest.mark.parametrize("wiring", TANGLES.values(), ids=TANGLES)
@torch.inference_mode()
def test_whatever_the_graph_the_answers_stay(wiring):
    torch.manual_seed(1)
    network, photos = Tangle(wiring), images(2, 4, 9, 9)
    before = photos.clone()
    expected = network(photos)
    quick = joined(network)
    for _ in range(2):
        torch.testing.assert_close(quick(photos), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(photos, before)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 1},
        {"kernel_size": 5, "stride": 2, "padding": (2, 1)},
        {"kernel_size": 3, "dilation": 2},
        {"kernel_size": 3, "groups": 4, "bias": False},
        {"kernel_size": 3, "padding": "same"},
        {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    ],
)
@torch.inference_mode()
def test_any_convolution(settings):
    torch.manual_seed(2)
    network, photos = nn.Sequential(nn.Conv2d(8, 4, **settings), nn.ReLU()), images(3, 8, 17, 14)
    expected = network(photos)
    torch.testing.assert_close(joined(network)(photos), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@torch.inference_mode()
def test_pooling_behind_relu_is_by_the_order_of_bits_and_elsewhere_is_not(dtype):
    torch.manual_seed(3)
    first, photos = nn.Conv2d(3, 5, 3, padding=1), images(2, 3, 12, 12)
    behind = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    without = nn.Sequential(first, nn.MaxPool2d(3, 2, 1, ceil_mode=True))
    for network, is_by_bits in ((behind, True), (without, False)):
        expected = network(photos)
        quick = joined(network, dtype)
        found = quick(photos.to(dtype)).float()
        torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
        assert (_MaxPool in kinds(quick)) == is_by_bits
        network.float()


# Longer, but of the same blocks as resnet50 and resnext101.
LONG = {"resnet101", "resnet152", "wide_resnet101_2"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.soak] * (name in LONG)) for name in BACKBONES],
)
@torch.inference_mode()
def test_every_backbone_is_joined_and_agrees(name):
    network = build_backbone(BackboneSpec(name=name, weights="none"))
    photos = images(2, 3, 96, 96)
    folded = fuse(network).to(memory_format=torch.channels_last)
    num_convolutions = kinds(folded).count(nn.Conv2d)
    quick = join_convolutions(folded)
    assert kinds(quick).count(_Convolution) == num_convolutions
    assert nn.Conv2d not in kinds(quick)
    assert nn.ReLU not in kinds(quick)
    assert agreement(quick(photos), network(photos)) > 1 - 1e-6


@torch.inference_mode()
def test_a_network_whose_joined_form_errs_does_without(monkeypatch):
    network, photos = build_backbone(BackboneSpec(weights="none")), images(4, 3, 64, 64)
    expected = network(photos)

    def wrong(folded):
        folded.conv1.weight.neg_()
        return folded

    def missing(folded):
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute ...")

    for broken in (wrong, missing):
        monkeypatch.setattr(inference, "join_convolutions", broken)
        quick = QuickNetwork(network, precision="float32", is_own=False)
        assert agreement(quick(photos), expected) > 1 - 1e-6
        assert quick.manner == "float32"
