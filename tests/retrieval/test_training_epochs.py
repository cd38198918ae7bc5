"""One pass over training photos: a step by hand, shares of several workers, losses that end it."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from retrieval.errors import TrainingError
from retrieval.training import epochs
from retrieval.training.epochs import Device, train_epoch
from retrieval.training.network import Answer
from tests.retrieval.training import (
    CPU,
    PLAIN,
    SMALL,
    by_hand,
    network_of,
    photos_of,
    share_of,
    state_of,
    train,
)


def gradients_of(network):
    return torch.cat([weight.grad.flatten() for weight in network.parameters()])


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_step_equals_one_in_plain_torch(channels_last):
    network, batch = network_of(), photos_of(6)
    before = state_of(network)
    loss, logits, gradients = by_hand(network, batch)
    device = Device(CPU, SMALL, channels_last=channels_last)
    figures = train(network, [batch], rate=0.25, device=device)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(weight.detach(), before[name] - 0.25 * gradients[name])
        assert gradients[name].abs().max() > 0
    # The figures are those of the network before the step.
    assert figures.loss == pytest.approx(loss, rel=1e-5)
    assert figures.accuracy == float(np.mean(logits.argmax(dim=1).numpy() == batch.labels))


def test_a_step_starts_from_no_gradients_of_the_step_before():
    network, batches = network_of(), [photos_of(4, seed) for seed in range(3)]
    alone = copy.deepcopy(network)
    train(network, batches)
    train(alone, batches[-1:])
    assert torch.equal(gradients_of(network), gradients_of(alone))


def test_the_figures_equal_plain_loops_over_the_photos():
    network = network_of()
    batches = [photos_of(count, seed=count) for count in (5, 1, 8)]
    losses, hits = [], []
    for batch in batches:
        for row in range(len(batch.labels)):
            loss, logits, _ = by_hand(network, share_of(batch, [row]))
            losses.append(loss)
            hits.append(max(range(3), key=lambda number: logits[0, number]) == batch.labels[row])
    assert 0 < sum(hits) < 14
    figures = train(network, batches)
    assert figures.num_photos == 14
    assert figures.loss == pytest.approx(sum(losses) / 14, rel=1e-5)
    assert figures.accuracy == pytest.approx(sum(hits) / 14)


def test_each_step_has_the_learning_rate_of_its_number():
    network, seen = network_of(), []
    weight = network.objective.head.weight
    before = [weight.detach().clone()]

    def note(step):
        seen.append((step, not torch.equal(weight, before[-1])))
        before.append(weight.detach().clone())

    train(network, [photos_of(4)] * 4, rates=[0.1, 0.0, 0.0, 0.2], on_step=note)
    assert seen == [(1, True), (2, False), (3, False), (4, True)]


def test_training_is_in_training_mode_and_sets_the_optimizer_s_every_group():
    network = network_of(dropout=0.5).eval()
    groups = [{"params": [weight]} for weight in network.parameters()]
    optimizer = torch.optim.SGD(groups, lr=77.0)
    rates = dict(rate_at=lambda step: 0.5, on_step=lambda step: None)
    train_epoch(network, optimizer, [photos_of(4)], PLAIN, **rates)
    assert all(module.training for module in network.modules())
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}


def two_workers(monkeypatch, add=lambda sums: sums):
    """As if there were two; `add` is what the other one has summed."""
    fake = SimpleNamespace(
        is_initialized=lambda: True,
        get_world_size=lambda: 2,
        all_reduce=lambda sums: sums.copy_(add(sums)),
    )
    monkeypatch.setattr(epochs, "dist", fake)


@pytest.mark.parametrize("first", [1, 3, 4, 7])
def test_gradients_averaged_over_uneven_shares_are_those_of_the_whole_batch(monkeypatch, first):
    batch, whole = photos_of(8), network_of()
    shares = [share_of(batch, slice(first)), share_of(batch, slice(first, None))]
    copies = [copy.deepcopy(whole) for _ in shares]
    train(whole, [batch])
    two_workers(monkeypatch)
    for network, share in zip(copies, shares, strict=True):
        train(network, [share])
    average = (gradients_of(copies[0]) + gradients_of(copies[1])) / 2
    torch.testing.assert_close(average, gradients_of(whole), rtol=1e-5, atol=1e-7)


def test_the_figures_are_those_of_all_workers(monkeypatch):
    network, batch = network_of(), photos_of(4)
    alone = train(network, [batch])
    # The other one: 12 photos, 3 hits, losses that sum to 6.
    two_workers(monkeypatch, lambda sums: sums + torch.tensor([6.0, 3.0, 12.0]))
    found = train(network, [batch])
    assert found.num_photos == 16
    assert found.loss == pytest.approx((alone.loss * 4 + 6) / 16)
    assert found.accuracy == pytest.approx((alone.accuracy * 4 + 3) / 16)


def test_what_is_summed_at_a_check_in_between_is_not_summed_again_at_the_end(monkeypatch):
    two_workers(monkeypatch, lambda sums: 2 * sums)
    figures = train(Scripted([1.0, 2.0] * 60), [photos_of(2)] * 120)
    assert (figures.loss, figures.num_photos) == (1.5, 480)


class Scripted(nn.Module):
    """Gives the losses that it is told to."""

    def __init__(self, losses):
        super().__init__()
        self.losses = iter(losses)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images, labels):
        logits = torch.zeros(len(labels), 3)
        return Answer(next(self.losses) + 0 * self.weight, logits, logits)


@pytest.mark.parametrize(
    ("wrong", "num_steps", "by_step"),
    [(0, 120, 50), (49, 50, 50), (50, 120, 100), (110, 120, 120), (2, 7, 7), (0, 1, 1)],
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_finite_number_ends_training(wrong, num_steps, by_step, value):
    losses = [value if step == wrong else 1.0 for step in range(num_steps)]
    batch, seen = photos_of(2), []
    with pytest.raises(TrainingError) as caught:
        train(Scripted(losses), [batch] * num_steps, on_step=seen.append)
    assert str(caught.value) == f"the loss is {value} by step {by_step}"
    is_at_the_end = by_step % 50 != 0
    assert seen == list(range(1, by_step + is_at_the_end))


def test_finite_losses_end_nothing():
    figures = train(Scripted([1.0, 2.0] * 60), [photos_of(2)] * 120)
    assert (figures.loss, figures.num_photos) == (1.5, 240)


def test_a_loss_of_another_worker_ends_training_here_too(monkeypatch):
    two_workers(monkeypatch, lambda sums: sums + torch.tensor([math.nan, 0.0, 2.0]))
    with pytest.raises(TrainingError, match=r"^the loss is nan by step 3$"):
        train(Scripted([1.0] * 3), [photos_of(2)] * 3)


def test_waiting_for_photos_is_told_from_computing_worked_by_hand(monkeypatch):
    # The start; for each step when its photos are there and when it is done; the stream's end.
    clock = iter([100, 105, 108, 109, 119, 121, 122, 125])
    monkeypatch.setattr(epochs, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    figures = train(Scripted([1.0] * 3), [photos_of(2)] * 3)
    assert figures.wait_s == 5 + 1 + 2 + 3
    assert figures.step_s == 3  # the median of 3, 10 and 1


def a_worker(rank, folder):
    torch.set_num_threads(1)
    epochs.dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    network = network_of()
    trained = DistributedDataParallel(network)
    rows = [slice(5), slice(5, None)][rank]
    figures = train(trained, [share_of(photos_of(8, seed), rows) for seed in (0, 1)], rate=0.3)
    try:
        losses = [1.0, math.nan if rank else 1.0, 1.0]
        train(Scripted(losses), [photos_of(2)] * 3)
        end = "none"
    except TrainingError as error:
        end = str(error)
    torch.save((state_of(network), figures.loss, figures.accuracy, end), f"{folder}/{rank}.pt")
    epochs.dist.destroy_process_group()


def test_two_workers_with_uneven_shares_train_as_one(tmp_path):
    mp.spawn(a_worker, (str(tmp_path),), nprocs=2)
    alone = network_of()
    figures = train(alone, [photos_of(8, seed) for seed in (0, 1)], rate=0.3)
    for rank in range(2):
        state, loss, accuracy, end = torch.load(tmp_path / f"{rank}.pt")
        assert (loss, accuracy) == (pytest.approx(figures.loss), pytest.approx(figures.accuracy))
        assert end == "the loss is nan by step 3"
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(state[name], value)
