"""Blocks of vectors on the host, of any size → chunks on the device.

On CUDA a chunk is filled through two pinned buffers by a stream of its own, while the device
searches the chunk before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Staging"]

_PINNED_BYTES = 2**25  # of each of the two buffers


class Staging:
    """One chunk that is being filled."""

    def __init__(self, device: torch.device) -> None:
        self._chunk: Tensor | None = None
        self._filled = 0
        self._device = device
        self._copier = _PinnedCopier(device) if device.type == "cuda" else None

    def is_open(self) -> bool:
        """Whether there is a chunk."""
        return self._chunk is not None

    def is_full(self) -> bool:
        """Whether there is a chunk without room."""
        return self._chunk is not None and self._filled == len(self._chunk)

    def fits(self, vectors: NDArray[Any]) -> bool:
        """Whether vectors (N, D) are of the type and width of the chunk."""
        if self._chunk is None:
            return False
        return self._chunk.dtype == _torch_dtype(vectors) and (
            self._chunk.shape[1] == vectors.shape[1]
        )

    def open(self, num_rows: int, like: NDArray[Any]) -> None:
        """Start a chunk of vectors like these."""
        shape = (num_rows, like.shape[1])
        if self._copier is None:
            self._chunk = torch.empty(shape, dtype=_torch_dtype(like), device=self._device)
        else:
            self._chunk = self._copier.empty(shape, _torch_dtype(like))
        self._filled = 0

    def fill(self, vectors: NDArray[Any]) -> int:
        """Copy as many rows as there is room for, and return their number.

        The caller may change the vectors as soon as this returns.
        """
        assert self._chunk is not None  # noqa: S101 - the caller opens a chunk first
        room = self._chunk[self._filled : self._filled + len(vectors)]
        if self._copier is None:
            room.numpy()[...] = vectors[: len(room)]
        else:
            self._copier.copy(vectors[: len(room)], room)
        self._filled += len(room)
        return len(room)

    def close(self) -> Tensor:
        """The rows so far, ready for the current stream; no chunk is open then."""
        assert self._chunk is not None  # noqa: S101
        if self._copier is not None:
            self._copier.hand_over(self._chunk)
        rows, self._chunk = self._chunk[: self._filled], None
        return rows


class _PinnedCopier:
    """Asynchronous copies from ordinary memory to a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pinned = [torch.empty(_PINNED_BYTES, dtype=torch.uint8).pin_memory() for _ in "ab"]
        self._copied = [torch.cuda.Event() for _ in "ab"]  # type: ignore[no-untyped-call]
        self._turn = 0

    def empty(self, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        # Allocated for the copying stream, so that it need not wait for the searching one.
        with torch.cuda.stream(self._stream):
            return torch.empty(shape, dtype=dtype, device=self._device)

    def copy(self, vectors: NDArray[Any], target: Tensor) -> None:
        row_bytes = vectors.shape[1] * vectors.dtype.itemsize
        step = max(1, _PINNED_BYTES // row_bytes)
        for start in range(0, len(vectors), step):
            some = vectors[start : start + step]
            self._turn ^= 1
            self._copied[self._turn].synchronize()  # its last copy has been read
            pinned = self._buffer(some.nbytes)
            pinned = pinned.view(target.dtype).view(some.shape)
            pinned.numpy()[...] = some
            with torch.cuda.stream(self._stream):
                target[start : start + len(some)].copy_(pinned, non_blocking=True)
                self._copied[self._turn].record(self._stream)

    def _buffer(self, num_bytes: int) -> Tensor:
        if num_bytes > len(self._pinned[self._turn]):  # one row, wider than a buffer
            self._pinned[self._turn] = torch.empty(num_bytes, dtype=torch.uint8).pin_memory()
        return self._pinned[self._turn][:num_bytes]

    def hand_over(self, chunk: Tensor) -> None:
        searching = torch.cuda.current_stream(self._device)
        searching.wait_stream(self._stream)
        chunk.record_stream(searching)  # keeps its memory until the search is done with it


def _torch_dtype(vectors: NDArray[Any]) -> torch.dtype:
    return {2: torch.float16, 4: torch.float32, 8: torch.float64}[np.dtype(vectors.dtype).itemsize]
