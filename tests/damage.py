"""Damage to files, seeded, and what a reader makes of it: for each kind of file that we read.

A reader must give what it gives of the whole file, or an error of ours in one line: no other
exception, nothing wrong, and neither much time nor much memory.
"""

from __future__ import annotations

import json
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import RetrievalError

SECONDS = 10.0  # far above what any of these files takes, also on a busy machine
MEMORY_BYTES = 512 * 2**20

# In the place of a value of a JSON file.
VALUES = (
    None, True, False, -1, 0, 1, 2**31, 2**63, 2**70, 10**30, -(2**63), 0.5, -1e308, 1e308,
    "", "x", "..", "/", "a\0b", "\ud800", "é" * 100, [], [None], [[]], {}, {"a": {}}, ["x"],
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        name: For a person.
        make: Given an empty folder, writes what a reader needs there and gives the file to damage.
        read: Given the folder, gives what was read as plain values that can be compared.
        is_right: Whether what was read of a damaged file (the second) is right where it is not
            what was read of the whole one (the first).
        is_json: Whether the file is one JSON object, whose values are changed as well.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    is_right: Callable[[Any, Any], bool] = lambda whole, damaged: False
    is_json: bool = False


def count_outcomes(target: Target, folder: Path, seed: int, number: int) -> Counter[str]:
    """Damage a file `number` times, each time the whole one, and read it.

    Returns:
        How often it was "right" and "refused".

    Raises:
        AssertionError: it was neither, with the seed and the damage.
    """
    path = target.make(folder)
    content = path.read_bytes()
    expected = target.read(folder)
    outcomes: Counter[str] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for what, damaged in damages(content, random.Random(seed), number, is_json=target.is_json):
        path.write_bytes(damaged)
        what = f"{target.name}, seed {seed}: {what}"
        start = time.monotonic()
        try:
            found, line = target.read(folder), None
        except RetrievalError as error:
            found, line = None, str(error)
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        if line is None:
            is_right = found == expected or target.is_right(expected, found)
            assert is_right, f"{what}: read as {found!r:.300}, not {expected!r:.300}"
        else:
            assert "\n" not in line, f"{what}: more than a line: {line}"
        outcomes["right" if line is None else "refused"] += 1
        assert time.monotonic() - start < SECONDS, f"{what}: took too long"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        assert grown < MEMORY_BYTES, f"{what}: took {grown // 2**20} MiB"
    return outcomes


def damages(
    content: bytes, rng: random.Random, number: int, *, is_json: bool
) -> Iterator[tuple[str, bytes]]:
    """What was done, and the damaged content."""
    kinds = [_flip, _set, _cut, _delete, _insert]
    for _ in range(number):
        if is_json and rng.random() < 0.6:
            yield _change(content, rng)
        else:
            yield rng.choice(kinds)(content, rng)


def _place(content: bytes, rng: random.Random) -> int:
    """Anywhere, or near one of the ends, where headers and footers are."""
    near = rng.choice([len(content), 200, 1200])
    place = rng.randrange(min(len(content), near))
    return place if rng.random() < 0.3 else len(content) - 1 - place


def _flip(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    place, bit = _place(content, rng), rng.randrange(8)
    new = bytes([content[place] ^ 1 << bit])
    return f"bit {bit} of byte {place} flipped", content[:place] + new + content[place + 1 :]


def _set(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    place, new = _place(content, rng), rng.choice([0, 255, rng.randrange(256)])
    what = f"byte {place} is now {new}"
    return what, content[:place] + bytes([new]) + content[place + 1 :]


def _cut(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    place = _place(content, rng)
    return f"cut after {place} bytes", content[:place]


def _delete(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    place, length = _place(content, rng), rng.choice([1, 2, 4, 8, rng.randrange(1, 200)])
    return f"{length} bytes from {place} on deleted", content[:place] + content[place + length :]


def _insert(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    place, new = _place(content, rng), rng.randbytes(rng.choice([1, 4, 50]))
    return f"{new!r} inserted at {place}", content[:place] + new + content[place:]


def _change(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """A name removed, or another value; now and then a name twice, or no number."""
    found = json.loads(content)
    holders = [holder for holder in _holders(found) if holder]
    holder = rng.choice(holders)
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    kind = rng.choice(["removed", "value", "value", "number", "twice"])
    if kind == "removed":
        del holder[key]
        return f"{key!r} removed", json.dumps(found).encode()
    if kind == "value":
        holder[key] = value = rng.choice(VALUES)
        return f"{key!r} is now {value!r}", json.dumps(found).encode()
    mark = "\ue000"
    old = json.dumps(holder[key])
    holder[key] = mark
    if kind == "number":
        new = rng.choice(["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "-0", "[" * 2000])
    else:
        new = f"{old}, {json.dumps(key)}: {old}"  # a list's key makes it no JSON
    text = json.dumps(found).replace(json.dumps(mark), new)
    return f"{key!r} is now {new[:60]}", text.encode()


def _holders(value: Any) -> Iterator[Any]:
    if isinstance(value, (dict, list)):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _holders(inner)
