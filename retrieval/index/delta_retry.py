"""Asking the client of deltalake: again where an answer breaks off, and why not, in one line."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

from deltalake.exceptions import DeltaError

from retrieval.secrets import without_secrets
from retrieval.storage import first_line, is_local

__all__ = ["asked", "root_cause"]

_Answer = TypeVar("_Answer")

# The client asks again for what a store refuses, but not for a body that breaks off.
_CUT_SHORT = ("before message length", "response body", "before message completed")
_PAUSES_S = (0.5, 1.0, 2.0, 4.0)


def asked(uri: str, ask: Callable[[], _Answer]) -> _Answer:
    """What the client answers about an index.

    Args:
        uri: The index; one on a local disk is asked once.
        ask: Only reads, so that it may be called up to five times.

    Raises:
        DeltaError, OSError, ValueError: as deltalake does.
    """
    for pause_s in () if is_local(uri) else _PAUSES_S:
        try:
            return ask()
        except (DeltaError, OSError) as error:
            if not any(text in str(error) for text in _CUT_SHORT):
                raise
            time.sleep(pause_s)
    return ask()


def root_cause(error: Exception) -> str:
    """What went wrong, in one line.

    Of deltalake's chain of causes the last one, without colours, arrows, XML and backtraces.
    """
    if isinstance(error, OSError) and error.errno:
        return first_line(error)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    *_, last = [lines[0], *(line for line in lines if "↳" in line and "<" not in line)]
    return without_secrets(re.sub(r"\x1b\[\d+m|↳", "", last).strip())
