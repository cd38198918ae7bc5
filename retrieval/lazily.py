"""Names of a package that are loaded when they are asked for, so that the package stays light."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

__all__ = ["lazily"]


def lazily(package: str, module_of: Mapping[str, str]) -> Callable[[str], object]:
    """The `__getattr__` of a package (PEP 562).

    Args:
        package: The package's name.
        module_of: Name → module of the package that has it.

    Example:
        >>> lazily("retrieval", {"UsageError": "errors"})("UsageError").__name__
        'UsageError'
    """

    def find(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    return find
