"""A network of some kilobytes whose first weights are the same whatever draws torch's numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Tiny(nn.Module):
    """(B, 3, S, S) → (B, 12): two convolutions, averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 4, stride=2), nn.ReLU(), nn.Conv2d(6, 12, 3, stride=2), nn.ReLU()
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean(dim=(2, 3)) + 0.01


def fill_by_count(network: nn.Module) -> None:
    """Give each tensor of a network the same multiples of 2⁻⁸ in turn, without any chance."""
    with torch.no_grad():
        for number, tensor in enumerate(network.state_dict().values()):
            counted = (torch.arange(tensor.numel()) * 37 + number * 11) % 101 - 50
            tensor.copy_((counted / 256).reshape(tensor.shape))


def tiny() -> nn.Module:
    network = Tiny()
    fill_by_count(network)
    return network
