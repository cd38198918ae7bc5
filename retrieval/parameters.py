"""How a text names a parameter: in backquotes, by its Python name.

"`top_k` 5: ix has 3 images." Who calls a function reads it so. A command line, whose users give
options, says with `naming` what each parameter is called there: the texts of errors, and notes
that go through `named`, call it so in the meantime.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["NAME", "named", "names_in", "naming"]

# A dot leads to a field of a parameter: `site.labels`.
NAME: Final = re.compile(r"`([a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*)`")

_spell: list[Callable[[str], str]] = []  # the last one is in force, in all threads


def names_in(text: str) -> tuple[str, ...]:
    """The parameters that a text names, in their order, each once.

    Example:
        >>> names_in("`weights` none: `mode` full needs some. Leave `weights` out.")
        ('weights', 'mode')
    """
    return tuple(dict.fromkeys(NAME.findall(text)))


def named(text: str) -> str:
    """A text with its parameters as they are called here; as it is, where nobody has said so."""
    return _spell[-1](text) if _spell and "`" in text else text


@contextmanager
def naming(spell: Callable[[str], str]) -> Iterator[None]:
    """Have `named`, and the text of every error of ours, spelled by a function meanwhile.

    Args:
        spell: Takes a text and gives it back with other names of parameters. It gets its own
            results, too, where an error quotes another.

    Example:
        >>> with naming(lambda text: text.replace("`top_k`", "-k")):
        ...     named("`top_k` 0: a whole number is needed.")
        '-k 0: a whole number is needed.'
    """
    _spell.append(spell)
    try:
        yield
    finally:
        _spell.remove(spell)
