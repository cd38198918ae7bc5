"""The learning rate of each step, and single steps of the optimizers, worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retrieval.training.optimizer import OPTIMIZERS, Schedule, build_optimizer


def one_step(name, *, weight=2.0, gradients=(0.0,), learning_rate=0.1, weight_decay=0.0):
    """Where a weight is after steps with the given gradients."""
    parameter = nn.Parameter(torch.tensor([weight], dtype=torch.float64))
    optimizer = build_optimizer(
        name, [parameter], learning_rate=learning_rate, weight_decay=weight_decay
    )
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    return parameter.item()


@pytest.mark.parametrize(
    ("warmup", "epoch", "step", "expected"),
    [
        (0, 0, 0, 8.0), (0, 0, 3, 8.0), (0, 1, 0, 4.0), (0, 3, 2, 1.0),
        (1, 0, 0, 2.0), (1, 0, 1, 4.0), (1, 0, 3, 8.0), (1, 1, 0, 4.0),
        (0.5, 0, 0, 4.0), (0.5, 0, 1, 8.0), (0.5, 0, 2, 8.0),
        # Over two epochs of four steps: 5/8 of what epoch 1 would have.
        (2, 0, 0, 1.0), (2, 1, 0, 2.5), (2, 1, 3, 4.0), (2, 2, 0, 2.0),
    ],
)  # fmt: skip
def test_the_learning_rate_worked_by_hand(warmup, epoch, step, expected):
    schedule = Schedule(learning_rate=8.0, decay=0.5, warmup_epochs=warmup)
    assert schedule.at(epoch, step, num_steps=4) == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [0.0, 0.7, 3.0])
@pytest.mark.parametrize("num_steps", [1, 5])
def test_the_learning_rate_equals_its_definition_in_a_plain_loop(warmup, num_steps):
    schedule = Schedule(learning_rate=0.3, decay=0.9, warmup_epochs=warmup)
    full, steps_done = 0.3, 0
    for epoch in range(6):
        for step in range(num_steps):
            steps_done += 1
            steps_of_warmup = warmup * num_steps
            share = steps_done / steps_of_warmup if steps_done < steps_of_warmup else 1.0
            assert schedule.at(epoch, step, num_steps) == pytest.approx(full * share)
        full *= 0.9


def test_the_learning_rate_is_never_zero_and_ends_a_warm_up_at_its_full_height():
    schedule = Schedule(learning_rate=1.0, decay=1.0, warmup_epochs=2)
    rates = [schedule.at(epoch, step, 10) for epoch in range(3) for step in range(10)]
    assert min(rates) == rates[0] == pytest.approx(1 / 20)
    assert rates == sorted(rates)
    assert rates[19:] == [1.0] * 11
    assert rates[18] < 1


def test_the_decay_of_the_paper_is_the_default():
    assert Schedule(learning_rate=1.0).at(2, 0, 5) == pytest.approx(0.96 * 0.96)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_that_are_frozen_are_left_out_and_do_not_move(name):
    frozen, learning = (nn.Parameter(torch.ones(2), requires_grad=flag) for flag in (False, True))
    optimizer = build_optimizer(name, iter([frozen, learning]), learning_rate=0.1, weight_decay=0.1)
    assert [group["params"] for group in optimizer.param_groups] == [[learning]]
    (learning.sum() + frozen.sum()).backward()
    optimizer.step()
    assert frozen.tolist() == [1.0, 1.0]
    assert learning.max() < 1


def test_sgd_has_nesterov_s_momentum_worked_by_hand():
    # Velocity 1, then 0.9 + 1; a step is the gradient and 0.9 of the velocity: 1.9 and 2.71.
    assert one_step("sgd", gradients=[1.0]) == pytest.approx(2 - 0.1 * 1.9)
    assert one_step("sgd", gradients=[1.0, 1.0]) == pytest.approx(2 - 0.1 * (1.9 + 2.71))


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("gradient", [-7.0, 0.01])
def test_a_first_step_of_adam_is_as_long_as_the_learning_rate(name, gradient):
    expected = 2 + 0.1 if gradient < 0 else 2 - 0.1
    assert one_step(name, gradients=[gradient]) == pytest.approx(expected, abs=1e-6)


def test_a_second_step_of_adam_worked_by_hand():
    # Gradients 1 and 3: mean (0.9 · 0.1 + 0.3) / 0.19, square (0.999 · 0.001 + 0.009) / 0.001999.
    mean, square = 0.39 / 0.19, 0.009999 / 0.001999
    assert one_step("adam", gradients=[1.0, 3.0]) == pytest.approx(1.9 - 0.1 * mean / square**0.5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adamw", 2 - 0.1 * 0.5 * 2),  # shrinks the weight itself
        ("sgd", 2 - 0.1 * 1.9 * (0.5 * 2)),  # is a gradient of 0.5 · 2
        ("adam", 2 - 0.1),  # is one too, of which Adam takes the direction
    ],
)
def test_weight_decay_reaches_the_optimizer_as_it_means_it(name, expected):
    assert one_step(name, weight_decay=0.5) == pytest.approx(expected, abs=1e-6)
    assert one_step(name, weight_decay=0.0) == 2


def test_the_optimizers_are_those_of_torch():
    kinds = {
        name: type(
            build_optimizer(
                name, [nn.Parameter(torch.ones(1))], learning_rate=0.1, weight_decay=0.0
            )
        )
        for name in OPTIMIZERS
    }
    assert kinds == {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
