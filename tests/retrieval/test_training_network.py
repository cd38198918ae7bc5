"""Which weights learn, which statistics move, and which settings contradict each other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retrieval.errors import ModelError, UsageError
from retrieval.images import Preprocessing
from retrieval.models.backbones import BackboneSpec, build_backbone, fingerprint
from retrieval.training.network import BATCH_NORMS, build_network
from retrieval.training.objectives import OBJECTIVES, HeadSettings

BATCH_NORMED = "tests.fakes:batch_normed"
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def network_of(
    backbone=BATCH_NORMED, mode="full", batch_norm="train", loss="cross-entropy", seed=3, **head
):
    return build_network(
        BackboneSpec(name=backbone, weights="none", seed=seed),
        HeadSettings(loss=loss, num_classes=3, **head),
        mode=mode,
        batch_norm=batch_norm,
        size=32,
    )


def images_of(seed=0, count=6):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 + 1


LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def train_steps(network, steps=2):
    network.train()
    learning = [weight for weight in network.parameters() if weight.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        network(images_of(step), LABELS).loss.backward()
        optimizer.step()


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before, module):
    """Names of what is not the same to the last bit."""
    return {name for name, now in module.state_dict().items() if not torch.equal(now, before[name])}


def features_of(network):
    with torch.inference_mode():
        return network.eval()(images_of(9), LABELS).features.clone()


@pytest.mark.parametrize("mode", ["full", "from-scratch"])
def test_everything_learns(mode):
    network = network_of(mode=mode)
    assert all(weight.requires_grad for weight in network.parameters())
    before = state_of(network)
    train_steps(network, steps=1)
    assert all(weight.grad.abs().max() > 0 for weight in network.parameters())
    assert changed(before, network) == set(before)


@pytest.mark.parametrize("backbone", [BATCH_NORMED, "resnet18"])
def test_last_layer_trains_the_head_alone_but_statistics_move_and_so_do_the_features(backbone):
    network = network_of(backbone, "last-layer", "train")
    before, features = state_of(network), features_of(network)
    train_steps(network)
    assert all(weight.grad is None for weight in network.body.parameters())
    assert not any(weight.requires_grad for weight in network.body.parameters())
    moved = changed(before, network)
    assert {"objective.head.weight", "objective.head.bias"} < moved
    statistics = {name for name in before if name.endswith(STATISTICS)}
    assert moved == statistics | {"objective.head.weight", "objective.head.bias"}
    assert not torch.equal(features_of(network), features)


@pytest.mark.parametrize(
    ("backbone", "loss"),
    [(BATCH_NORMED, "cross-entropy"), (BATCH_NORMED, "arcface"), ("resnet18", "cross-entropy")],
)
def test_last_layer_with_frozen_statistics_leaves_the_embeddings_to_the_last_bit(backbone, loss):
    network = network_of(backbone, "last-layer", "frozen", loss)
    before, features = state_of(network), features_of(network)
    train_steps(network)
    moved = changed(before, network)
    assert moved
    assert all(name.startswith("objective.") for name in moved)
    assert torch.equal(features_of(network), features)
    spec, small = BackboneSpec(name=backbone, weights="none", seed=3), Preprocessing(size=32)
    untrained = fingerprint(spec, build_backbone(spec), small)
    assert fingerprint(spec, network.body, small) == untrained


def test_frozen_statistics_stay_where_all_weights_learn():
    network = network_of(mode="full", batch_norm="frozen")
    before = state_of(network)
    train_steps(network)
    assert changed(before, network) == {name for name in before if not name.endswith(STATISTICS)}


def test_frozen_statistics_are_what_normalises_in_training_too():
    network = network_of(mode="last-layer", batch_norm="frozen")
    expected = features_of(network)
    network.train()
    assert torch.equal(network(images_of(9), LABELS).features, expected)
    updated = network_of(mode="last-layer", batch_norm="train").train()
    assert not torch.equal(updated(images_of(9), LABELS).features, expected)


@pytest.mark.parametrize("batch_norm", BATCH_NORMS)
def test_training_mode_reaches_all_but_frozen_statistics_also_from_outside(batch_norm):
    network = network_of("resnet18", batch_norm=batch_norm, dropout=0.5)
    outer = nn.ModuleList([network])  # as inside DistributedDataParallel
    for mode in (True, False, True):
        outer.train(mode)
        for module in network.modules():
            is_frozen = batch_norm == "frozen" and isinstance(module, nn.BatchNorm2d)
            assert module.training == (mode and not is_frozen)
    assert network.train() is network


def test_the_answer_is_that_of_body_and_objective():
    network = network_of().eval()
    answer = network(images_of(), LABELS)
    features = network.body(images_of())
    loss, logits = network.objective(features, LABELS)
    assert torch.equal(answer.features, features)
    assert torch.equal(answer.logits, logits)
    assert torch.equal(answer.loss, loss)
    assert (answer.loss.shape, answer.logits.shape, answer.features.shape) == ((), (6, 3), (6, 6))


def test_only_a_body_that_learns_keeps_what_a_backward_pass_needs():
    assert network_of(mode="full")(images_of(), LABELS).features.requires_grad
    answer = network_of(mode="last-layer")(images_of(), LABELS)
    assert not answer.features.requires_grad
    assert answer.loss.requires_grad
    with torch.no_grad():
        assert not network_of(mode="full")(images_of(), LABELS).loss.requires_grad


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_half_precision_is_for_the_body_alone(loss):
    network = network_of(loss=loss).eval()
    seen = []
    network.body.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    with torch.autocast("cpu", torch.bfloat16):
        answer = network(images_of(), LABELS)
    assert seen[0].dtype == torch.bfloat16
    assert {value.dtype for value in answer} == {torch.float32}
    expected = network.objective(seen[0].float(), LABELS)
    assert torch.equal(answer.logits, expected.logits)
    assert torch.equal(answer.loss, expected.loss)


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_the_same_settings_give_the_same_weights_and_another_seed_others(loss):
    torch.manual_seed(1)
    first = state_of(network_of(loss=loss))
    torch.manual_seed(2)
    assert not changed(first, network_of(loss=loss))
    learning = {name for name, _ in network_of(loss=loss).named_parameters()}
    others = changed(first, network_of(loss=loss, seed=4))
    assert others == {name for name in learning if "norm" not in name}


def test_the_head_is_as_wide_as_the_features():
    assert network_of("tests.fakes:one_weight").objective.head.weight.shape == (3, 5)
    assert network_of("resnet18").objective.head.weight.shape == (3, 512)


def test_weights_contradict_training_from_scratch():
    with pytest.raises(UsageError) as caught:
        build_network(
            BackboneSpec(weights="imagenet"),
            HeadSettings(num_classes=3),
            mode="from-scratch",
            batch_norm="train",
            size=32,
        )
    assert str(caught.value) == (
        "`weights` imagenet: `mode` from-scratch starts from random weights. Leave `weights` "
        "out, or use `mode` full."
    )


def test_multi_similarity_contradicts_training_the_last_layer():
    with pytest.raises(UsageError) as caught:
        network_of(mode="last-layer", loss="multi-similarity")
    assert str(caught.value) == (
        "`loss` multi-similarity: judges the features, which `mode` last-layer does not train. "
        "Use `mode` full, or `loss` cross-entropy."
    )


def test_weights_that_cannot_be_read_are_refused(tmp_path):
    spec = BackboneSpec(weights=str(tmp_path / "none.pth"))
    with pytest.raises(ModelError, match="cannot be read"):
        build_network(spec, HeadSettings(num_classes=3), mode="full", batch_norm="train", size=32)


@pytest.mark.parametrize(
    ("mode", "batch_norm", "line"),
    [
        ("half", "train", "`mode` half: unknown. Use one of full, last-layer, from-scratch."),
        ("full", "thawed", "`batch_norm` thawed: unknown. Use one of train, frozen."),
    ],
)
def test_an_unknown_mode_is_not_taken_for_a_known_one(mode, batch_norm, line):
    with pytest.raises(UsageError) as caught:
        build_network(
            BackboneSpec(weights="none"),
            HeadSettings(num_classes=2),
            mode=mode,
            batch_norm=batch_norm,
            size=32,
        )
    assert str(caught.value) == line
