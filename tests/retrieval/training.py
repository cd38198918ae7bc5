"""Small networks and photos to train on, and one step of training by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from retrieval.images import Preprocessing
from retrieval.models.backbones import BackboneSpec
from retrieval.training.epochs import Device, PhotoBatch, train_epoch
from retrieval.training.network import build_network
from retrieval.training.objectives import HeadSettings

SIDE = 16
CPU = torch.device("cpu")
SMALL = Preprocessing(size=SIDE, mean=(0.5, 0.25, 0.125), std=(0.5, 1.0, 0.25))
PLAIN = Device(CPU, SMALL)


def network_of(backbone="tests.fakes:one_weight", loss="cross-entropy", dropout=0.0):
    return build_network(
        BackboneSpec(name=backbone, weights="none", seed=5),
        HeadSettings(loss=loss, num_classes=3, dropout=dropout),
        mode="full",
        batch_norm="train",
        size=SIDE,
    )


def photos_of(count, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    return PhotoBatch(pixels, rng.integers(0, 3, count), count)


def share_of(batch, rows):
    return PhotoBatch(batch.pixels[rows], batch.labels[rows], batch.num_photos)


def train(network, batches, *, rates=None, device=PLAIN, on_step=lambda step: None, rate=0.0):
    optimizer = torch.optim.SGD([w for w in network.parameters() if w.requires_grad], lr=77.0)
    rate_at = (lambda step: rates[step]) if rates else (lambda step: rate)
    return train_epoch(network, optimizer, batches, device, rate_at=rate_at, on_step=on_step)


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def by_hand(network, batch):
    """Loss, logits and gradients in plain torch: one convolution, its average, one layer."""
    weights = {name: value.detach().clone() for name, value in network.named_parameters()}
    for weight in weights.values():
        weight.requires_grad_()
    scaled = (batch.pixels / np.float32(255) - np.float32(SMALL.mean)) / np.float32(SMALL.std)
    images = torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))
    prefix = "body.network.conv."
    maps = nn.functional.conv2d(images, weights[f"{prefix}weight"], weights[f"{prefix}bias"], 8)
    features = maps.clamp(min=0).mean(dim=(2, 3))
    logits = features @ weights["objective.head.weight"].T + weights["objective.head.bias"]
    labels = torch.from_numpy(batch.labels)
    loss = -torch.log_softmax(logits, dim=1)[torch.arange(len(labels)), labels].mean()
    loss.backward()
    return loss.item(), logits.detach(), {name: value.grad for name, value in weights.items()}
