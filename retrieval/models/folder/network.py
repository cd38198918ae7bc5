"""Writing a trained network into a model folder, and loading it with every byte checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import safetensors.torch
import torch
from torch import Tensor, nn

from retrieval.errors import ModelError, UsageError
from retrieval.models.backbones import (
    BackboneSpec,
    build_backbone,
    fingerprint,
    inner_network,
    load_weights,
)
from retrieval.models.folder.manifest import (
    MANIFEST,
    WEIGHTS,
    ModelFacts,
    ModelFolder,
    format_manifest,
    parse_manifest,
)
from retrieval.models.own_networks import check_named
from retrieval.models.weights import read_weights_file
from retrieval.storage import (
    absolute_uri,
    first_line,
    is_no_answer,
    join,
    not_read,
    remove_written,
    write_bytes,
)

__all__ = ["load_network", "write_model"]

_ADVICE = "Copy the folder anew as a whole, or train again: retrieval-cli train PHOTOS MODEL"


def write_model(uri: str, body: nn.Module, head: nn.Linear, facts: ModelFacts) -> ModelFolder:
    """Write a model folder, in place of the model that may be there.

    The same weights and facts give the same bytes. A run that is killed in between leaves no
    model there, neither the old nor the new.

    Args:
        uri: Folder or address.
        body: The network without its head, as `build_backbone` gave it, trained since; on
            any device.
        head: From features (B, D) to classes. Its tensors are named fc.weight and fc.bias; in
            a network of one's own that has such names, fc.fc.weight and fc.fc.bias, and so on.
        facts: The rest of model.json.

    Returns:
        The folder, as `open_model` would give it.

    Raises:
        ModelError: the facts are no facts of this format, or contradict the head.
        StorageError: the folder cannot be written.
        TypeError, ValueError: training or metrics hold what JSON has no value for.
    """
    uri = absolute_uri(uri)
    weights = _save(body, head)
    written = format_manifest(
        ModelFolder(
            **vars(facts),
            uri=uri,
            dim=head.in_features,
            fingerprint=fingerprint(BackboneSpec(name=facts.backbone), body, facts.preprocessing),
            weights_sha256=hashlib.sha256(weights).hexdigest(),
        )
    )
    model = parse_manifest(uri, written)
    _check_head(model, head.weight.shape)
    remove_written(uri, [MANIFEST])  # until the end the folder is no model
    write_bytes(model.weights_uri, weights)
    write_bytes(join(uri, MANIFEST), written)
    return model


def _save(body: nn.Module, head: nn.Linear) -> bytes:
    state = inner_network(body).state_dict()
    prefix = _head_prefix(state)
    state.update({prefix + name: tensor for name, tensor in head.state_dict().items()})
    # Copies: safetensors takes neither tensors that share memory nor layouts other than plain.
    plain = {
        name: tensor.cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    return bytes(safetensors.torch.save(plain))


def _head_prefix(names: Iterable[str]) -> str:
    """Below which name the head's tensors are: one below which the body has none.

    It always begins with "fc.", which `load_weights` leaves out where the body has no such
    name, so that the file is good for every reader of a body alone.
    """
    taken = tuple(names)
    prefix = "fc."
    while any(name.startswith(prefix) for name in taken):
        prefix += "fc."
    return prefix


def load_network(model: ModelFolder, backbone: str | None = None) -> nn.Module:
    """The network without its head, as `build_backbone` gives it, with the model's weights.

    Args:
        model: As `open_model` gives it.
        backbone: The network's name as the caller knows it. A function, "package.module:function",
            must be named here: it is imported and called, which a folder alone must not bring
            about. Otherwise it may be left out.

    Raises:
        UsageError: the folder's network is a function that is not named, or another one is.
        StorageError: the disk or the store does not answer.
        ModelError: the weights cannot be read, or are not what model.json describes: every
            byte of the file, the head's shape and the fingerprint are checked.
    """
    check_named(model.uri, model.backbone, backbone)
    spec = BackboneSpec(name=model.backbone, weights="none")
    state = _read_weights(model)
    try:
        network = build_backbone(spec)
    except UsageError as error:
        raise ModelError(f"{model.uri}: its network cannot be built here. {error}") from error
    head = _head_prefix(inner_network(network).state_dict()) + "weight"
    _check_head(model, state[head].shape if head in state else ())
    load_weights(network, state, f"{_not_as_described(model)} as {model.backbone} it", _ADVICE)
    found = fingerprint(spec, network, model.preprocessing)
    if found != model.fingerprint:
        raise ModelError(
            f"{_not_as_described(model)} with that network and preprocessing its fingerprint is "
            f"{found[:12]}, not {model.fingerprint[:12]}. {_ADVICE}"
        )
    return network


def _read_weights(model: ModelFolder) -> dict[str, Tensor]:
    try:
        data = read_weights_file(model.weights_uri)
    except OSError as error:
        if is_no_answer(error):
            raise not_read(model.weights_uri, error) from error
        raise ModelError(
            f"{model.weights_uri}: cannot be read ({first_line(error)}). "
            f"Put the whole model folder where every machine can read it."
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != model.weights_sha256:
        raise ModelError(
            f"{_not_as_described(model)} its {len(data)} bytes have the sha256 {found[:12]}, not "
            f"{model.weights_sha256[:12]}. {_ADVICE}"
        )
    try:
        return dict(safetensors.torch.load(data))  # never a pickle, whatever the bytes are
    except Exception as error:  # it raises several types for broken bytes
        raise ModelError(
            f"{_not_as_described(model)} it holds no safetensors ({type(error).__name__}). "
            f"{_ADVICE}"
        ) from error


def _check_head(model: ModelFolder, shape: Sequence[int]) -> None:
    needed = (len(model.classes), model.dim)
    if tuple(shape) != needed:
        raise ModelError(
            f"{_not_as_described(model)} its head is {tuple(shape)}, but classes and dim are "
            f"{needed}. {_ADVICE}"
        )


def _not_as_described(model: ModelFolder) -> str:
    return f"{model.uri}: {WEIGHTS} is not what {MANIFEST} describes:"
