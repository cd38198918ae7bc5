"""What training goes on from: weights, optimizer, history, and the best weights so far."""

from __future__ import annotations

import copy
import os
import pickle
from itertools import pairwise

import pytest
import torch

from retrieval.training.checkpoints import Progress, is_better
from retrieval.training.epochs import train_epoch
from retrieval.training.optimizer import OPTIMIZERS, build_optimizer
from tests.retrieval.training import PLAIN, network_of, photos_of, state_of, train


def record(epoch=1, top_1=0.5, top_3=0.6, top_10=0.7, validation_loss=1.0):
    return {
        "epoch": epoch,
        "top_1": top_1,
        "top_3": top_3,
        "top_10": top_10,
        "validation_loss": validation_loss,
    }


def optimizer_of(network, name="adam"):
    return build_optimizer(name, network.parameters(), learning_rate=0.01, weight_decay=0.01)


def step(network, optimizer, number):
    train_epoch(
        network,
        optimizer,
        [photos_of(4, seed=number)],
        PLAIN,
        rate_at=lambda step: 0.01,
        on_step=lambda step: None,
    )


def are_equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_order_of_epochs_worked_by_hand():
    from_worst = [
        record(top_1=0.1, top_3=0.9, top_10=1.0, validation_loss=0.1),
        record(top_1=0.2, top_3=0.3, top_10=0.9, validation_loss=0.1),
        record(top_1=0.2, top_3=0.4, top_10=0.5, validation_loss=0.1),
        record(top_1=0.2, top_3=0.4, top_10=0.6, validation_loss=3.0),
        record(top_1=0.2, top_3=0.4, top_10=0.6, validation_loss=2.0),
        record(top_1=0.3, top_3=0.3, top_10=0.3, validation_loss=9.0),
    ]
    for worse, better in pairwise(from_worst):
        assert is_better(better, than=worse)
        assert not is_better(worse, than=better)
        assert not is_better(better, than=better)


def test_the_best_weights_are_those_of_the_best_epoch_and_stay_so():
    network, progress = network_of("tests.fakes:batch_normed"), Progress()
    assert (progress.best, progress.best_weights, progress.history) == (None, {}, [])
    after = []
    records = [record(number, top_1) for number, top_1 in enumerate([0.2, 0.6, 0.6, 0.1])]
    for number, each in enumerate(records):
        train(network, [photos_of(4, seed=number)], rate=0.1)
        after.append(state_of(network))
        progress.add(each, network)
        best = min(number, 1)  # of equal epochs the first one stays
        assert progress.best is records[best]
        assert are_equal(progress.best_weights, after[best])
    train(network, [photos_of(4)], rate=0.1)
    assert are_equal(progress.best_weights, after[1])
    assert not are_equal(progress.best_weights, state_of(network))
    assert progress.history == records
    assert not any(weight.requires_grad for weight in progress.best_weights.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_that_goes_on_gives_the_weights_of_training_that_was_not_stopped(tmp_path, name):
    network = network_of("tests.fakes:batch_normed")
    optimizer, progress = optimizer_of(network, name), Progress()
    for number in range(3):
        step(network, optimizer, number)
        progress.add(record(number, top_1=1 - number / 10), network)  # the first one is the best
    progress.save(tmp_path, network, optimizer)
    saved = state_of(network)
    again = network_of("tests.fakes:batch_normed")
    optimizer_again = optimizer_of(again, name)
    Progress.load(tmp_path, again, optimizer_again)
    assert are_equal(state_of(again), saved)
    for number in range(3, 6):
        step(network, optimizer, number)
        step(again, optimizer_again, number)
    assert are_equal(state_of(again), state_of(network))
    # Without the optimizer's state it would have been another training.
    forgetful = network_of("tests.fakes:batch_normed")
    Progress.load(tmp_path, forgetful)
    optimizer_of_its_own = optimizer_of(forgetful, name)
    for number in range(3, 6):
        step(forgetful, optimizer_of_its_own, number)
    assert not are_equal(state_of(forgetful), state_of(network))


def test_history_and_best_weights_come_back_as_they_were(tmp_path):
    network, progress = network_of("tests.fakes:batch_normed"), Progress()
    optimizer = optimizer_of(network)
    for number, top_1 in enumerate([0.1, 1 / 3, 1 / 3, 0.2]):
        step(network, optimizer, number)
        progress.add(record(number, top_1, validation_loss=0.1 + 0.2), network)
    progress.save(tmp_path, network, optimizer)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["history.json", "state.pt"]
    found = Progress.load(tmp_path)
    assert found.history == progress.history
    assert found.best == progress.best == progress.history[1]
    assert are_equal(found.best_weights, progress.best_weights)
    # And it goes on from there: a worse epoch changes nothing, a better one everything.
    kept = copy.deepcopy(found.best_weights)
    found.add(record(4, 0.3), network)
    assert are_equal(found.best_weights, kept)
    found.add(record(5, 0.4), network)
    assert are_equal(found.best_weights, state_of(network))
    assert len(found.history) == 6
    assert len(progress.history) == 4


def test_a_network_that_is_loaded_is_apart_from_the_best_weights(tmp_path):
    network, progress = network_of(), Progress()
    optimizer = optimizer_of(network)
    progress.add(record(), network)
    progress.save(tmp_path, network, optimizer)
    found = Progress.load(tmp_path, network, optimizer)
    kept = copy.deepcopy(found.best_weights)
    step(network, optimizer, 0)
    assert are_equal(found.best_weights, kept)


class Malicious:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def test_nothing_is_unpickled_but_tensors_and_plain_values(tmp_path):
    network, progress = network_of(), Progress()
    progress.save(tmp_path, network, optimizer_of(network))
    state = torch.load(tmp_path / "state.pt")
    mark = tmp_path / "executed"
    torch.save({**state, "best": Malicious(str(mark))}, tmp_path / "state.pt")
    with pytest.raises(pickle.UnpicklingError):
        Progress.load(tmp_path)
    assert not mark.exists()
