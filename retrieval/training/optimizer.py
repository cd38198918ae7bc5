"""Optimizers and the learning rate over time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn, optim

__all__ = ["OPTIMIZERS", "Schedule", "build_optimizer"]

OPTIMIZERS: Mapping[str, Callable[..., optim.Optimizer]] = {
    # fused: one pass over all weights in place of a dozen small ones for each of 60 tensors.
    "adam": partial(optim.Adam, fused=True),
    "adamw": partial(optim.AdamW, fused=True),
    # Momentum, since plain SGD trains no deep network.
    "sgd": partial(optim.SGD, momentum=0.9, nesterov=True, fused=True),
}


def build_optimizer(
    name: str, parameters: Iterable[nn.Parameter], *, learning_rate: float, weight_decay: float
) -> optim.Optimizer:
    """Build an optimizer over the weights that learn.

    Args:
        name: One of OPTIMIZERS; sgd has Nesterov's momentum of 0.9.
        parameters: All weights; those without gradient are left out.
        learning_rate: At the start, after the warm-up.
        weight_decay: As the optimizer means it: adamw decouples it, the others add it to the
            gradient.
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    return OPTIMIZERS[name](learning, lr=learning_rate, weight_decay=weight_decay)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate: a linear warm-up, and an exponential decay by the epoch.

    Attributes:
        learning_rate: Of epoch 0, after the warm-up.
        decay: Factor from one epoch to the next; the paper's is 0.96.
        warmup_epochs: Over how many epochs the rate rises from near 0; 0 for none.
    """

    learning_rate: float
    decay: float = 0.96
    warmup_epochs: float = 0.0

    def at(self, epoch: int, step: int, num_steps: int) -> float:
        """The rate of one step.

        Args:
            epoch: Number of the epoch, from 0.
            step: Number of the step in it, from 0.
            num_steps: Steps of an epoch.

        Example:
            >>> Schedule(learning_rate=1.0, decay=0.5, warmup_epochs=1).at(0, 1, 4)
            0.5
            >>> Schedule(learning_rate=1.0, decay=0.5, warmup_epochs=1).at(2, 3, 4)
            0.25
        """
        rate = self.learning_rate * self.decay**epoch
        if not self.warmup_epochs:
            return rate
        return rate * min(1.0, (epoch + (step + 1) / num_steps) / self.warmup_epochs)
