"""The pairs whose guess reaches their limit, in one Triton kernel that never writes a guess.

Each program computes a tile of guesses in registers, compares them with their bars and appends
the few that pass to a buffer; a counter tells each its place. What finds no place is counted
all the same, so that a full buffer is seen, and the caller repeats with fewer rows. A block has
less than 2²³ queries, a chunk less than 2²⁸ rows (`Sizes`), so that a pair fits 64 bits.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

from retrieval.errors import UsageError
from retrieval.search.gpu.block_sizes import Sizes
from retrieval.search.gpu.prefilter import Finish, Task

__all__ = ["begin", "is_interpreted"]

_ENTRIES_AT_ONCE = 2**18  # entries that are spread out at a time: 32 MiB of bits


def _filter(  # noqa: PLR0913 - a kernel has no objects
    queries: tl.tensor,
    rows: tl.tensor,
    limits: tl.tensor,
    factors: tl.tensor,
    offsets: tl.tensor,
    entries: tl.tensor,
    count: tl.tensor,
    num_queries: tl.tensor,
    num_rows: tl.tensor,
    dim: tl.tensor,
    room: tl.tensor,
    BLOCK_Q: tl.constexpr,  # noqa: N803 - Triton's custom for constants
    BLOCK_N: tl.constexpr,  # noqa: N803
    BLOCK_D: tl.constexpr,  # noqa: N803
) -> None:
    # Queries fastest: they stay in L2, and each gallery row is read from memory about once.
    tiles = tl.cdiv(num_queries, BLOCK_Q)
    query = (tl.program_id(0) % tiles) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    row = (tl.program_id(0) // tiles) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_query, is_row = query < num_queries, row < num_rows
    part = tl.arange(0, BLOCK_D)
    ours = queries + query.to(tl.int64)[:, None] * dim + part[None, :]
    theirs = rows + row.to(tl.int64)[None, :] * dim + part[:, None]
    guess = tl.zeros((BLOCK_Q, BLOCK_N), dtype=tl.float32)
    for start in range(0, dim, BLOCK_D):
        is_part = part < dim - start
        left = tl.load(ours + start, mask=is_query[:, None] & is_part[None, :], other=0.0)
        right = tl.load(theirs + start, mask=is_row[None, :] & is_part[:, None], other=0.0)
        guess = tl.dot(left, right, guess)
    limit = tl.load(limits + query, mask=is_query, other=float("inf"))
    factor = tl.load(factors + row, mask=is_row, other=1.0)
    offset = tl.load(offsets + row, mask=is_row, other=0.0)
    hit = guess >= limit[:, None] * factor[None, :] + offset[None, :]
    hit = hit & is_query[:, None] & is_row[None, :]
    # A bit for each of 16 rows: a sixteenth of the places to ask for, and no registers spilled.
    bits = tl.where(hit, 1 << (tl.arange(0, BLOCK_N) % 16)[None, :], 0)
    masks = tl.sum(tl.reshape(bits, (BLOCK_Q, BLOCK_N // 16, 16)), 2)
    if tl.max(tl.max(masks, 1), 0) > 0:
        found = masks > 0
        # 64 bits, since a chunk has more pairs than 32 can count.
        place = tl.atomic_add(
            count + tl.zeros_like(masks), found.to(tl.int64), mask=found, sem="relaxed"
        )
        group = (tl.program_id(0) // tiles) * (BLOCK_N // 16) + tl.arange(0, BLOCK_N // 16)
        entry = (query.to(tl.int64)[:, None] << 40) | (group.to(tl.int64)[None, :] << 16)
        tl.store(entries + place, entry | masks, mask=found & (place < room))


_kernel = triton.jit(_filter)


def begin(task: Task, sizes: Sizes) -> Finish:
    """Start looking for all pairs with guess ≥ limit · factor + offset.

    Returns:
        A function that waits for them and gives them, or None if they are more than
        `sizes.survivors`. Until it is called the device works alone.

    Raises:
        UsageError: too many queries.
    """
    if len(task.queries) >= 2**23:
        raise UsageError(f"{len(task.queries)} queries at a time: give blocks below {2**23}")
    device = task.rows.device
    room = sizes.survivors
    entries = torch.empty(room, dtype=torch.int64, device=device)
    count = torch.zeros(1, dtype=torch.int64, device=device)
    blocks, options = _shape(device)
    tiles = -(-len(task.queries) // blocks[0]) * -(-len(task.rows) // blocks[1])
    given = (task.queries, task.rows, task.limits, task.factors, task.offsets)
    arrays = (*(part.contiguous() for part in given), entries, count)  # a kernel knows no strides
    numbers = (len(task.queries), len(task.rows), task.rows.shape[1], room)
    with torch.cuda.device_of(task.rows):  # type: ignore[no-untyped-call]  # Triton looks there
        _kernel[(tiles,)](*arrays, *numbers, *blocks, **options)

    def finish() -> tuple[Tensor, Tensor] | None:
        total = int(count)
        return None if total > room else _pairs(entries[:total], room)

    return finish


def _pairs(entries: Tensor, room: int) -> tuple[Tensor, Tensor] | None:
    """Entries → query and row of each pair; None if they are more than `room`.

    An entry is 24 bits of a query, 24 of a group of 16 rows, and a bit for each of its rows.
    """
    places = torch.arange(16, device=entries.device)
    queries, rows = [], []
    for start in range(0, len(entries), _ENTRIES_AT_ONCE):
        some = entries[start : start + _ENTRIES_AT_ONCE]
        entry, bit = ((some[:, None] >> places) & 1).nonzero(as_tuple=True)
        queries.append(some[entry] >> 40)
        rows.append(((some[entry] >> 16) & 0xFFFFFF) * 16 + bit)
        room -= len(bit)
        if room < 0:
            return None
    none = torch.empty(0, dtype=torch.int64, device=entries.device)
    return torch.cat([none, *queries]), torch.cat([none, *rows])


def is_interpreted() -> bool:
    """Whether Triton runs its kernels on the CPU, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _shape(device: torch.device) -> tuple[tuple[int, int, int], dict[str, int]]:
    """Tile (queries, rows, dimensions) and the launch's options."""
    if device.type != "cuda":  # Triton's interpreter
        return (32, 64, 32), {}
    plain = {"enable_fp_fusion": False}  # either is within the bound; unset, Triton 3.9 warns
    memory = torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    if memory >= 3 * 2 * 64 * (128 + 256):  # three stages of both operands: A100, H100
        return (128, 256, 64), {"num_warps": 8, "num_stages": 3, **plain}
    return (128, 128, 32), {"num_warps": 4, "num_stages": 3, **plain}
