"""Networks without their head: photos in, one feature vector each out.

The seven networks of torchvision that the method uses, with the last layer cut off, so that
what comes out is the average-pooled feature map; or anyone's own, as "package.module:function".
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retrieval.choices import BACKBONES
from retrieval.errors import ModelError, UsageError
from retrieval.images import Preprocessing
from retrieval.models.own_networks import default_weights, is_own
from retrieval.models.weights import fit_weights, read_weights
from retrieval.storage import absolute_uri, first_line

__all__ = [
    "BACKBONES",
    "BackboneSpec",
    "build_backbone",
    "fetch_imagenet_weights",
    "fingerprint",
    "imagenet_weights_file",
    "inner_network",
    "load_weights",
]

_POOLING = "average"


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """Which network, with which weights. Plain values: each worker builds its own.

    Attributes:
        name: One of BACKBONES, or "package.module:function" that returns an nn.Module from
            (B, 3, S, S) float32 to (B, D), or to (B, D, H, W), which is then averaged.
        weights: "imagenet" (torchvision's, from its cache or downloaded), "none" (random,
            from `seed`; for one's own function: as it returns it), or the path or address
            of a state dict as .safetensors or .pth. "" for imagenet, or none for a function.
        seed: Seed of the random weights.
    """

    name: str = "resnet18"
    weights: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", self.weights or default_weights(self.name))


def build_backbone(spec: BackboneSpec) -> nn.Module:
    """Build a network without its head, on the CPU, in evaluation mode.

    Returns:
        A module from (B, 3, S, S) float32 to features (B, D).

    Raises:
        UsageError: the name is unknown, or names no function.
        ModelError: the weights are missing, unsafe to load, or do not fit; it names the
            file or the layers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        network = _own_network(spec.name) if is_own(spec.name) else _torchvision_network(spec.name)
    advice = "These weights are of another network; name the right `backbone`."
    if spec.weights == "imagenet":
        state = read_weights(str(fetch_imagenet_weights(spec.name)))
        subject = f"{spec.name}, weights imagenet:"
        load_weights(network, state, subject, advice)
    elif spec.weights != "none":
        state, subject = read_weights(spec.weights), f"{absolute_uri(spec.weights)}:"
        load_weights(network, state, subject, advice)
    return network.eval().requires_grad_(False)


def _torchvision_network(name: str) -> nn.Module:
    if name not in BACKBONES:
        raise UsageError(
            f"`backbone` {name}: unknown. Use one of {', '.join(BACKBONES)}, or "
            f"package.module:function for a network of your own."
        )
    import torchvision  # takes seconds, and networks of one's own do without

    build = torchvision.models.get_model_builder(name)
    if name == "googlenet":
        # transform_input: its ImageNet weights want inputs in [-1, 1], and it converts them.
        network = build(aux_logits=False, transform_input=True, init_weights=True)
    else:
        network = build()
    network.fc = nn.Identity()
    return network


class _Pooled(nn.Module):
    """Anyone's network, with a feature map averaged to one vector."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network = network
        self._name = name

    def forward(self, images: Tensor) -> Tensor:
        features = self.network(images)
        is_tensor = isinstance(features, Tensor)
        if not is_tensor or features.ndim not in (2, 4):
            found = f"shape {tuple(features.shape)}" if is_tensor else type(features).__name__
            raise UsageError(
                f"`backbone` {self._name}: gives features of {found}; a tensor of (B, D) or "
                f"(B, D, H, W) is needed."
            )
        return features.mean(dim=(2, 3)) if features.ndim == 4 else features


def _own_network(name: str) -> nn.Module:
    module, _, function = name.partition(":")
    try:
        build: Callable[[], Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UsageError(
            f"`backbone` {name}: cannot be imported ({first_line(error)}). Name a function that "
            f"Python can import here and on each worker (PYTHONPATH), as package.module:function."
        ) from error
    if not callable(build) or isinstance(build, nn.Module):
        raise UsageError(
            f"`backbone` {name}: is a {type(build).__name__}; a function without arguments that "
            f"returns a torch.nn.Module is needed."
        )
    network = build()
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"`backbone` {name}: returned a {type(network).__name__}; a torch.nn.Module is needed."
        )
    return _Pooled(network.cpu(), name)


def imagenet_weights_file(name: str) -> Path:
    """Where torchvision keeps the ImageNet weights of a network, whether they are there or not.

    Raises:
        UsageError: it has none.
    """
    address = _imagenet_address(name)
    return Path(torch.hub.get_dir(), "checkpoints", address.rsplit("/", 1)[1])


def fetch_imagenet_weights(name: str) -> Path:
    """Have the ImageNet weights of a network in torchvision's cache, downloaded if need be.

    Raises:
        UsageError: it has none.
        ModelError: they are not there and cannot be downloaded.
    """
    address, cached = _imagenet_address(name), imagenet_weights_file(name)
    try:
        if not cached.exists():
            # Not get_state_dict(): it prints on stdout, where reports go, and runs pickles.
            cached.parent.mkdir(parents=True, exist_ok=True)
            hash_prefix = cached.stem.rpartition("-")[2]
            torch.hub.download_url_to_file(address, str(cached), hash_prefix, progress=False)
    except (OSError, HTTPException, RuntimeError) as error:
        raise ModelError(
            f"`weights` imagenet: {cached} is missing and cannot be downloaded "
            f"({first_line(error)}). Put {address} there, or use `weights` FILE or none."
        ) from error
    return cached


def _imagenet_address(name: str) -> str:
    """Of the weights that the paper began with: IMAGENET1K_V1."""
    if name not in BACKBONES:
        raise UsageError(
            f"`weights` imagenet: not known for {name}. Use `weights` none to keep what the "
            f"function returns, or name a file."
        )
    import torchvision

    return str(torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].url)


def inner_network(network: nn.Module) -> nn.Module:
    """The module whose names a file of weights has: somebody's own network is wrapped in ours."""
    return network.network if isinstance(network, _Pooled) else network


def load_weights(
    network: nn.Module, state: Mapping[str, Tensor], subject: str, advice: str
) -> None:
    """Load weights into what `build_backbone` gives.

    Args:
        network: Is changed in place.
        state: Names as in `inner_network`; a head is left out.
        subject: Begins the error: what does not fit.
        advice: Ends it.

    Raises:
        ModelError: anything but a head is too much, missing, or of another shape.
    """
    fit_weights(inner_network(network), state, subject, advice)


def fingerprint(spec: BackboneSpec, network: nn.Module, preprocessing: Preprocessing) -> str:
    """Hash of all that decides an embedding: weights, network, pooling, preprocessing.

    Equal for the same weights whether they came from a file, the cache or a seed.

    Returns:
        64 hexadecimal digits (sha256).

    Cost: one pass over the weights, about 1 GB/s.
    """
    head = {"network": spec.name, "pooling": _POOLING, "images": preprocessing.fingerprint()}
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for name, tensor in sorted(network.state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # A copy, since even contiguous() keeps odd strides where a side is 1, as in 1 × 1 filters.
        plain = tensor.cpu().clone(memory_format=torch.contiguous_format).reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()
