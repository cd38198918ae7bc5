"""Ids too long for arrays of one width, and what stands for them there.

The ids of a block lie in one array, each padded to the longest: cheap to compare and to copy, as
long as none is much longer than the others. One of 200,000 bytes, as in crawled lists of addresses,
would make 65,536 of them take 12 GiB.

So what is longer than a limit is cut there and gets its number among all long ids, sorted, as 12
digits. That keeps the order, bytewise: of two long ids with the same beginning the numbers decide,
and a shorter id that is such a beginning comes before both. Equal ids stay equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from retrieval.errors import RetrievalError, UsageError

__all__ = ["MOST_BYTES", "LongIdError", "LongIds"]

MOST_BYTES = 256  # of an id that is padded as it is
_NUM_DIGITS = 12
_LEAST_LIMIT = 48  # what stands for an id is then no longer than most ids
_MOST_LIMIT = 384
_NONE = pa.array([], pa.large_binary())
_NOTHING = pa.scalar(b"", pa.large_binary())


class LongIdError(RetrievalError):
    """An id is longer than MOST_BYTES: all of them must be known before any is compared."""


@dataclass(frozen=True, eq=False)
class LongIds:
    """The long ids of some sources.

    Attributes:
        limit: An id of more bytes is long.
        texts: large_binary (N,), the long ids, sorted bytewise, each once.
    """

    limit: int
    texts: pa.LargeBinaryArray

    @classmethod
    def collect(cls, blocks: Iterable[pa.Array], memory_bytes: int) -> LongIds:
        """Collect the long ids of all blocks.

        Args:
            blocks: large_string arrays without nulls.
            memory_bytes: What the long ids may take; the limit is the least that keeps to it.

        Raises:
            UsageError: even those of more than 384 bytes take more.
        """
        limit, found, num_bytes = _LEAST_LIMIT, [_NONE], 0
        for block in blocks:
            added = _longer(block.cast(pa.large_binary()), limit)
            if not len(added):
                continue
            found.append(added)
            num_bytes += _num_bytes(added)
            if num_bytes > memory_bytes:  # each once may be fewer: both sides may hold the same
                found = [_sorted(found)]
                num_bytes = _num_bytes(found[0])
            while num_bytes > memory_bytes:
                limit *= 2
                if limit > _MOST_LIMIT:
                    raise UsageError(
                        f"The ids of more than {_MOST_LIMIT} bytes take more than "
                        f"{memory_bytes / 2**30:.3g} GiB, a third of the memory. Allow more, or "
                        f"give the images shorter ids."
                    )
                found = [_longer(found[0], limit)]
                num_bytes = _num_bytes(found[0])
        return cls(limit, _sorted(found))

    @property
    def width(self) -> int:
        """Bytes of the longest that stands in an array."""
        return self.limit + _NUM_DIGITS

    @property
    def nbytes(self) -> int:
        """Bytes that the long ids take."""
        return int(self.texts.nbytes)

    def shorten(
        self, text: pa.Array, pad: Callable[[pa.Array], NDArray[np.bytes_]]
    ) -> NDArray[np.bytes_]:
        """Ids as an array of one width, bytes (N,): short ones, and what stands for long ones.

        Args:
            text: large_string (N,), without nulls.
            pad: Makes an array of texts.

        Raises:
            LongIdError: one is long, and not among those that were collected.
        """
        text = text.cast(pa.large_binary())
        is_long = pc.greater(pc.binary_length(text), self.limit)
        if not is_long.true_count:
            return pad(text)
        long = text.filter(is_long)
        places = pc.index_in(long, value_set=self.texts)
        if places.null_count:
            raise LongIdError("A long id that was not there before.")
        numbers = [f"{place:0{_NUM_DIGITS}x}".encode() for place in places.to_pylist()]
        heads = pc.binary_slice(long, 0, self.limit)
        short = pc.binary_join_element_wise(heads, pa.array(numbers, pa.large_binary()), _NOTHING)
        return pad(pc.replace_with_mask(text, is_long, short))

    def expand(self, ids: NDArray[np.bytes_]) -> pa.Array:
        """The ids that an array stands for, large_string (N,)."""
        found = pa.array(ids, pa.large_binary())
        is_long = pc.greater(pc.binary_length(found), self.limit)
        numbers = pc.binary_slice(found.filter(is_long), self.limit, self.width).to_pylist()
        texts = self.texts.take(pa.array([int(number, 16) for number in numbers], pa.int64()))
        return pc.replace_with_mask(found, is_long, texts).cast(pa.large_string())


def _sorted(arrays: list[pa.Array]) -> pa.Array:
    """The texts of all arrays, sorted, each once."""
    texts = pa.concat_arrays(arrays)
    texts = texts.take(pc.sort_indices(texts))
    is_first = pc.not_equal(texts[1:], texts[:-1])
    if is_first.false_count:
        texts = texts.filter(pa.concat_arrays([pa.array([True]), is_first]))
    return texts


def _num_bytes(texts: pa.Array) -> int:
    return pc.sum(pc.binary_length(texts)).as_py() or 0


def _longer(texts: pa.Array, limit: int) -> pa.Array:
    return texts.filter(pc.greater(pc.binary_length(texts), limit))
