"""Losses against the published formulas in plain loops, and what reaches which weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from retrieval.errors import UsageError
from retrieval.training.objectives import OBJECTIVES, HeadSettings, build_objective


@pytest.fixture(params=range(4), ids="seed{}".format)
def batch(request):
    """12 features of 7 dimensions, of 4 classes."""
    generator = torch.Generator().manual_seed(request.param)
    labels = torch.arange(12) % 4
    return torch.randn(12, 7, generator=generator) + 1.5 * torch.eye(7)[labels], labels


def objective_of(loss, dim=7, num_classes=4, seed=0, **settings):
    head = HeadSettings(loss=loss, num_classes=num_classes, **settings)
    return build_objective(dim, head, seed=seed).eval()


def cosine(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def slow_cross_entropy(logits, labels, smoothing):
    """Mean of -Σ q log p, with q = (1 - ε) on the class and ε spread over all of them."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        largest = max(row)
        normaliser = largest + math.log(sum(math.exp(value - largest) for value in row))
        for number, value in enumerate(row):
            share = smoothing / len(row) + (1 - smoothing if number == label else 0)
            total -= share * (value - normaliser)
    return total / len(labels)


def slow_arcface(features, directions, labels):
    """Equation 3 of Deng et al.: 64 cos(θ + 28.6°) in the place of the class's logit."""
    total = 0.0
    for feature, label in zip(features, labels, strict=True):
        logits = []
        for number, direction in enumerate(directions):
            angle = math.acos(cosine(feature, direction))
            margin = math.radians(28.6) if number == label else 0
            assert angle + margin <= math.pi  # beyond that the formula is another one
            logits.append(64 * math.cos(angle + margin))
        largest = max(logits)
        normaliser = largest + math.log(sum(math.exp(value - largest) for value in logits))
        total += normaliser - logits[label]
    return total / len(labels)


def slow_multi_similarity(features, labels):
    """Wang et al., pair by pair: mining with ε = 0.1, then α = 2, β = 50, λ = 0.5."""
    total = 0.0
    for i in range(len(labels)):
        friends, others = [], []
        for j in range(len(labels)):
            if j != i:
                group = friends if labels[j] == labels[i] else others
                group.append(cosine(features[i], features[j]))
        hard_friends = [s for s in friends if s < max(others) + 0.1]
        hard_others = [s for s in others if s > min(friends) - 0.1]
        total += math.log(1 + sum(math.exp(-2 * (s - 0.5)) for s in hard_friends)) / 2
        total += math.log(1 + sum(math.exp(50 * (s - 0.5)) for s in hard_others)) / 50
    return total / len(labels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_cross_entropy_equals_its_definition_in_plain_loops(batch, smoothing):
    features, labels = batch
    objective = objective_of("cross-entropy", label_smoothing=smoothing)
    loss, logits = objective(features, labels)
    weight, bias = (each.tolist() for each in objective.linear_head().parameters())
    for row in range(12):
        for number in range(4):
            expected = bias[number]
            for place in range(7):
                expected += float(features[row, place]) * weight[number][place]
            assert logits[row, number].item() == pytest.approx(expected, abs=1e-5)
    assert loss.item() == pytest.approx(slow_cross_entropy(logits, labels, smoothing), rel=1e-5)


def test_cross_entropy_worked_by_hand():
    objective = objective_of("cross-entropy", dim=2, num_classes=2)
    with torch.no_grad():
        objective.head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        objective.head.bias.copy_(torch.tensor([0.0, 1.0]))
    # Logits (log 3, 0 + 1 - 1) = odds of 3 to 1; the class has 3/4.
    features = torch.tensor([[math.log(3), -1.0]])
    assert objective(features, torch.tensor([0])).loss.item() == pytest.approx(math.log(4 / 3))
    assert objective(features, torch.tensor([1])).loss.item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_dropout_drops_its_share_in_training_and_nothing_in_evaluation(loss):
    objective = objective_of(loss, dim=4000, num_classes=2, dropout=0.25)
    features, labels = torch.ones(4, 4000), torch.tensor([0, 0, 1, 1])
    steady = [objective(features, labels).logits for _ in range(2)]
    assert torch.equal(*steady)
    seen = []
    dropout = objective.beside.dropout if loss == "multi-similarity" else objective.dropout
    dropout.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    torch.manual_seed(0)
    shaken = [objective.train()(features, labels).logits for _ in range(2)]
    assert not torch.equal(*shaken)
    assert seen[0].unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert 0.22 < float((seen[0] == 0).float().mean()) < 0.28


def test_arcface_equals_the_published_formula(batch):
    features, labels = batch
    objective = objective_of("arcface")
    with torch.no_grad():  # near the class's own features, so that no angle is past 180 - 28.6
        objective.margin_loss.W.add_(3 * torch.eye(7)[:, :4])
    directions = objective.margin_loss.W.detach().T
    expected = slow_arcface(features, directions, labels.tolist())
    assert objective(features, labels).loss.item() == pytest.approx(expected, rel=1e-5)


def test_arcface_worked_by_hand():
    objective = objective_of("arcface", dim=2, num_classes=2)
    with torch.no_grad():
        objective.margin_loss.W.copy_(torch.tensor([[5.0, 0.0], [0.0, 0.1]]))
    # At 45 degrees to both classes, and the own one is pushed to 73.6; the rest is below 1e-11.
    judged = objective(torch.tensor([[2.0, 2.0]]), torch.tensor([0]))
    gap = 64 * (math.cos(math.radians(45)) - math.cos(math.radians(73.6)))
    assert judged.loss.item() == pytest.approx(gap, rel=1e-5)
    assert judged.logits.tolist() == [[pytest.approx(64 / math.sqrt(2), rel=1e-5)] * 2]


def test_arcface_knows_directions_and_no_lengths(batch):
    features, labels = batch
    objective = objective_of("arcface")
    lengths = 2.0 ** torch.arange(12)[:, None]
    plain, scaled = objective(features, labels), objective(features * lengths, labels)
    assert scaled.loss.item() == pytest.approx(plain.loss.item(), rel=1e-5)
    torch.testing.assert_close(scaled.logits, plain.logits)


def test_arcface_grows_with_the_angle_to_the_very_end():
    objective = objective_of("arcface", dim=3, num_classes=2)
    with torch.no_grad():  # the other class is square to all of the features
        objective.margin_loss.W.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]))
    angles = torch.deg2rad(torch.arange(50.0, 181.0, 5))
    features = torch.stack([angles.cos(), angles.sin(), angles * 0], dim=1)
    losses = [objective(one[None], torch.tensor([0])).loss.item() for one in features]
    assert losses == sorted(losses)
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_the_linear_head_ranks_classes_as_the_logits_do(batch, loss):
    features, labels = batch
    objective = objective_of(loss)
    logits = objective(features, labels).logits
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    head = objective.linear_head()
    assert torch.equal(head(features).argsort(dim=1), logits.argsort(dim=1))
    if loss != "arcface":  # whose logits are cosines, which know no lengths
        assert torch.equal(head(features), logits)
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_the_linear_head_of_arcface_holds_unit_directions_and_no_bias():
    objective = objective_of("arcface")
    head = objective.linear_head()
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(4))
    assert head.bias.tolist() == [0.0] * 4
    for direction, trained in zip(head.weight, objective.margin_loss.W.T, strict=True):
        assert cosine(direction.detach(), trained.detach()) > 0.99999


def test_multi_similarity_equals_its_definition_in_plain_loops(batch):
    features, labels = batch
    objective = objective_of("multi-similarity")
    loss, logits = objective(features, labels)
    beside = slow_cross_entropy(logits, labels, 0)
    pairs = slow_multi_similarity(features, labels.tolist())
    assert loss.item() - beside == pytest.approx(pairs, rel=1e-4)


def test_the_head_beside_multi_similarity_learns_and_does_not_reach_the_features(batch):
    features, labels = batch
    objective = objective_of("multi-similarity")
    ours, alone = (features.clone().requires_grad_() for _ in range(2))
    objective(ours, labels).loss.backward()
    objective.pair_loss(alone, labels, objective.miner(alone, labels)).backward()
    assert alone.grad.abs().max() > 0
    assert torch.equal(ours.grad, alone.grad)
    assert all(weight.grad.abs().max() > 0 for weight in objective.parameters())


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0]])
def test_a_batch_without_pairs_gives_multi_similarity_nothing_to_learn(labels):
    objective = objective_of("multi-similarity")
    features = torch.rand(len(labels), 7).requires_grad_()
    loss, logits = objective(features, torch.tensor(labels))
    loss.backward()
    assert loss.item() == pytest.approx(slow_cross_entropy(logits, torch.tensor(labels), 0))
    assert features.grad is None or not features.grad.any()


@pytest.mark.parametrize("loss", ["cross-entropy", "arcface"])
def test_every_weight_and_the_features_learn(batch, loss):
    features, labels = batch
    features.requires_grad_()
    objective = objective_of(loss)
    objective(features, labels).loss.backward()
    assert features.grad.abs().max() > 0
    assert all(weight.grad.abs().max() > 0 for weight in objective.parameters())


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_the_order_of_a_batch_does_not_matter(batch, loss):
    features, labels = batch
    order = torch.randperm(12, generator=torch.Generator().manual_seed(9))
    objective = objective_of(loss)
    plain, mixed = objective(features, labels), objective(features[order], labels[order])
    assert mixed.loss.item() == pytest.approx(plain.loss.item(), rel=1e-5)
    torch.testing.assert_close(mixed.logits, plain.logits[order])


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_weights_depend_on_the_seed_alone_and_leave_the_random_numbers_alone(loss):
    def weights(seed):
        return torch.cat(
            [weight.flatten() for weight in objective_of(loss, seed=seed).parameters()]
        )

    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first = weights(3)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights(3), first)
    assert not torch.equal(weights(4), first)
    assert objective_of(loss).linear_head().weight.shape == (4, 7)


@pytest.mark.parametrize("loss", ["arcface", "multi-similarity"])
def test_label_smoothing_is_refused_where_it_has_no_effect(loss):
    with pytest.raises(UsageError) as caught:
        objective_of(loss, label_smoothing=0.1)
    assert str(caught.value) == (
        f"`label_smoothing` 0.1: has no effect with `loss` {loss}. Leave it out, or use `loss` "
        f"cross-entropy."
    )


def test_an_unknown_loss_is_refused():
    with pytest.raises(UsageError) as caught:
        objective_of("triplet")
    assert str(caught.value) == (
        "`loss` triplet: unknown. Use one of cross-entropy, arcface, multi-similarity."
    )
