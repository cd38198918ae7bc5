"""Networks made quick: the same answers within the tolerance, or the network as it is."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

from retrieval.errors import UsageError
from retrieval.models import inference
from retrieval.models.backbones import BACKBONES, BackboneSpec, build_backbone
from retrieval.models.inference import PRECISIONS, QuickNetwork, agreement, choose_dtype

CPU = torch.device("cpu")


def settled(name, seed=0):
    """A network of torchvision whose batch normalisation has seen something, as trained ones."""
    network = build_backbone(BackboneSpec(name=name, weights="none", seed=seed))
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
    return network


def noise(count, side=64, seed=0):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def ask(network, images):
    return network(images)


class Overflowing(nn.Module):
    """The mean of each channel, times 20,000: above the end of float16 for a bright photo."""

    def forward(self, images):
        return images.mean(dim=(2, 3)) * 20_000


class Vague(nn.Module):
    """Answers otherwise in any type but float32."""

    def forward(self, images):
        features = images.mean(dim=(2, 3)) + 1
        return features if images.dtype == torch.float32 else features * torch.tensor([1, -1, 1])


def test_another_precision_is_refused_at_once():
    with pytest.raises(UsageError, match="precision='int8': none of auto, float32, "):
        QuickNetwork(nn.Identity(), precision="int8", is_own=True)


def test_agreement_by_hand():
    rows = torch.tensor([[1.0, 0], [0, 2], [3, 4], [0, 0]])
    assert agreement(rows, rows) == pytest.approx(1)
    assert agreement(rows, 7 * rows) == pytest.approx(1)  # of the direction alone
    other = torch.tensor([[1.0, 0], [0, 2], [4, 3], [0, 0]])  # 3·4 + 4·3 of 5·5
    assert agreement(rows, other) == pytest.approx(0.96)
    assert agreement(rows, -rows) == pytest.approx(-1)


def test_agreement_of_a_zero_row_with_another_is_none_and_nothing_agrees_with_nan():
    zero, one = torch.zeros(1, 2), torch.tensor([[1.0, 1]])
    assert agreement(zero, zero) == 1
    assert agreement(zero, one) == agreement(one, zero) == 0
    for spoilt in (float("nan"), float("inf")):
        assert not agreement(torch.tensor([[1.0, spoilt]]), one) >= -1


def test_agreement_is_the_smallest_cosine_in_plain_loops():
    found, expected = np.random.default_rng(1).normal(size=(2, 20, 7))
    cosines = []
    for one, other in zip(found, expected, strict=True):
        dot = sum(x * y for x, y in zip(one, other, strict=True))
        lengths = [sum(x * x for x in row) ** 0.5 for row in (one, other)]
        cosines.append(dot / lengths[0] / lengths[1])
    assert agreement(torch.tensor(found), torch.tensor(expected)) == pytest.approx(min(cosines))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext101_32x8d", "googlenet"])
def test_the_folded_network_answers_as_the_plain_one_to_the_rounding_of_float32(name):
    network, images = settled(name), noise(2)
    quick = QuickNetwork(network, precision="float32", is_own=False)
    found, expected = ask(quick, images), ask(network, images)
    assert found.shape == (2, BACKBONES[name])
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert quick.manner == "float32"
    kinds = {type(module) for module in quick._quick.modules()}
    assert nn.BatchNorm2d not in kinds  # or it was not made quick at all
    assert nn.BatchNorm2d in {type(module) for module in network.modules()}  # which is untouched


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_keeps_the_direction_of_each_photo(precision):
    network, images = settled("resnet18"), noise(4)
    quick = QuickNetwork(network, precision=precision, is_own=False)
    found = ask(quick, images)
    assert found.dtype == torch.float32
    assert quick.manner == precision
    assert 0.999 <= agreement(found, ask(network, images)) < 1 - 1e-7  # computed otherwise


def test_auto_takes_what_the_device_does_fast(monkeypatch):
    def on_a_cpu_with(**capabilities):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
        return choose_dtype("auto", CPU)

    assert on_a_cpu_with(avx512_bf16=True, amx_bf16=False) == torch.bfloat16
    assert on_a_cpu_with(avx512_bf16=False, amx_bf16=True) == torch.bfloat16
    assert on_a_cpu_with(avx512_f=True) == torch.float32
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert choose_dtype("auto", CPU) == torch.float32
    assert choose_dtype("auto", torch.device("cuda")) == torch.float16
    named = [choose_dtype(name, CPU) for name in PRECISIONS[1:]]
    assert named == [torch.float32, torch.bfloat16, torch.float16]


def test_where_half_precision_does_not_agree_the_network_is_used_as_it_is():
    images = noise(3, 8)
    quick = QuickNetwork(Vague(), precision="bfloat16", is_own=True)
    assert torch.equal(ask(quick, images), ask(Vague(), images))
    assert quick.manner.startswith("float32 (not bfloat16: a photo's features had a cosine of ")


def test_features_beyond_the_end_of_float16_come_from_the_network_as_it_is():
    quick = QuickNetwork(Overflowing(), precision="float16", is_own=True)
    small, bright = torch.full((2, 3, 8, 8), 0.5), torch.full((2, 3, 8, 8), 5.0)
    assert ask(quick, small).tolist() == [[10_000] * 3] * 2
    assert quick.manner == "float16"
    assert ask(quick, bright).tolist() == [[100_000] * 3] * 2  # float16 ends at 65,504


def test_somebody_s_own_network_is_left_alone_unless_a_precision_is_named():
    class Own(nn.Module):
        seen: list[torch.dtype] = []  # noqa: RUF012 - for the test

        def forward(self, images):
            self.seen.append(images.dtype)
            return images.mean(dim=(2, 3)) + 1

    network, images = Own(), noise(2, 8)
    quick = QuickNetwork(network, is_own=True)
    assert torch.equal(ask(quick, images), images.mean(dim=(2, 3)) + 1)
    assert Own.seen == [torch.float32]
    ask(QuickNetwork(network, precision="bfloat16", is_own=True), images)
    assert set(Own.seen) == {torch.float32, torch.bfloat16}


@pytest.fixture
def not_joined(monkeypatch):
    """As on a GPU, or where torch lacks the operators."""
    monkeypatch.setattr(inference, "join_convolutions", lambda _: 1 / 0)


@pytest.fixture
def compiled(monkeypatch, not_joined):
    """Calls of torch.compile, which gives the network back: the real one has its own test."""
    calls = []

    def compile_nothing(network, **_):
        calls.append(network)
        return network

    monkeypatch.setattr(torch, "compile", compile_nothing)
    return calls


def test_long_work_is_compiled_and_short_work_is_not(compiled, monkeypatch):
    images = noise(2, 32)
    for num_photos, pays_s, is_compiled in ((0, 0, 0), (10**6, 1e9, 0), (20, 0, 1)):
        monkeypatch.setattr(inference, "_COMPILING_PAYS_S", pays_s)
        compiled.clear()
        quick = QuickNetwork(
            settled("resnet18"), precision="float32", is_own=False, num_photos=num_photos
        )
        ask(quick, images)
        assert len(compiled) == is_compiled, (num_photos, pays_s)
        assert quick.manner == ("float32, compiled" if is_compiled else "float32")


def test_what_cannot_be_compiled_runs_as_it_is(not_joined, monkeypatch):
    def refuse(network, **_):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", refuse)
    monkeypatch.setattr(inference, "_COMPILING_PAYS_S", 0)
    network, images = settled("resnet18"), noise(2, 32)
    quick = QuickNetwork(network, precision="float32", is_own=False, num_photos=1000)
    assert agreement(ask(quick, images), ask(network, images)) > 1 - 1e-6
    assert quick.manner == "float32, not compiled (no C++ compiler)"


def test_what_is_compiled_wrongly_is_not_used(not_joined, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda network, **_: lambda images: -network(images))
    monkeypatch.setattr(inference, "_COMPILING_PAYS_S", 0)
    network, images = settled("resnet18"), noise(2, 32)
    quick = QuickNetwork(network, precision="float32", is_own=False, num_photos=1000)
    assert agreement(ask(quick, images), ask(network, images)) > 1 - 1e-6
    assert quick.manner == "float32, not compiled (a cosine of -1.0000)"


def test_a_really_compiled_network_agrees_from_several_threads(not_joined, monkeypatch, tmp_path):
    monkeypatch.setattr(inference, "_COMPILING_PAYS_S", 0)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    network, images = settled("resnet18"), noise(2, 32)
    network.layer2 = network.layer3 = network.layer4 = nn.Identity()  # a minute less of compiling
    quick = QuickNetwork(network, precision="float32", is_own=False, num_photos=1000)
    found = []

    def work():
        torch.set_num_threads(1)
        found.append(ask(quick, images))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert quick.manner == "float32, compiled"
    assert agreement(found[0], ask(network, images)) > 1 - 1e-6
    assert all(torch.equal(answer, found[0]) for answer in found)
