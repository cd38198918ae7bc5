"""What may be shown of a text that others had a hand in: no control characters, no credentials."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from retrieval.secrets import without_secrets

__all__ = ["as_json", "is_control", "one_line", "spelled"]


class _Spelling(dict[int, str]):
    """How letters are shown, for str.translate: those that steer a terminal are spelled out."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        shown = letter
        # Wide and no-break spaces are seen as what they are.
        if not letter.isprintable() and unicodedata.category(letter) != "Zs":
            shown = (json.dumps if self._as_json else ascii)(letter)[1:-1]
        self[code] = shown
        return shown


_IN_LINES = _Spelling(as_json=False)
_IN_JSON = _Spelling(as_json=True)
_IN_JSON[ord("\n")] = "\n"  # between the values; inside one JSON spells it itself


def one_line(text: str) -> str:
    r"""Spell out what fakes or turns a line: newlines, escapes, marks of direction, hidden letters.

    They come from file names. Credentials become ***.

    Example:
        >>> one_line("a\nError: b\x1b[2J\u202egpj")
        'a\\nError: b\\x1b[2J\\u202egpj'
    """
    return without_secrets(spelled(text))


def spelled(text: str) -> str:
    """As `one_line`, with whatever credentials are in it: for names in tables."""
    return text.translate(_IN_LINES)


def as_json(value: Any) -> str:  # noqa: ANN401 - whatever json takes
    r"""JSON to be read by people and programs: any script, but no letter that steers a terminal.

    Example:
        >>> print(as_json({"a\u202e": "\u00e9\x9b"}))
        {
          "a\u202e": "é\u009b"
        }
    """
    return json.dumps(value, indent=2, ensure_ascii=False).translate(_IN_JSON)


def is_control(letter: str) -> bool:
    """Whether a letter is a control character or ends a line."""
    return unicodedata.category(letter) in ("Cc", "Zl", "Zp")
