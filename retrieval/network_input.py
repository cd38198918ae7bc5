"""Pixels → what a network takes; the same for training and embedding."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.images import Preprocessing

__all__ = ["as_network_input"]


def as_network_input(
    pixels: NDArray[np.uint8], preprocessing: Preprocessing, device: torch.device
) -> Tensor:
    """Move photos to the device as bytes, and normalise them there.

    Args:
        pixels: uint8 (B, S, S, 3), RGB.
        preprocessing: Mean and standard deviation of each channel.
        device: Where the network is.

    Returns:
        float32 (B, 3, S, S).
    """
    # A copy of what Ray and Arrow give: their memory is read-only, about which torch warns.
    writable = np.require(pixels, requirements="W")
    images = torch.from_numpy(writable).to(device).permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(preprocessing.mean, device=device).view(3, 1, 1)
    std = torch.tensor(preprocessing.std, device=device).view(3, 1, 1)
    return (images - mean) / std
