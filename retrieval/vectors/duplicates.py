"""Does an id occur twice? Answered in bounded memory, by hashes and then by the ids themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import UsageError
from retrieval.vectors.blocks import read_id_text
from retrieval.vectors.ids import pad, pieces
from retrieval.vectors.source import VectorSource

__all__ = ["Duplicate", "find_duplicate", "hash_ids"]

Hash = Callable[[NDArray[np.bytes_]], NDArray[np.uint64]]

_BLOCK_ROWS = 2**16
_ROW_BYTES = 16  # a hash, and once more while the blocks' hashes are put together
_SUSPECTS = 2**16  # hashes looked up at once, each for two ids at least


@dataclass(frozen=True)
class Duplicate:
    """An id that occurs twice.

    Attributes:
        row_id: The id.
        first: File and row of the first occurrence, in the order of the source.
        second: File and row of the next.
    """

    row_id: str
    first: tuple[str, int]
    second: tuple[str, int]


def find_duplicate(
    source: VectorSource, memory_bytes: int, *, hash_of: Hash | None = None
) -> Duplicate | None:
    """Find an id that occurs twice in a source.

    The hashes of all ids are sorted, as many at a time as the memory takes: each pass reads
    the ids and keeps one range of the hashes. Hashes that occur twice are then looked up by
    their ids, so that ids that share a hash are neither reported nor able to hide a duplicate.

    Args:
        source: The source.
        memory_bytes: What the hashes may take; 16 bytes an id avoid a second pass. One block
            of ids, and the ids of at most 65,536 suspect hashes, come on top.
        hash_of: Hash of each id; `hash_ids` unless a test wants collisions.

    Returns:
        A duplicate, or None if there is none. Of several, one that does not depend on chance.

    Raises:
        UsageError: `memory_bytes` is less than 16.
        IndexFormatError: an id cannot be read; see `read_id_text`.

    Cost: a pass reads the column of ids alone: some 0.15 µs an id, of which hashing and sorting
        are 0.1. One more pass if there is a duplicate.
    """
    if memory_bytes < _ROW_BYTES:
        raise UsageError(f"memory_bytes = {memory_bytes}: at least {_ROW_BYTES} are needed.")
    hash_of = hash_of or hash_ids
    num_passes = max(1, -(-source.num_rows * _ROW_BYTES // memory_bytes))
    bounds = [2**64 * number // num_passes for number in range(num_passes + 1)]
    for low, high in pairwise(bounds):
        suspects = _repeated_hashes(source, hash_of, low, high - 1)
        for start in range(0, len(suspects), _SUSPECTS):
            found = _confirm(source, hash_of, suspects[start : start + _SUSPECTS])
            if found:
                return found
    return None


def _repeated_hashes(
    source: VectorSource, hash_of: Hash, lowest: int, highest: int
) -> NDArray[np.uint64]:
    """The hashes in a range that occur more than once, sorted, each once."""
    parts = [np.empty(0, np.uint64)]
    for _, _, ids in _id_blocks(source):
        hashes = hash_of(ids)
        is_in_range = (hashes >= np.uint64(lowest)) & (hashes <= np.uint64(highest))
        parts.append(hashes[is_in_range])
    hashes = np.concatenate(parts)
    parts.clear()
    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def _confirm(source: VectorSource, hash_of: Hash, suspects: NDArray[np.uint64]) -> Duplicate | None:
    """The first id with one of these hashes (sorted) that occurs for the second time."""
    places: dict[bytes, tuple[str, int]] = {}
    for uri, first_row, ids in _id_blocks(source):
        hashes = hash_of(ids)
        nearest = suspects[np.searchsorted(suspects, hashes).clip(max=len(suspects) - 1)]
        for row in np.flatnonzero(nearest == hashes).tolist():
            row_id, place = bytes(ids[row]), (uri, first_row + row)
            if row_id in places:
                return Duplicate(row_id.decode(), places[row_id], place)
            places[row_id] = place
    return None


def _id_blocks(source: VectorSource) -> Iterator[tuple[str, int, NDArray[np.bytes_]]]:
    """File, first row and ids of each block of a source."""
    for file in source.files:
        row = 0
        for text in read_id_text(source, file, _BLOCK_ROWS):
            for piece in pieces(text):
                yield file.uri, row, pad(piece)
                row += len(piece)


def hash_ids(ids: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """A 64-bit hash of each id, whatever the width that its array pads it to.

    The sum of a hash of each eight bytes and their place. Eight bytes of padding hash to zero.
    Rankings keep sums of it (see `retrieval.ranking.sides`): it never changes.

    Args:
        ids: bytes (N,), without NUL bytes.

    Returns:
        uint64 (N,); of ids that nobody made to collide, all of them differ but for one chance
        in 2**64 a pair.

    Cost: about 6 ns for each eight bytes of the width.
    """
    width = ids.dtype.itemsize
    num_words = -(-width // 8)
    words = ids.astype(f"S{8 * num_words}").view("<u8").reshape(len(ids), num_words)
    total = np.zeros(len(ids), np.uint64)
    for place in range(num_words):
        factor = _mix(np.array([2 * place + 1], np.uint64)) | np.uint64(1)
        total += _mix(words[:, place] * factor)
    return _mix(total)


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread each bit over all 64 (the finaliser of MurmurHash3); one to one, and 0 to 0."""
    words = words ^ (words >> np.uint64(33))
    words *= np.uint64(0xFF51AFD7ED558CCD)
    words ^= words >> np.uint64(33)
    words *= np.uint64(0xC4CEB9FE1A85EC53)
    words ^= words >> np.uint64(33)
    return words
