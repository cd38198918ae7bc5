"""The golden files, and what they are known to hold; see v1/README.md."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

V1 = Path(__file__).parent / "v1"
MADE_AT = "/srv/golden-v1"  # where the files lay when they were written


@cache
def contents(name: str) -> Any:
    """What v1/contents/NAME.json says; not to be changed."""
    return json.loads((V1 / "contents" / f"{name}.json").read_text(encoding="utf-8"))


def hash_of_files() -> str:
    """Of the names and bytes of all golden files, but for the programs and the README."""
    digest = hashlib.sha256()
    for file in sorted(V1.rglob("*"), key=lambda file: file.relative_to(V1).as_posix().encode()):
        if file.is_file() and file.suffix not in (".py", ".pyc") and file.name != "README.md":
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"{file.relative_to(V1).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def has_all(found: Any, known: dict[str, Any]) -> bool:
    """Whether a dataclass's fields are what version 1 says; later releases may add others."""
    values = asdict(found)
    return {name: values[name] for name in known} == known


def plain_rows(table) -> list[list[Any]]:
    """The rows of a table, as the contents have them."""
    return [[_plain(value) for value in row.values()] for row in table.to_pylist()]


def _plain(value):
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else value
