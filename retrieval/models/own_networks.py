"""Networks of one's own: whose word has their code run, and what they say of their input.

A network of one's own is named as "package.module:function". The name of code comes from who calls,
on a command line or in Python: a file that says such a name is never believed alone, for whoever
gives the file away would run code on the machine of whoever opens it. Needs no torch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from retrieval.errors import UsageError
from retrieval.images import Preprocessing

__all__ = [
    "check_named",
    "choose_preprocessing",
    "default_weights",
    "describe_preprocessing",
    "is_own",
    "stated_preprocessing",
]


def is_own(name: str) -> bool:
    """Whether a network's name is that of a function, and no name of torchvision's."""
    return ":" in name


def default_weights(name: str) -> str:
    """Weights of a network where nobody names any: what a function returns is complete."""
    return "none" if is_own(name) else "imagenet"


def check_named(model: str, backbone: str, named: str | None) -> None:
    """Refuse to build the network that a file names, unless the caller names it too.

    Args:
        model: Address of the file or folder, for the error.
        backbone: The network's name in it.
        named: What the caller says; None for nothing, which is enough for torchvision's names.

    Raises:
        UsageError: a function is not named, or another network is.
    """
    if named is None and is_own(backbone):
        raise UsageError(
            f"{model}: its network is the function {backbone}, and no code is run because a file "
            f"says so. If you trust that function, name it too: `backbone` {backbone}"
        )
    if named not in (None, backbone):
        raise UsageError(
            f"`backbone` {named}: {model} is a model of {backbone}, and its weights fit no other "
            f"network. Name that one, or leave `backbone` out."
        )


def _size(value: Any) -> int:  # noqa: ANN401 - whatever somebody's network says
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def _three(value: Any) -> tuple[float, ...]:  # noqa: ANN401
    if isinstance(value, str | bytes):
        raise TypeError
    return tuple(map(float, value))


# What a network may state → how its value is read.
_STATED: Final[Mapping[str, Callable[[Any], Any]]] = {"size": _size, "mean": _three, "std": _three}


def stated_preprocessing(network: object, name: str) -> dict[str, Any]:
    """What a network of one's own states of its input, in its attribute `preprocessing`.

    Args:
        network: What the function has returned. The attribute is a dict with any of `size`,
            `mean` and `std`, as in `Preprocessing`. One that can be called, such as a module, is
            something else and is left alone.
        name: The function, for the error.

    Returns:
        Those of the three that it states, as arguments of `Preprocessing`.

    Raises:
        UsageError: it is no dict, has another key, or a value that cannot be.
    """
    stated = getattr(network, "preprocessing", None)
    if stated is None or callable(stated):
        return {}
    needed = "A dict with any of size (a whole number), mean and std (three numbers each) is needed"
    if not isinstance(stated, Mapping):
        raise UsageError(
            f"`backbone` {name}: the attribute preprocessing of its network is a "
            f"{type(stated).__name__}. {needed}."
        )
    if unknown := [str(key) for key in stated if key not in _STATED]:
        raise UsageError(
            f"`backbone` {name}: the preprocessing that its network states has the unknown "
            f"{', '.join(unknown)}. {needed}."
        )
    try:
        found = {key: _STATED[key](value) for key, value in stated.items()}
        Preprocessing(**found)
    except (UsageError, TypeError, ValueError) as error:
        raise UsageError(
            f"`backbone` {name}: its network states the preprocessing {dict(stated)}. {needed}; "
            f"size >= 1, std > 0."
        ) from error
    return found


def choose_preprocessing(
    given: Mapping[str, Any], stated: Mapping[str, Any] | None = None
) -> Preprocessing:
    """What the caller gives, else what the network states, else the default; value by value.

    Args:
        given: Any of size, mean and std; None stands for nothing.
        stated: As `stated_preprocessing` gives it.

    Raises:
        UsageError: a value cannot be.
    """
    settled = {name: value for name, value in given.items() if value is not None}
    return replace(Preprocessing(), **{**(stated or {}), **settled})


def describe_preprocessing(
    preprocessing: Preprocessing, given: Mapping[str, Any], *, model: str | None = None
) -> dict[str, Any]:
    """For a report: the values, and under `from` who has said each.

    Args:
        preprocessing: What is used.
        given: As for `choose_preprocessing`.
        model: Folder of the trained model that decides it, if there is one.

    Returns:
        `size`, `mean`, `std`, `decoder`; in `from`, for each "option", "network", "default" or
        "model".
    """
    values, usual = (
        {**each.to_json(), "decoder": each.decoder} for each in (preprocessing, Preprocessing())
    )

    def origin(name: str) -> str:
        if given.get(name) is not None:
            return "option"
        if model is not None:
            return "model"
        return "default" if values[name] == usual[name] else "network"

    return {**values, "from": {name: origin(name) for name in values}}
