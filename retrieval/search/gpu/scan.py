"""One chunk of the gallery after the other: filter, rescore, keep what may be near.

A filter is set to work on a chunk and left alone, so that the next chunk can be copied
meanwhile. When its pairs are fetched they raise the thresholds of the next one. A pass that
finds too many pairs, or runs out of memory, is repeated in two halves, the second of them with
the thresholds that the first has raised; none is ever dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.errors import UsageError
from retrieval.search.gpu import prefilter as filtering
from retrieval.search.gpu.block_sizes import Sizes
from retrieval.search.gpu.bounds import (
    accumulation_error,
    largest_slack,
    query_limits,
    row_terms,
)
from retrieval.search.gpu.operands import HalfRows, half_rows, times_power
from retrieval.search.gpu.rescoring import CanonicalRows, keys_of_sums, pair_keys, prepare
from retrieval.search.gpu.row_ids import RowIds
from retrieval.search.gpu.top_k_buffer import Pool
from retrieval.search.scores import Rows

__all__ = ["Chunk", "Scan", "triton_modules"]

# `scores.EXACT_SQUARES`, less what the float32 norms that are compared with it may be off.
_EXACT_SQUARES = {"cosine": 7.9, "ip": 7.9, "l2": 1.99}


@dataclass(frozen=True)
class Chunk:
    """Rows of the gallery on the device.

    Attributes:
        stored: float16, float32 or float64 (N, D).
        first: Handle of the first row in `RowIds`.
        hashes: int64 (N,), of the ids, or None if equal ids do not matter.
    """

    stored: Tensor
    first: int
    hashes: Tensor | None


@dataclass(frozen=True)
class _Pass:
    """Some rows of a chunk that a filter is at work on; `finish` is None if it is not yet."""

    chunk: Chunk
    start: int
    stop: int
    finish: filtering.Finish | None = None
    is_exact: bool = False


class Scan:
    """Queries on the device and what has been found for them.

    Args:
        vectors: float16, float32 or float64 (Q, D).
        ids: bytes (Q,).
        pool: Where candidates go.
        metric: "cosine", "ip" or "l2".
        sizes: How much to work on at a time.
        kernels: From `triton_modules`, or None for plain torch.
        hashes: int64 (Q,), of the ids: pairs of equal ids are left out; None keeps them.
    """

    def __init__(  # noqa: PLR0913 - one for each thing that it joins
        self,
        vectors: NDArray[Any],
        ids: NDArray[np.bytes_],
        pool: Pool,
        metric: str,
        sizes: Sizes,
        kernels: tuple[Any, Any] | None,
        hashes: NDArray[np.int64] | None,
    ) -> None:
        device = pool.floor.device
        self._pool, self._metric, self._sizes, self._kernels = pool, metric, sizes, kernels
        self._ids = ids
        self._hashes = None if hashes is None else torch.tensor(hashes, device=device)
        self._accumulation = accumulation_error(vectors.shape[1], device)
        stored = torch.tensor(vectors, device=device)
        self._half = half_rows(stored, sizes.pairs, common=metric == "l2")
        self._is_stored_half = stored.dtype == torch.float16
        self._canonical = CanonicalRows.from_host(Rows.prepare(vectors), device)
        self._squares = times_power(self._canonical.norms, 2 * self._canonical.scales)
        self.row_ids = RowIds()
        self._flight: _Pass | None = None
        self._counts = {"chunks": 0, "survivors": 0, "rescored": 0, "repeats": 0}
        self._largest = 0
        self._slack = 0.0

    def search(self, chunk: Chunk) -> None:
        """Finish the chunk before, then start on this one."""
        self.land()
        self._counts["chunks"] += 1
        self._flight = self._begin(_Pass(chunk, 0, len(chunk.stored)))

    def land(self) -> None:
        """Take in what the filter under way finds, and all that it could not."""
        if self._flight is None:
            return
        waiting, end = [self._flight], self._flight.chunk.first + self._flight.stop
        self._flight = None
        while waiting:
            now = waiting.pop()
            if now.finish is None:  # put off until the rows before had raised the thresholds
                now = self._begin(now)
            pairs = None if now.finish is None else now.finish()
            if pairs is not None:
                self._absorb(now, *pairs)
                continue
            # A single row has at most Q survivors, which fit: only memory repeats it.
            self._counts["repeats"] += 1
            middle = (now.start + now.stop + 1) // 2
            waiting += [
                _Pass(now.chunk, start, stop)
                for start, stop in ((middle, now.stop), (now.start, middle))
                if start < stop
            ]
        if self.row_ids.is_full():
            self.row_ids.keep_only(self._pool.content()[2].cpu().numpy(), end)

    def report(self) -> dict[str, Any]:
        """What was done; see `GpuSearch.certificate`."""
        return {
            "engine": "torch" if self._kernels is None else "triton",
            "device": str(self._pool.floor.device),
            **self._counts,
            "slack": self._slack,
            "largest_buffer": self._largest,
            "settled": self._pool.settled,
            "shrunk": self._sizes.shrunk,
        }

    def _begin(self, todo: _Pass) -> _Pass:
        """Set a filter to work; when memory runs out, halve the sizes and leave it undone."""
        chunk, metric = todo.chunk, self._metric
        try:
            rows = half_rows(
                chunk.stored[todo.start : todo.stop],
                self._sizes.pairs,
                common=metric != "cosine",
            )
            factors, offsets = row_terms(metric, rows, self._half)
            ready = replace(todo, is_exact=self._is_exact(chunk, rows))
            lacking = bool(torch.isneginf(self._pool.floor).any())
            if lacking and len(rows.half) >= self._pool.k:
                self._sample(ready, rows, factors, offsets)
            floor, accumulation = self._pool.floor, self._accumulation
            limits = query_limits(metric, floor, self._half, rows, accumulation)
            slack = largest_slack(metric, self._half, rows, accumulation)
            self._slack = max(self._slack, slack)
            task = filtering.Task(self._half.half, rows.half, limits, factors, offsets)
            begin = filtering.begin if self._kernels is None else self._kernels[0].begin
            return replace(ready, finish=begin(task, self._sizes))
        except torch.cuda.OutOfMemoryError:
            self._sizes.make_room()
            return todo

    def _is_exact(self, chunk: Chunk, rows: HalfRows) -> bool:
        """Whether no sum of these pairs rounds, so that one kernel may score them."""
        if not self._is_stored_half or chunk.stored.dtype != torch.float16:
            return False
        largest = max(float(part.norms.max()) for part in (rows, self._half)) * 1.001
        return largest**2 < _EXACT_SQUARES[self._metric]

    def _sample(self, todo: _Pass, rows: HalfRows, factors: Tensor, offsets: Tensor) -> None:
        """First thresholds: canonical keys of the k best guesses among some of the rows.

        They need no bound: k rows with at least that key exist, whichever they are. Rows are
        taken all over the chunk, since galleries are often sorted by class.
        """
        step = max(1, len(factors) // max(self._sizes.sample_rows, 2 * self._pool.k))
        half, factors, offsets = rows.half[::step], factors[::step], offsets[::step]
        wanted = min(len(half), self._pool.k + (self._hashes is not None))
        samples = Pool(len(self._ids), self._pool.k, factors.device)
        at_once = max(1, self._sizes.tile_queries * self._sizes.tile_rows // len(half))
        for first in range(0, len(self._ids), at_once):
            guess = filtering.guesses(self._half.half[first : first + at_once], half)
            near = ((guess - offsets) / factors).topk(wanted, dim=1).indices
            query = torch.arange(len(near), device=near.device)[:, None] + first
            row = near.flatten() * step + todo.start
            query, row = self._without_self(todo.chunk, query.expand_as(near).flatten(), row)
            samples.add(query, self._keys(todo, query, row), row)
        samples.trim()
        self._pool.raise_floor(samples.floor)

    def _absorb(self, done: _Pass, query: Tensor, row: Tensor) -> None:
        """Rescore the survivors of a pass, put them into the pool, raise the thresholds."""
        self._counts["survivors"] += len(query)
        self._largest = max(self._largest, len(query))
        query, row = self._without_self(done.chunk, query, row + done.start)
        keys = self._keys(done, query, row)
        self._sizes.retry(lambda: self._pool.add(query, keys, row + done.chunk.first))
        self._sizes.retry(lambda: self._pool.trim(self.row_ids))

    def _without_self(self, chunk: Chunk, query: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Leave out pairs of equal ids: those of equal hashes, if the ids say so too."""
        if self._hashes is None or chunk.hashes is None:
            return query, row
        alike = (self._hashes[query] == chunk.hashes[row]).nonzero()[:, 0]
        ours = self._ids[query[alike].cpu().numpy()]
        theirs = self.row_ids.lookup(row[alike].cpu().numpy() + chunk.first)
        kept = torch.ones(len(query), dtype=torch.bool, device=query.device)
        kept[alike[torch.tensor(ours == theirs, dtype=torch.bool, device=alike.device)]] = False
        return query[kept], row[kept]

    def _keys(self, part: _Pass, query: Tensor, row: Tensor) -> Tensor:
        """Canonical keys of pairs, a bounded number at a time; float64 (M,)."""
        self._counts["rescored"] += len(query)
        keys = torch.empty(len(query), dtype=torch.float64, device=query.device)
        start = 0
        while start < len(query):
            some = slice(start, start + self._sizes.pairs)
            try:
                keys[some] = self._some_keys(part, query[some], row[some])
            except torch.cuda.OutOfMemoryError:
                self._sizes.make_room()
                continue
            start = some.stop
        return keys

    def _some_keys(self, part: _Pass, query: Tensor, row: Tensor) -> Tensor:
        stored = part.chunk.stored
        if self._kernels is not None and part.is_exact:
            dots, theirs = self._kernels[1].exact_sums(self._half.half, stored, query, row)
            return keys_of_sums(self._metric, dots, self._squares[query], theirs)
        return pair_keys(self._metric, self._canonical.take(query), prepare(stored[row]))


def triton_modules(device: torch.device, use: bool | None) -> tuple[Any, Any] | None:
    """The modules with Triton's kernels, or None for plain torch.

    Args:
        device: Where they shall run: CUDA, or a CPU under Triton's interpreter.
        use: None: on CUDA, if Triton is there.

    Raises:
        UsageError: they are asked for and cannot run.
    """
    if use is False or (use is None and device.type != "cuda"):
        return None
    try:
        from retrieval.search.gpu import triton_dots, triton_filter
    except ImportError as error:
        if use is None:
            return None
        raise UsageError(f"Triton is not there ({error}): install it, or do without") from error
    if device.type != "cuda" and not triton_filter.is_interpreted():
        raise UsageError(f"Triton needs a CUDA device, not {device}: search without Triton")
    return triton_filter, triton_dots
