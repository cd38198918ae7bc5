"""What may be printed of a text that others had a hand in: one line, without credentials."""

from __future__ import annotations

from retrieval.secrets import without_secrets

__all__ = ["one_line"]


def one_line(text: str) -> str:
    r"""Spell out newlines and control characters, which come from file names and fake a line.

    Example:
        >>> one_line("a\nError: b\x1b[2J")
        'a\\nError: b\\x1b[2J'
    """
    shown = (letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return without_secrets("".join(shown))
