"""How large tiles, batches and chunks may be, and what to do when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from retrieval.errors import UsageError

__all__ = ["Sizes", "available_bytes"]

T = TypeVar("T")

_FLOOR = 64  # rows of a tile, pairs of a batch: below, memory is not what is short


class Sizes:
    """Numbers of rows and pairs that are worked on at a time.

    Attributes:
        chunk_rows: Most rows of the gallery on the device at a time, of each of two chunks.
        first_rows: Rows of the first chunk; each further one is twice as large.
        sample_rows: Rows that give the first thresholds.
        tile_queries, tile_rows: Guesses that torch holds at a time: 32 MiB, within an L2 cache.
        pairs: Pairs that are rescored, and rows that are converted, at a time.
        survivors: Most pairs that one pass of a filter may return; never below Q.
        shrunk: How often memory ran out.
    """

    def __init__(self, num_queries: int, dim: int, itemsize: int, k: int, memory: int) -> None:
        self.memory = memory
        fixed = num_queries * (dim * (8 + 2 + itemsize) + k * 80)
        if fixed > memory // 2:
            raise UsageError(
                f"{num_queries} queries with {k} neighbours take {fixed} bytes of the device, but "
                f"only half of {memory} can be theirs: give smaller blocks of queries"
            )
        free = memory - fixed
        self._least = max(num_queries, 1)
        # Two chunks as stored, one more as float16 operands, and ten numbers a row.
        self.chunk_rows = _within(free // 3 // (dim * (2 * itemsize + 2) + 80), 1024, 2**21)
        self.first_rows = min(2**16, self.chunk_rows)
        self.sample_rows = max(2**14, 4 * k)
        self.tile_queries = 2048
        self.tile_rows = _within(free // 8 // (8 * self.tile_queries), _FLOOR, 4096)
        self.pairs = _within(free // 8 // (dim * 8 * 10), _FLOOR, 2**16)
        # A chunk as large as all before it brings about k new neighbours a query.
        wanted = max(2**20, 4 * num_queries * k)
        self.survivors = max(min(wanted, free // 8 // 40), self._least)
        self.shrunk = 0

    def halve(self) -> None:
        """Work on half as much at a time.

        Raises:
            UsageError: all is as small as it gets.
        """
        smaller = {
            "chunk_rows": max(self.chunk_rows // 2, 1024),
            "sample_rows": max(self.sample_rows // 2, _FLOOR),
            "tile_queries": max(self.tile_queries // 2, _FLOOR),
            "tile_rows": max(self.tile_rows // 2, _FLOOR),
            "pairs": max(self.pairs // 2, _FLOOR),
            "survivors": max(self.survivors // 2, self._least),
        }
        if all(smaller[name] >= getattr(self, name) for name in smaller):
            raise UsageError(
                f"the device is out of memory even with tiles of {self.tile_queries} × "
                f"{self.tile_rows} pairs and {self.chunk_rows} rows at a time; about "
                f"{self.memory} bytes were planned for: free some, or give smaller blocks of "
                f"queries"
            )
        for name, value in smaller.items():
            setattr(self, name, value)
        self.first_rows = min(self.first_rows, self.chunk_rows)
        self.shrunk += 1

    def retry(self, work: Callable[[], T]) -> T:
        """Do work that can be repeated, with smaller sizes each time that memory runs out."""
        while True:
            try:
                return work()
            except torch.cuda.OutOfMemoryError:
                self.make_room()

    def make_room(self) -> None:
        """After running out of memory: halve, and give back what torch has kept for later."""
        self.halve()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def available_bytes(device: torch.device) -> int:
    """What a search may plan with: most of a GPU's free memory, 1 GiB elsewhere."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * 0.8)
    return 2**30


def _within(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))
