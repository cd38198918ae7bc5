"""The k nearest so far of each query. The twin on a GPU is `gpu.top_k_buffer`.

Order: larger key first, then the smaller id, bytewise. It is total up to equal ids with equal
keys, which nobody can tell apart, so the k best do not depend on the order of arrival.

Candidates are appended; when there are some more than k, the k best are selected. Against a
heap, which would reorder log k places in as many cache lines for each newcomer, that is
several times faster for a large k; the floor is a little behind, which is safe.
"""

from __future__ import annotations

import threading

import numpy as np
from numba import njit
from numpy.typing import NDArray

from retrieval.search.merge import Candidates
from retrieval.search.scores import is_distance

__all__ = ["Neighbours"]


class Neighbours:
    """Keeps the k best of all the candidates it is given. Safe to use from several threads.

    Memory: 1.25 k · (8 + longest id) bytes a query, allocated as candidates come.

    Attributes:
        floors: float64 (Q,), the key that a newcomer has to reach. Only ever raised; readers
            take no lock, since an old value is lower and so only lets more through.
    """

    def __init__(self, query_ids: NDArray[np.bytes_], k: int, *, exclude_self: bool) -> None:
        self._query_ids = _as_matrix(query_ids)
        self._k = k
        self._most = k + max(4, k // 4)
        self._exclude_self = exclude_self
        num_queries, capacity = len(query_ids), min(self._most, 64)
        self._counts = np.zeros(num_queries, np.int64)
        self._keys = np.empty((num_queries, capacity))
        self._ids = np.zeros((num_queries, capacity, 1), np.uint8)
        self._lock = threading.Lock()
        self.floors = np.full(num_queries, -np.inf)

    def add(
        self, query: NDArray[np.int32], keys: NDArray[np.float64], ids: NDArray[np.bytes_]
    ) -> None:
        """Take in candidates.

        Args:
            query: (M,) numbers of queries.
            keys: (M,) canonical keys.
            ids: (M,) gallery ids.

        Cost: O(1) each.
        """
        if not len(query):
            return
        matrix = _as_matrix(ids)
        with self._lock:
            self._make_room(query, matrix.shape[1])
            _insert(
                (self._keys, self._ids, self._counts, self.floors),
                (query, keys, matrix),
                self._query_ids if self._exclude_self else self._query_ids[:0],
                self._k,
                self._most,
            )

    def take(self, found: Candidates, metric: str) -> None:
        """Take in the result of another search."""
        sign = -1.0 if is_distance(metric) else 1.0
        self.add(found.query, sign * found.scores, found.ids)

    def _make_room(self, query: NDArray[np.int32], id_bytes: int) -> None:
        """Grow the arrays for longer ids, or for more candidates while there are fewer than k."""
        num_queries, capacity, width = self._ids.shape
        if capacity == self._most and id_bytes <= width:
            return
        most = int((self._counts + np.bincount(query, minlength=num_queries)).max())
        wanted = capacity if most <= capacity else min(self._most, max(most, 2 * capacity))
        if wanted == capacity and id_bytes <= width:
            return
        ids = np.zeros((num_queries, wanted, max(width, id_bytes)), np.uint8)
        ids[:, :capacity, :width] = self._ids
        keys = np.empty((num_queries, wanted))
        keys[:, :capacity] = self._keys
        self._ids, self._keys = ids, keys

    def raise_floors(self, floors: NDArray[np.float64]) -> None:
        """Take keys that k others are known to reach, from elsewhere; old ones do no harm."""
        with self._lock:
            np.maximum(self.floors, floors, out=self.floors)

    def result(self, metric: str) -> Candidates:
        """The neighbours, sorted by query, then nearest first, equal scores by id."""
        with self._lock:
            _trim_all(self._keys, self._ids, self._counts, self.floors, self._k)
            query = np.repeat(np.arange(len(self._counts), dtype=np.int32), self._counts)
            is_used = np.arange(self._keys.shape[1]) < self._counts[:, None]
            keys = self._keys[is_used]
            ids = self._ids[is_used].view(f"S{self._ids.shape[2]}")[:, 0]
        order = np.lexsort((-keys, query))
        query, keys, ids = query[order], keys[order], ids[order]
        _settle_ties(query, keys, ids)
        return Candidates(query, ids, (-keys if is_distance(metric) else keys) + 0.0)


def _settle_ties(
    query: NDArray[np.int32], keys: NDArray[np.float64], ids: NDArray[np.bytes_]
) -> None:
    """Sort runs of equal query and key by id, in place. Sorting all by id would be far slower."""
    same = (query[1:] == query[:-1]) & (keys[1:] == keys[:-1])
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))
    if tied.size:
        run = np.cumsum(~np.append(False, same))[tied]
        ids[tied] = ids[tied[np.lexsort((ids[tied], run))]]


def _as_matrix(ids: NDArray[np.bytes_]) -> NDArray[np.uint8]:
    """Ids as (N, W) bytes, filled up with zeros."""
    ids = np.ascontiguousarray(ids)
    return ids.view(np.uint8).reshape(len(ids), ids.dtype.itemsize)


@njit(nogil=True, cache=True)
def _insert(pool, newcomers, query_ids, k, most):
    """Newcomers into the pool; `query_ids` is empty where a query's own id may come in."""
    keys, ids, counts, floors = pool
    query, new_keys, new_ids = newcomers
    for new in range(len(query)):
        number, key = query[new], new_keys[new]
        if key < floors[number]:
            continue
        if len(query_ids) and _compare(query_ids[number], new_ids[new]) == 0:
            continue
        count = counts[number]
        keys[number, count] = key
        for byte in range(ids.shape[2]):
            ids[number, count, byte] = new_ids[new, byte] if byte < new_ids.shape[1] else 0
        counts[number] = count = count + 1
        if count == k:
            floors[number] = max(floors[number], keys[number, :k].min())
        elif count == most:
            worst = _keep_best(keys[number], ids[number], count, k)
            floors[number] = max(floors[number], worst)
            counts[number] = k


@njit(nogil=True, cache=True)
def _trim_all(keys, ids, counts, floors, k):
    for number in range(len(counts)):
        if counts[number] > k:
            worst = _keep_best(keys[number], ids[number], counts[number], k)
            floors[number] = max(floors[number], worst)
            counts[number] = k


@njit(nogil=True, cache=True)
def _keep_best(keys, ids, count, k):
    """Move the k best of `count` candidates to the front; returns the k-th best key."""
    worst = np.partition(keys[:count], count - k)[count - k]
    is_out = keys[:count] < worst
    num_ties_out = count - k - is_out.sum()
    if num_ties_out:
        ties = np.flatnonzero(keys[:count] == worst)
        for place in _largest(ids, ties, num_ties_out):
            is_out[place] = True
    last = count
    for place in range(k):
        if is_out[place]:
            last -= 1
            while is_out[last]:
                last -= 1
            keys[place] = keys[last]
            ids[place] = ids[last]
    return worst


@njit(nogil=True, cache=True)
def _largest(ids, places, num):
    """The places of the `num` largest ids: a heap of them, with the smallest on top."""
    heap = places[:num].copy()
    for top in range(num // 2 - 1, -1, -1):
        _sink(ids, heap, top)
    for place in places[num:]:
        if _compare(ids[place], ids[heap[0]]) > 0:
            heap[0] = place
            _sink(ids, heap, 0)
    return heap


@njit(nogil=True, cache=True)
def _sink(ids, heap, top):
    while True:
        child = 2 * top + 1
        if child >= len(heap):
            return
        if child + 1 < len(heap) and _compare(ids[heap[child + 1]], ids[heap[child]]) < 0:
            child += 1
        if _compare(ids[heap[child]], ids[heap[top]]) >= 0:
            return
        heap[top], heap[child] = heap[child], heap[top]
        top = child


@njit(nogil=True, cache=True)
def _compare(ours, theirs):
    """Negative, zero or positive as bytes compare; the shorter is filled up with zeros."""
    for byte in range(max(len(ours), len(theirs))):
        first = np.int64(ours[byte]) if byte < len(ours) else 0
        second = np.int64(theirs[byte]) if byte < len(theirs) else 0
        if first != second:
            return first - second
    return 0
