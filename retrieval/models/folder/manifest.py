"""model.json: what a model is, in plain values, checked to the last of them. Needs no torch."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from retrieval.choices import MODES
from retrieval.errors import ModelError
from retrieval.format_version import FORMAT_VERSION, check_format_version
from retrieval.images import LATER_KEYS, Preprocessing
from retrieval.storage import (
    absolute_uri,
    file_exists,
    first_line,
    is_no_answer,
    join,
    none_there,
    not_read,
    parse_json,
    read_bounded,
)

__all__ = [
    "MANIFEST",
    "MODES",
    "WEIGHTS",
    "ModelFacts",
    "ModelFolder",
    "format_manifest",
    "is_model",
    "open_model",
    "parse_manifest",
]

MANIFEST: Final = "model.json"
WEIGHTS: Final = "weights.safetensors"

_NEWEST_VERSION = 2
_MAX_BYTES = 2**24  # some 200,000 classes
_MAX_DIM = 2**24
_POOLING = "average"  # the only one of this version


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What the one who trained a model knows of it.

    Attributes:
        backbone: Name of the network, as in `BackboneSpec`.
        mode: One of MODES: how much of the network was trained.
        classes: Labels, in the order of the head's rows.
        preprocessing: How the photos were made; embedding makes them alike.
        training: Settings of the training, values of JSON.
        metrics: What it reached, values of JSON; None where there is no number.
    """

    backbone: str
    mode: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ModelFolder(ModelFacts):
    """What model.json says; plain values, which travel to workers.

    Attributes:
        uri: The folder.
        dim: Dimensions D of the features.
        fingerprint: `retrieval.models.backbones.fingerprint` of the network without its head.
        weights_sha256: Of the bytes of weights.safetensors, in hexadecimal.
    """

    uri: str
    dim: int
    fingerprint: str
    weights_sha256: str

    @property
    def weights_uri(self) -> str:
        """The weights, which are also good for `BackboneSpec.weights`."""
        return join(self.uri, WEIGHTS)


def is_model(uri: str) -> bool:
    """Whether a finished model folder is there; StorageError if the store does not say."""
    return file_exists(join(absolute_uri(uri), MANIFEST))


def open_model(uri: str) -> ModelFolder:
    """Read what model.json says. The weights are not read; `load_network` checks them.

    Raises:
        ModelError: there is no model, or model.json is not what it should be.
        StorageError: the disk or the store does not answer.
    """
    uri = absolute_uri(uri)
    try:
        return parse_manifest(uri, read_bounded(join(uri, MANIFEST), _MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"finished model there (no {MANIFEST})"
        line = none_there(uri, what, "train PHOTOS", "MODEL", verb="Train")
        raise ModelError(line) from error
    except ValueError as error:
        raise _damaged(uri, f"has {error}") from error
    except OSError as error:
        if is_no_answer(error):
            raise not_read(join(uri, MANIFEST), error) from error
        raise ModelError(
            f"{join(uri, MANIFEST)}: cannot be read ({first_line(error)}). "
            f"Allow reading it; of a store, check the address and this machine's credentials."
        ) from error


def format_manifest(model: ModelFolder) -> bytes:
    """The content of model.json; the same facts give the same bytes.

    Raises:
        TypeError, ValueError: training or metrics hold what JSON has no value for.
    """
    values = {
        FORMAT_VERSION: _version_needed(model.preprocessing),
        "backbone": model.backbone,
        "mode": model.mode,
        "pooling": _POOLING,
        "dim": model.dim,
        "classes": list(model.classes),
        "preprocessing": model.preprocessing.to_json(),
        "fingerprint": model.fingerprint,
        "weights_sha256": model.weights_sha256,
        "training": dict(model.training),
        "metrics": dict(model.metrics),
    }
    return f"{json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)}\n".encode()


def _version_needed(preprocessing: Preprocessing) -> int:
    """The oldest form that can say it, so that older releases read what they can.

    Version 1 has three keys of preprocessing; version 2 those of `LATER_KEYS` too, where they
    say what version 1 could not.
    """
    return 2 if preprocessing.to_json().keys() & LATER_KEYS.keys() else 1


def parse_manifest(uri: str, data: bytes) -> ModelFolder:
    """The way back from `format_manifest`; ModelError names the first thing that is wrong."""
    version, values = _read_values(uri, data)
    for name, (needed, is_right) in _NEEDED.items():
        if not is_right(values[name]):
            found = reprlib.repr(values[name])
            raise _damaged(uri, f"{name} is {found}; {needed} is needed")
    del values["pooling"]
    values["classes"] = tuple(values["classes"])
    if version == 1 and (unknown := values["preprocessing"].keys() & LATER_KEYS.keys()):
        raise _damaged(uri, f"preprocessing has {', '.join(sorted(unknown))}, unknown in version 1")
    try:
        values["preprocessing"] = Preprocessing.from_json(values["preprocessing"])
    except (ModelError, OverflowError) as error:
        raise _damaged(uri, str(error).removesuffix(".")) from error
    return ModelFolder(uri=uri, **values)


def _is_list_of_labels(value: Any) -> bool:  # noqa: ANN401 - whatever JSON holds
    is_list = isinstance(value, list) and all(isinstance(label, str) for label in value)
    return is_list and 0 < len(value) == len(set(value))


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


# Name in model.json → what is needed, and whether a value is that.
_NEEDED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "backbone": ("a network's name", lambda value: isinstance(value, str) and value != ""),
    "mode": (f"one of {', '.join(MODES)}", lambda value: value in MODES),
    "pooling": (repr(_POOLING), lambda value: value == _POOLING),
    "dim": ("a whole number >= 1", lambda value: type(value) is int and 1 <= value <= _MAX_DIM),
    "classes": ("a list of different labels", _is_list_of_labels),
    "preprocessing": ("an object", _is_object),
    "fingerprint": ("64 hexadecimal digits", _is_sha256),
    "weights_sha256": ("64 hexadecimal digits", _is_sha256),
    "training": ("an object", _is_object),
    "metrics": ("an object", _is_object),
}


def _read_values(uri: str, data: bytes) -> tuple[int, dict[str, Any]]:
    """Version, and an object with the names of _NEEDED, no more and no fewer."""
    values = parse_json(
        data,
        lambda why: _damaged(uri, f"is no JSON in UTF-8 ({first_line(ValueError(why))})"),
        max_bytes=_MAX_BYTES,
    )
    if not isinstance(values, dict):
        raise _damaged(uri, f"holds a {type(values).__name__}; an object is needed")
    if FORMAT_VERSION not in values:
        raise _damaged(uri, f"lacks {FORMAT_VERSION}")
    version = check_format_version(values, _NEWEST_VERSION, join(uri, MANIFEST), ModelError)
    del values[FORMAT_VERSION]
    for what, names in (
        ("lacks", _NEEDED.keys() - values.keys()), ("has unknown", values.keys() - _NEEDED.keys())
    ):  # fmt: skip
        if names:
            raise _damaged(uri, f"{what} {', '.join(sorted(names))}")
    return version, values


def _damaged(uri: str, what: str) -> ModelError:
    return ModelError(
        f"{join(uri, MANIFEST)}: {what}. "
        f"Copy the folder anew as a whole, or train again: retrieval-cli train PHOTOS MODEL"
    )
