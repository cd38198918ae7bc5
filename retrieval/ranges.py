"""The ranges of numbers that settings may have; no option takes a number that is in none.

None holds NaN or infinity, and a whole number fits into the 64 bits of the libraries that get it.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Final

__all__ = [
    "COUNT",
    "DECAY",
    "EPOCHS",
    "FRACTION",
    "GIBIBYTES",
    "MANY",
    "NOT_NEGATIVE",
    "POSITIVE",
    "SEED",
    "SHARE",
    "SIDE",
    "Range",
]


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from low to high.

    Attributes:
        low, high: The ends.
        low_open, high_open: Whether an end itself is left out.
        is_whole: Whether the numbers are whole.
    """

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False
    is_whole: bool = False

    def holds(self, value: Any) -> bool:  # noqa: ANN401
        """Whether a value is one of the numbers."""
        if isinstance(value, bool) or not isinstance(value, Integral if self.is_whole else Real):
            return False
        found: Any = value  # not narrowed to Real, which mypy cannot compare
        is_above = self.low < found if self.low_open else self.low <= found
        return is_above and (found < self.high if self.high_open else found <= self.high)

    def __str__(self) -> str:
        kind = "a whole number" if self.is_whole else "a number"
        low = f"above {self.low:g}" if self.low_open else f"from {_short(self.low)}"
        return f"{kind} {low} to {'below ' if self.high_open else ''}{_short(self.high)}"


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


# Rates, decays, epochs, days: beyond a million none is meant.
POSITIVE: Final = Range(low=0, low_open=True, high=10**6)
NOT_NEGATIVE: Final = Range(low=0, high=10**6)
FRACTION: Final = Range(low=0, high=1)
SHARE: Final = Range(low=0, high=1, high_open=True)
GIBIBYTES: Final = Range(low=0, low_open=True, high=2**33 - 1)
DECAY: Final = Range(low=0, low_open=True, high=1)
COUNT: Final = Range(low=1, high=2**63 - 1, is_whole=True)
# Workers, threads, CPUs, photos of a batch: what is made all at once.
MANY: Final = Range(low=1, high=2**20, is_whole=True)
EPOCHS: Final = Range(low=1, high=2**20, is_whole=True)
SIDE: Final = Range(low=1, high=2**13, is_whole=True)  # of a network's input: 0.8 GB a photo
SEED: Final = Range(low=-(2**63), high=2**64 - 1, is_whole=True)  # as torch takes them
