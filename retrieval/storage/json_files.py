"""JSON files, read strictly: what others or a fault have changed is refused, in bounded memory."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from retrieval.storage.files import read_bounded

__all__ = [
    "LISTING_BYTES",
    "JsonObject",
    "Kind",
    "check_fields",
    "flag",
    "items",
    "number",
    "optional",
    "parse_json",
    "read_json",
    "text",
    "texts",
    "whole",
]

MAX_BYTES = 64 * 2**20
LISTING_BYTES = 2**30  # of a file that lists others, some 100 bytes each
_BYTES_A_VALUE = 32  # a value takes some 60 bytes of memory: at most twice the bytes of the file
_MAX_DEPTH = 32  # ours have 5 or 6
_MAX_WHOLE = 2**64
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

# Raises ValueError if a value (the second) of some name (the first) is not what it should be.
Kind = Callable[[str, Any], None]


class JsonObject(dict[str, Any]):
    """An object of a JSON file; asked by [] for what it does not say, it names that and the file.

    Whoever reads files that may be damaged need not ask for each name before it is used.
    """

    def __init__(self, pairs: Any = (), fault: Callable[[str], Exception] = ValueError) -> None:  # noqa: ANN401
        super().__init__(pairs)
        self._fault = fault

    def __missing__(self, key: str) -> NoReturn:
        raise self._fault(f"it does not say {key!r}")

    def __reduce__(self) -> tuple[type[JsonObject], tuple[dict[str, Any]]]:
        return JsonObject, (dict(self),)


def read_json(
    uri: str, fault: Callable[[str], Exception] = ValueError, *, max_bytes: int = MAX_BYTES
) -> JsonObject:
    """The object in a JSON file.

    Args:
        uri: The file.
        fault: Makes the error of a text that says what is wrong; the caller adds the file's name
            and what to do.
        max_bytes: The largest file to read.

    Raises:
        OSError: as the file system raises it.
        Exception: what `fault` makes: the content is larger than `max_bytes`, no UTF-8, no JSON by
            the standard (NaN and Infinity are none), no object, nested deeper than 32, of more
            than a value in 32 bytes, has a name twice, a number beyond 64 bits or no Unicode text.

    Cost: about `parse_json`'s; of a larger file nothing is read.
    """
    try:
        data = read_bounded(uri, max_bytes)
    except ValueError as error:
        raise fault(str(error)) from error
    found = parse_json(data, fault, max_bytes=max_bytes)
    if not isinstance(found, JsonObject):
        raise fault("no JSON object")
    return found


def parse_json(
    data: bytes, fault: Callable[[str], Exception] = ValueError, *, max_bytes: int = MAX_BYTES
) -> Any:  # noqa: ANN401
    """A JSON text as plain values, objects as `JsonObject`; errors as of `read_json`.

    Cost: some 20 ns a byte, and at most some four bytes of memory a byte.
    """
    if sum(map(data.count, (b",", b"[", b"{"))) > max(max_bytes // _BYTES_A_VALUE, 1024):
        raise fault("too many values")
    try:
        found = json.loads(
            data.decode(),  # bytes alone might be taken for UTF-16
            object_pairs_hook=lambda pairs: JsonObject(_once(pairs), fault),
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_of_64_bits,
        )
        if _SURROGATE.search(data):  # half a character, which no file's name and no output takes
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise fault("nested too deep") from None
    except UnicodeEncodeError:
        raise fault("half of a character in a text") from None
    except ValueError as error:
        raise fault(str(error)) from error
    if _is_deeper(found, _MAX_DEPTH):
        raise fault("nested too deep")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"it says {twice!r} twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is beyond 64 bits")
    return value


def _of_64_bits(text: str) -> int:
    if len(text) > len(str(_MAX_WHOLE)) or abs(int(text)) > _MAX_WHOLE:
        raise ValueError(f"{text[:40]} is beyond 64 bits")
    return int(text)


def _is_deeper(value: object, most: int) -> bool:
    level = [value]
    for _ in range(most):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(level)


def check_fields(found: Mapping[str, Any], fields: Mapping[str, Kind], name: str = "") -> None:
    """Check what an object says; what it does not say is told when it is asked for.

    Args:
        found: The object.
        fields: What the value of each name has to be. Other names are passed over: a later
            release may have added them.
        name: What the object itself is called, for the error.

    Raises:
        ValueError: a value is something else; the text names it.

    Example:
        >>> check_fields({"top_k": -1}, {"top_k": whole(1), "metric": text})
        Traceback (most recent call last):
        ValueError: top_k is -1; a whole number from 1 on is needed
    """
    for key in fields.keys() & found.keys():
        fields[key](f"{name}.{key}" if name else key, found[key])


def _refuse(name: str, value: object, needed: str) -> NoReturn:
    raise ValueError(f"{name} is {reprlib.repr(value)}; {needed} is needed")


def text(name: str, value: object) -> None:
    """A text without a zero byte, which no file's name holds."""
    if not isinstance(value, str) or "\0" in value:
        _refuse(name, value, "a text")


def flag(name: str, value: object) -> None:
    """True or false."""
    if not isinstance(value, bool):
        _refuse(name, value, "true or false")


def number(name: str, value: object) -> None:
    """A number, which may be negative and have a fraction."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        _refuse(name, value, "a number")


def whole(least: int = 0, most: int = 2**63 - 1) -> Kind:
    """A whole number; 1.0 is none, and neither is true."""

    def check(name: str, value: object) -> None:
        if type(value) is not int or value < least:
            _refuse(name, value, f"a whole number from {least} on")
        if value > most:
            _refuse(name, value, f"at most {most}")

    return check


def optional(kind: Kind) -> Kind:
    """A value or null."""

    def check(name: str, value: object) -> None:
        if value is not None:
            kind(name, value)

    return check


def items(fields: Mapping[str, Kind]) -> Kind:
    """An object whose values are of these kinds; see `check_fields`."""

    def check(name: str, value: object) -> None:
        if not isinstance(value, dict):
            _refuse(name, value, "an object")
        check_fields(value, fields, name)

    return check


def texts(name: str, value: object) -> None:
    """A list of texts."""
    if not isinstance(value, list):
        _refuse(name, value, "a list")
    for one in value:
        text(f"an item of {name}", one)
