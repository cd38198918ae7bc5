"""Places where a test ends the process at once, as kill -9 or a lost machine would.

Nothing happens unless the environment variable RETRIEVAL_BREAKPOINT names the place: "after
commit", or "after commit:3" for the third time that it is reached.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

__all__ = ["reached"]

_VARIABLE = "RETRIEVAL_BREAKPOINT"
_num_times: Counter[str] = Counter()


def reached(name: str) -> None:
    """Say that a place has been reached; ends the process if a test asks for it."""
    wanted = os.environ.get(_VARIABLE)
    if wanted is None:
        return
    _num_times[name] += 1
    place, _, time = wanted.partition(":")
    if name == place and _num_times[name] == int(time or 1):
        os.kill(os.getpid(), signal.SIGKILL)
