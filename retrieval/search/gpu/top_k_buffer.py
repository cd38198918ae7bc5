"""Candidates on the device, and the key that a new one has to reach.

The twin on the CPU is `retrieval.search.top_k_buffer`.

A candidate is (query, canonical key, handle of a row). Ties at the k-th place stay until there
are too many of them; then the ids, which only the host knows, decide.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from retrieval.search.gpu.row_ids import RowIds

__all__ = ["Pool"]

_SPARE = 2**14  # candidates beyond 2 k of each query that never matter


class Pool:
    """Candidates of Q queries.

    Attributes:
        floor: float64 (Q,), keys that a new candidate must reach; -inf where fewer than k.
        size: Number of candidates.
    """

    def __init__(self, num_queries: int, k: int, device: torch.device) -> None:
        self.k = k
        self.floor = torch.full((num_queries,), -torch.inf, dtype=torch.float64, device=device)
        self.size = 0
        self.settled = 0
        self._room = 2 * num_queries * k + _SPARE
        none = torch.empty(0, dtype=torch.int64, device=device)
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = [(none, none.double(), none)]

    def raise_floor(self, keys: Tensor) -> None:
        """Ask for at least these keys, float64 (Q,), too; NaN asks for nothing."""
        self.floor = torch.fmax(self.floor, keys)

    def add(self, query: Tensor, keys: Tensor, handles: Tensor) -> None:
        """Take in candidates that reach the floor; int64, float64 and int64 (M,)."""
        reached = keys >= self.floor[query]
        part = (query[reached], keys[reached], handles[reached])
        self._parts.append(part)
        self.size += len(part[0])

    def trim(self, ids: RowIds | None = None) -> None:
        """Drop what cannot be among the k best, and raise the floor.

        Args:
            ids: To settle ties at the k-th place, if they are many; None leaves them.

        Cost: a sort of all candidates.
        """
        parts = [torch.cat(column) for column in zip(*self._parts, strict=True)]
        order = torch.argsort(parts[1], descending=True, stable=True)
        order = order[torch.argsort(parts[0][order], stable=True)]
        query, keys, handles = (part[order] for part in parts)
        counts = torch.bincount(query, minlength=len(self.floor))
        last = counts.cumsum(0) - counts + self.k - 1  # where the k-th best would be
        full = counts >= self.k
        if len(keys):
            kth = keys[last.clamp(max=len(keys) - 1)]
            self.floor = torch.where(full, torch.fmax(self.floor, kth), self.floor)
        kept = keys >= self.floor[query]
        self._keep(query[kept], keys[kept], handles[kept])
        if ids is not None and self.size > self._room:
            self._settle(ids)

    def _keep(self, query: Tensor, keys: Tensor, handles: Tensor) -> None:
        self._parts = [(query, keys, handles)]
        self.size = len(query)

    def _settle(self, ids: RowIds) -> None:
        """Of ties at the k-th place keep those whose ids come first."""
        query, keys, handles = self._parts[0]  # as `trim` leaves them: by query, best first
        counts = torch.bincount(query, minlength=len(self.floor))
        is_tie = (keys == self.floor[query]) & (counts[query] > self.k)
        better = torch.bincount(query[~is_tie], minlength=len(self.floor))
        ties = is_tie.nonzero()[:, 0]
        of, names = query[ties].cpu().numpy(), ids.lookup(handles[ties].cpu().numpy())
        order = np.lexsort((names, of))
        of = of[order]
        starts = np.flatnonzero(np.diff(of, prepend=-1))
        rank = np.arange(len(of)) - np.repeat(starts, np.diff(starts, append=len(of)))
        first = order[rank < self.k - better.cpu().numpy()[of]]
        kept = ~is_tie
        kept[ties[torch.tensor(first, device=ties.device)]] = True
        self.settled += len(ties)
        self._keep(query[kept], keys[kept], handles[kept])

    def content(self) -> tuple[Tensor, Tensor, Tensor]:
        """Query int64, key float64 and handle int64 of all candidates, as of the last trim."""
        return self._parts[0]
