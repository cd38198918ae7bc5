"""The pairs whose guess reaches their limit, by plain torch: for any device, also the CPU.

A tile of guesses is small enough to stay in the cache of the device. The largest guess of a
few neighbouring rows tells most of the tile to be far off in one pass; only groups that may
hold a neighbour are looked at again. The twin on the CPU is `retrieval.search.prefilter`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from retrieval.errors import UsageError
from retrieval.search.gpu.block_sizes import Sizes

__all__ = ["Finish", "Task", "begin", "check_arithmetic", "guesses"]

_GROUP = 64  # rows whose guesses are judged by their largest

Finish = Callable[[], "tuple[Tensor, Tensor] | None"]  # (query, row) int64, or None: too many


class Task:
    """What a filter needs to know of Q queries and N gallery rows; see `bounds`.

    Attributes:
        queries: float16 (Q, D).
        rows: float16 (N, D).
        limits: float32 (Q,).
        factors: float32 (N,), positive.
        offsets: float32 (N,).
    """

    def __init__(
        self, queries: Tensor, rows: Tensor, limits: Tensor, factors: Tensor, offsets: Tensor
    ) -> None:
        self.queries = queries
        self.rows = rows
        self.limits = limits
        self.factors = factors
        self.offsets = offsets


def check_arithmetic(device: torch.device) -> None:
    """Refuse settings of torch under which the bounds do not hold.

    Raises:
        UsageError: float16 accumulation, or float32 products by bfloat16 on a CPU, are on; or
            the device is neither a CPU nor by NVIDIA: nobody has measured its sums for us.
    """
    if device.type not in ("cpu", "cuda") or torch.version.hip is not None:
        raise UsageError(f"exact ranking knows NVIDIA GPUs, not {device}: rank with the CPU engine")
    if device.type == "cuda" and torch.backends.cuda.matmul.allow_fp16_accumulation:
        setting = "torch.backends.cuda.matmul.allow_fp16_accumulation = False"
    elif device.type == "cpu" and torch.get_float32_matmul_precision() != "highest":
        setting = 'torch.set_float32_matmul_precision("highest")'
    else:
        return
    raise UsageError(f"torch is set to less precise matrix products; exact ranking needs {setting}")


def guesses(queries: Tensor, rows: Tensor) -> Tensor:
    """float32 (Q, N): products of float16 operands, accumulated in float32."""
    if queries.device.type == "cpu":
        return queries.float() @ rows.float().T
    # A float16 result would round, and overflow; torch offers a float32 one on CUDA only.
    return torch.mm(queries, rows.T, out_dtype=torch.float32)


def begin(task: Task, sizes: Sizes) -> Finish:
    """Find all pairs with guess ≥ limit · factor + offset.

    Returns:
        A function that gives them, or None if they are more than `sizes.survivors`. All work
        is done before: it needs a look at each tile.
    """
    found: list[tuple[Tensor, Tensor]] = []
    room = sizes.survivors
    for first_query in range(0, len(task.queries), sizes.tile_queries):
        for first_row in range(0, len(task.rows), sizes.tile_rows):
            query, row = _tile(task, sizes, first_query, first_row)
            room -= len(query)
            if room < 0:
                return _too_many
            found.append((query + first_query, row + first_row))
    query = torch.cat([part for part, _ in found])
    row = torch.cat([part for _, part in found])
    return lambda: (query, row)


def _too_many() -> None:
    return None


def _tile(task: Task, sizes: Sizes, first_query: int, first_row: int) -> tuple[Tensor, Tensor]:
    ours = slice(first_query, first_query + sizes.tile_queries)
    theirs = slice(first_row, first_row + sizes.tile_rows)
    limits, factors, offsets = task.limits[ours], task.factors[theirs], task.offsets[theirs]
    guess = guesses(task.queries[ours], task.rows[theirs])
    if guess.shape[1] % _GROUP:  # the last tile, or a tiny one
        reached = guess >= limits[:, None] * factors + offsets
        query, row = reached.nonzero(as_tuple=True)
        return query, row
    groups = guess.view(len(guess), -1, _GROUP)
    some = factors.view(-1, _GROUP)
    # The lowest bar of a group: the largest factor for a limit below zero, else the smallest.
    # Rounding is monotonic, so that it is no higher than the bar of any row, also in bits.
    least = torch.minimum(limits[:, None] * some.amin(1), limits[:, None] * some.amax(1))
    least += offsets.view(-1, _GROUP).amin(1)
    query, group = (groups.amax(2) >= least).nonzero(as_tuple=True)
    bar = limits[query, None] * some[group] + offsets.view(-1, _GROUP)[group]
    hit, within = (groups[query, group] >= bar).nonzero(as_tuple=True)
    return query[hit], group[hit] * _GROUP + within
