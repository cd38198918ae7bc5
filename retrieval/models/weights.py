"""Weights of networks in files: read without running anything, and laid into a network by name.

What training scripts and wrappers put around a network is taken off: the dict that holds the
state dict, the prefix that all names have, and parts of names that only say how it was run.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from retrieval.errors import ModelError
from retrieval.storage import (
    absolute_uri,
    file_stamp,
    first_line,
    is_no_answer,
    not_read,
    open_input,
    read_bounded,
)

__all__ = ["fit_weights", "read_weights", "read_weights_file"]

_MAX_BYTES = 2**34  # more than any network that is used for photos; read whole
_HEADS = ("fc.", "aux1.", "aux2.")  # GoogLeNet trains with two more heads; none is kept
# Names by which training scripts hold a state dict, the likeliest first, at most so deep.
_HOLDERS = (
    "state_dict", "model_state_dict", "model", "module", "network", "net", "weights",
    "ema_state_dict", "state_dict_ema", "model_ema", "ema",
)  # fmt: skip
_MAX_HOLDERS = 8
# Parts of names that torch.compile, FSDP and checkpointing add anywhere.
_ADDED = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_COUNTER = "n_averaged"  # of torch.optim.swa_utils.AveragedModel


def read_weights(weights: str) -> dict[str, Tensor]:
    """A state dict from a file; the content tells safetensors from a pickle of tensors.

    Args:
        weights: Path or address.

    Raises:
        ModelError: it cannot be read, is no plain file, is damaged or larger than 16 GiB, or holds
            more than tensors.
        StorageError: the store does not answer.

    Cost: memory of twice the file. What makes no weights by its first bytes is not read.
    """
    uri = absolute_uri(weights)
    try:
        data = _read(uri)
    except OSError as error:
        if is_no_answer(error):
            raise not_read(uri, error) from error
        raise ModelError(
            f"`weights` {weights}: cannot be read ({first_line(error)}). "
            f"Use imagenet, none, or a .safetensors or .pth file."
        ) from error
    try:
        if _is_safetensors(data):
            state = safetensors.torch.load(data)
        else:
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # the loaders raise a dozen types for broken bytes
        raise _unsafe(uri, type(error).__name__) from error
    return _state_dict(uri, state)


def _unsafe(uri: str, why: str) -> ModelError:
    # Not what torch says: it recommends to load the file without its safeguard.
    return ModelError(
        f"{uri}: cannot be loaded safely ({why}): it is damaged, or holds "
        f"more than tensors. Fetch it again, or save the weights anew, with safetensors or "
        f"with torch.save(model.state_dict(), FILE)."
    )


def _read(uri: str) -> bytes:
    """The bytes of a file of weights, if its ends and its size are those of one."""
    with open_input(uri) as stream:
        head = stream.read(16)
    size_bytes, _ = file_stamp(uri)
    if _is_safetensors(head):  # 8 bytes of length, then JSON
        if 8 + int.from_bytes(head[:8], "little") > size_bytes:
            raise _unsafe(uri, "it ends early")
    elif head.startswith(b"PK"):
        _check_zip(uri, size_bytes)
    elif not head.startswith(b"\x80"):  # nor a pickle
        raise _unsafe(uri, "neither safetensors nor written by torch.save")
    return read_weights_file(uri)


def read_weights_file(uri: str) -> bytes:
    """The bytes of a plain file of at most 16 GiB.

    Raises:
        ModelError: it is larger.
        OSError: as the file system raises it, or it is no plain file.
    """
    size_bytes, _ = file_stamp(uri)
    if size_bytes > _MAX_BYTES:
        raise ModelError(
            f"{uri}: {size_bytes} bytes; at most {_MAX_BYTES} are read as weights. Name another "
            f"file."
        )
    return read_bounded(uri, _MAX_BYTES)


def _is_safetensors(data: bytes) -> bool:
    return data[8:9] == b"{"


def _check_zip(uri: str, size_bytes: int) -> None:
    """Refuse what would take more memory than its bytes: torch.save compresses nothing."""
    try:
        with open_input(uri) as stream, zipfile.ZipFile(stream) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _unsafe(uri, type(error).__name__) from error
    is_packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
    if is_packed or sum(part.file_size for part in parts) > size_bytes:
        raise _unsafe(uri, "its parts are compressed")


def _state_dict(uri: str, found: object) -> dict[str, Tensor]:
    """The state dict in what a file holds."""
    state: Any = found
    for _ in range(_MAX_HOLDERS):
        inner = [state[key] for key in _HOLDERS if isinstance(state, dict) and key in state]
        inner = [value for value in inner if isinstance(value, dict)]
        if not inner:
            break
        state = inner[0]
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ModelError(
            f"{uri}: holds a {type(state).__name__}, but no state dict of names and tensors. "
            f"Save one with torch.save(model.state_dict(), FILE)."
        )
    for name, tensor in state.items():
        is_plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not is_plain or tensor.is_quantized or tensor.is_complex() or tensor.is_nested:
            raise ModelError(
                f"{uri}: {name} is {tensor.dtype}, {tensor.layout}, on {tensor.device}; a dense "
                f"tensor of real numbers is needed. Save them with torch.save(model.state_dict(), "
                f"FILE)."
            )
    return dict(state)


def fit_weights(network: nn.Module, state: Mapping[str, Tensor], subject: str, advice: str) -> None:
    """Load weights into a network by their names, without the prefix that all have.

    Args:
        network: Is changed in place.
        state: Its tensors by name; a head is left out.
        subject: Begins the error: what does not fit.
        advice: Ends it.

    Raises:
        ModelError: anything but a head is too much, missing, or of another shape.
    """
    needed = network.state_dict()
    prefix, named = _without_prefix(state, needed)
    body = {n: tensor for n, tensor in named.items() if n in needed or not n.startswith(_HEADS)}
    # Old files lack the counters of batch normalisation, which no forward pass reads.
    missing = [
        name for name in needed if name not in body and not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in body if name not in needed]
    misshapen = [
        f"{name} {tuple(body[name].shape)} instead of {tuple(needed[name].shape)}"
        for name in needed
        if name in body and body[name].shape != needed[name].shape
    ]
    below = f" (its names begin with {prefix!r})" if prefix else ""
    for what, names in (
        ("lacks", missing), ("has unknown", unexpected), ("has other sizes:", misshapen)
    ):  # fmt: skip
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ModelError(f"{subject} {what} {', '.join(names[:3])}{more}{below}. {advice}")
    network.load_state_dict(body, strict=False)


def _without_prefix(
    state: Mapping[str, Tensor], needed: Collection[str]
) -> tuple[str, dict[str, Tensor]]:
    """The prefix of the names, and the tensors without it; a name that lacks it stays whole."""
    clean = {name: name if name in needed else _as_defined(name) for name in state}
    names = [name for name in clean.values() if name in needed or _last(name) != _COUNTER]
    counts = Counter(prefix for name in names for prefix in _prefixes(name, needed))
    if counts:
        prefix = min(counts, key=lambda prefix: (-counts[prefix], len(prefix)))
    else:  # of another network: for the error alone
        first = min(names, default="").split(".")[0]
        is_common = all(name.startswith(f"{first}.") for name in names)
        return f"{first}." if is_common and names else "", dict(state)
    named: dict[str, Tensor] = {}
    for old, name in clean.items():
        if name in needed or _last(name) != _COUNTER:
            short = name.removeprefix(prefix)
            named[f"{old} twice" if short in named else short] = state[old]
    return prefix, named


def _as_defined(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _ADDED)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _prefixes(name: str, needed: Collection[str]) -> Iterator[str]:
    """What stands before a needed name in a name."""
    parts = name.split(".")
    for number in range(len(parts)):
        if ".".join(parts[number:]) in needed:
            yield ".".join([*parts[:number], ""]) if number else ""
