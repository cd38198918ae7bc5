"""Networks without their head: features, seeds, fingerprints, networks of one's own."""

from __future__ import annotations

import hashlib
import json
import warnings

import pytest
import torch
import torchvision
from torch import nn

from retrieval.errors import UsageError
from retrieval.images import Preprocessing
from retrieval.models.backbones import BACKBONES, BackboneSpec, build_backbone, fingerprint
from tests.fakes import OneWeight

ONE_WEIGHT = "tests.fakes:one_weight"
HERE = "tests.retrieval.test_backbones"


def build(name, weights="none", seed=0):
    return build_backbone(BackboneSpec(name=name, weights=str(weights), seed=seed))


def mark(name="resnet18", weights="none", seed=0, preprocessing=None):
    """The fingerprint of a network that is built anew."""
    spec = BackboneSpec(name=name, weights=str(weights), seed=seed)
    return fingerprint(spec, build_backbone(spec), preprocessing or Preprocessing())


def whole_network(name):
    """A network of torchvision with all its heads, after one step of training's statistics."""
    torch.manual_seed(5)
    heads = {"transform_input": True, "init_weights": True} if name == "googlenet" else {}
    network = torchvision.models.get_model(name, weights=None, **heads).train()
    network(torch.rand(2, 3, 32, 32))
    return network.eval()


@pytest.mark.parametrize("name", BACKBONES)
def test_no_head_is_left_and_the_features_have_the_promised_dimension(name):
    with torch.device("meta"):  # shapes only: the large ones take seconds to fill with numbers
        network = build(name)
        features = network(torch.zeros(2, 3, 64, 64))
    assert features.shape == (2, BACKBONES[name])
    parts = {layer.split(".")[0] for layer in network.state_dict()}
    assert parts
    assert not parts & {"fc", "aux1", "aux2", "classifier"}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "googlenet"])
def test_features_are_what_the_whole_network_s_last_layer_would_see(tmp_path, name):
    whole = whole_network(name)
    seen = []
    whole.fc.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    network = build(name, tmp_path / "whole.pth")
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole(images)
        features = network(images)
    assert features.shape == (1, BACKBONES[name])
    assert torch.equal(features, seen[0])
    assert features.std() > 0


def test_a_network_is_ready_to_embed_and_not_to_learn():
    network = build("resnet18")
    assert not any(layer.training for layer in network.modules())
    assert not any(weight.requires_grad for weight in network.parameters())
    assert {weight.device.type for weight in network.parameters()} == {"cpu"}


@pytest.mark.parametrize("name", ["resnet18", "googlenet", ONE_WEIGHT])
def test_a_network_can_learn_once_it_is_told_to(name):
    network = build(name).train().requires_grad_(True)
    before = {weight: tensor.clone() for weight, tensor in network.state_dict().items()}
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    network(images).square().mean().backward()
    gradients = {weight: tensor.grad for weight, tensor in network.named_parameters()}
    assert all(gradient.abs().max() > 0 for gradient in gradients.values()), gradients
    torch.optim.SGD(network.parameters(), lr=1e-3).step()
    after = network.state_dict()
    assert all(not torch.equal(tensor, before[weight]) for weight, tensor in after.items())


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = mark(seed=3)
    torch.manual_seed(2)
    assert mark(seed=3) == first
    assert mark(seed=4) != first


@pytest.mark.parametrize("name", ["resnet18", "googlenet", ONE_WEIGHT])
def test_building_leaves_the_random_numbers_of_the_caller_alone(name):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    build(name)
    assert torch.equal(torch.rand(3), expected)


def test_a_network_of_one_s_own_is_seeded_too():
    assert mark(ONE_WEIGHT, seed=1) == mark(ONE_WEIGHT, seed=1) != mark(ONE_WEIGHT, seed=2)


def test_vectors_of_a_network_of_one_s_own_are_taken_as_they_are():
    images = torch.arange(24.0).view(2, 3, 2, 2)
    assert build("tests.fakes:mean_colour")(images).tolist() == [
        [1.5 + 3, 5.5 + 3, 9.5 + 3],
        [13.5 + 3, 17.5 + 3, 21.5 + 3],
    ]


def test_a_feature_map_of_a_network_of_one_s_own_is_averaged():
    network = build(ONE_WEIGHT)
    images = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    found = network(images)
    assert found.shape == (2, 5)
    maps = network.network(images)  # (2, 5, 2, 3)
    for photo in range(2):
        for channel in range(5):
            places = [float(maps[photo, channel, y, x]) for y in range(2) for x in range(3)]
            assert float(found[photo, channel]) == pytest.approx(sum(places) / 6, rel=1e-5)


class Odd(nn.Module):
    """Gives whatever it is told to."""

    def __init__(self, give):
        super().__init__()
        self.give = give

    def forward(self, images):
        return self.give(images)


A_NETWORK = OneWeight()


def gives_tokens():
    return Odd(lambda images: images.flatten(2))


def gives_a_tuple():
    return Odd(lambda images: (images,))


@pytest.mark.parametrize(
    ("name", "found"),
    [("gives_tokens", "features of shape (1, 3, 64)"), ("gives_a_tuple", "features of tuple")],
)
def test_features_that_are_no_vectors_are_refused(name, found):
    with pytest.raises(UsageError) as caught:
        build(f"{HERE}:{name}")(torch.zeros(1, 3, 8, 8))
    assert str(caught.value) == (
        f"`backbone` {HERE}:{name}: gives {found}; a tensor of (B, D) or (B, D, H, W) is needed."
    )


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("tests.nowhere:network", "No module named 'tests.nowhere'"),
        ("tests.fakes:nothing", "module 'tests.fakes' has no attribute 'nothing'"),
        ("tests.fakes:", "module 'tests.fakes' has no attribute ''"),
        (":network", "Empty module name"),
    ],
)
def test_a_name_that_cannot_be_imported_is_refused(name, why):
    with pytest.raises(UsageError) as caught:
        build(name)
    assert str(caught.value).startswith(f"`backbone` {name}: cannot be imported ({why}). ")
    assert str(caught.value).endswith("as package.module:function.")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tests.fakes:not_a_network", "returned a int; a torch.nn.Module is needed."),
        (
            "tests.fakes:__name__",
            "is a str; a function without arguments that returns a torch.nn.Module is needed.",
        ),
        (
            f"{HERE}:A_NETWORK",
            "is a OneWeight; a function without arguments that returns a torch.nn.Module "
            "is needed.",
        ),
        (
            "resnet19",
            "unknown. Use one of resnet18, resnet50, resnet101, resnet152, resnext101_32x8d, "
            "wide_resnet101_2, googlenet, or package.module:function for a network of your own.",
        ),
    ],
)
def test_a_name_of_no_network_is_refused(name, message):
    with pytest.raises(UsageError) as caught:
        build(name)
    assert str(caught.value) == f"`backbone` {name}: {message}"


def test_a_relative_name_is_refused():
    with pytest.raises(UsageError, match=r"^`backbone` \.fakes:one_weight: cannot be imported \("):
        build(".fakes:one_weight")


def test_a_fingerprint_is_the_hash_that_its_definition_gives():
    # Pinned down: a change of this hash makes every index stale.
    spec = BackboneSpec(name=ONE_WEIGHT, weights="none", seed=7)
    network = build_backbone(spec)
    images = Preprocessing(size=32)
    head = {"images": images.fingerprint(), "network": ONE_WEIGHT, "pooling": "average"}
    content = json.dumps(head).encode()
    bias, weight = network.network.conv.bias, network.network.conv.weight
    content += b"network.conv.bias torch.float32 (5,)" + bias.numpy().tobytes()
    content += b"network.conv.weight torch.float32 (5, 3, 8, 8)" + weight.numpy().tobytes()
    assert fingerprint(spec, network, images) == hashlib.sha256(content).hexdigest()


def test_a_fingerprint_changes_with_any_one_weight():
    spec = BackboneSpec(weights="none")
    network = build_backbone(spec)
    marks = [fingerprint(spec, network, Preprocessing())]
    for name in ("conv1.weight", "layer4.1.bn2.bias", "bn1.running_mean", "bn1.running_var"):
        tensor = network.state_dict()[name]
        with torch.no_grad():
            tensor.view(-1)[-1] = torch.nextafter(tensor.view(-1)[-1], torch.tensor(9.0))
        marks.append(fingerprint(spec, network, Preprocessing()))
    assert len(set(marks)) == 5


def test_a_fingerprint_changes_with_the_preprocessing_and_with_the_network_s_name():
    plain = mark(ONE_WEIGHT)
    assert mark(ONE_WEIGHT, preprocessing=Preprocessing(size=225)) != plain
    assert mark(ONE_WEIGHT, preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5))) != plain
    spec = BackboneSpec(name="tests.fakes:another", weights="none")
    assert fingerprint(spec, build(ONE_WEIGHT), Preprocessing()) != plain


def test_a_fingerprint_depends_neither_on_counters_nor_on_the_layout_in_memory():
    spec = BackboneSpec(weights="none")
    network = build_backbone(spec)
    plain = fingerprint(spec, network, Preprocessing())
    network.bn1.num_batches_tracked += 1
    network.to(memory_format=torch.channels_last)
    assert fingerprint(spec, network, Preprocessing()) == plain


def test_tensors_of_any_type_and_shape_have_a_fingerprint_by_their_values():
    def holding(**tensors):
        network = nn.Module()
        for name, tensor in tensors.items():
            network.register_buffer(name, tensor)
        return fingerprint(BackboneSpec(), network, Preprocessing())

    odd = torch.arange(20.0)[7:9:5]  # one number, five steps from the next
    assert holding(a=odd) == holding(a=torch.tensor([7.0])) != holding(a=torch.tensor(7.0))
    kinds = [torch.tensor([1], dtype=dtype) for dtype in (torch.bfloat16, torch.int16, torch.bool)]
    kinds += [torch.empty(0), torch.empty(0, 3), torch.tensor(1)]
    assert len({holding(a=tensor) for tensor in kinds}) == 6
    assert holding(a=kinds[0]) != holding(b=kinds[0])


def test_building_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build("googlenet")
