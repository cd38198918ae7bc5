"""Some rows from all over a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval.vectors.blocks import read_blocks
from retrieval.vectors.source import VectorPart, VectorSource

__all__ = ["Sample", "sample_vectors"]

_PLACES = 16  # places to look at; more would cost more requests
_ROWS_READ = 2**17
_ROWS_KEPT = 2**13


@dataclass(frozen=True, eq=False)
class Sample:
    """Some rows of a source.

    Attributes:
        vectors: (N, D) as stored.
        share: How many of the rows were taken at the places where any were.
    """

    vectors: NDArray[Any]
    share: float


def sample_vectors(source: VectorSource, parts: Sequence[VectorPart]) -> Sample:
    """About 8,192 vectors, or all of a smaller source.

    Args:
        source: The source.
        parts: Its parts, as `split` gives them.

    Returns:
        Rows taken evenly from the beginnings of 16 parts that are evenly apart.

    Raises:
        IndexFormatError: as `read_blocks` does.

    Cost: reads at most 131,072 rows.
    """
    chosen = [parts[len(parts) * place // _PLACES] for place in range(min(_PLACES, len(parts)))]
    if len(parts) < _PLACES:
        chosen = list(parts)
    num_rows = _ROWS_READ // len(chosen)
    total = sum(min(part.num_rows, num_rows) for part in chosen)
    step = -(-total // _ROWS_KEPT)
    taken = []
    for part in chosen:
        blocks = read_blocks(source, part, min(num_rows, 4096))
        left = min(part.num_rows, num_rows)
        for block in blocks:
            taken.append(block.vectors[:left:step].copy())  # a copy, to let go of the block
            left -= len(block.vectors)
            if left <= 0:
                break
        blocks.close()  # type: ignore[attr-defined]
    return Sample(np.concatenate(taken), 1 / step)
