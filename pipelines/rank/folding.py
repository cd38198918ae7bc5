"""Ranking some parts of the gallery for a block of queries, in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import UsageError
from retrieval.search import Candidates, CpuSearch, guess_floors, scan
from retrieval.vectors import Sample, VectorBlock, VectorPart, VectorSource, read_ahead, read_blocks

if TYPE_CHECKING:
    from retrieval.search.gpu import GpuSearch

__all__ = ["PRODUCTS", "Folded", "Task", "choose_device", "fold", "guess"]

PRODUCTS = ("cosine", "ip", "l2")  # what a GPU can rank


@dataclass(frozen=True)
class Task:
    """What all parts of a job need to know. Plain values: each actor gets them."""

    gallery: VectorSource
    k: int
    metric: str
    exclude_self: bool
    gallery_rows: int  # rows that are read at a time
    device: str  # "cpu" or "cuda"


@dataclass(frozen=True)
class Folded:
    """The neighbours in some parts of the gallery, and how they were found.

    Attributes:
        found: The k nearest of each query in these parts.
        certificate: Engine, its bound, and the pairs that it had to score.
        num_parts: How many parts.
    """

    found: Candidates
    certificate: dict[str, Any]
    num_parts: int


def choose_device(device: str, metric: str, *, has_gpu: bool) -> str:
    """The device to rank on, "cpu" or "cuda".

    Raises:
        UsageError: a GPU is asked for, and there is none or it cannot rank by this metric.
    """
    if device == "cuda" and metric not in PRODUCTS:
        raise UsageError(
            f"`device` cuda: {metric} is no matrix product; a GPU ranks by "
            f"{', '.join(PRODUCTS)}. Use `device` cpu."
        )
    if device == "cuda" and not has_gpu:
        raise UsageError("`device` cuda: no GPU found. Use `device` cpu, or a cluster with GPUs.")
    return "cuda" if has_gpu and device != "cpu" and metric in PRODUCTS else "cpu"


def this_machine_has_gpu() -> bool:
    """Whether CUDA works here. Loads torch, which takes seconds, only where a driver is."""
    if not Path("/dev/nvidiactl").exists() and not Path("/dev/dxg").exists():
        return False
    import torch

    return torch.cuda.is_available()


def guess(
    task: Task, queries: NDArray[Any], sample: Sample, *, num_threads: int
) -> NDArray[np.float64]:
    """Keys that k rows will very likely reach, float64 (Q,); see `guess_floors`."""
    return guess_floors(
        sample,
        queries,
        task.k,
        task.metric,
        num_gallery=task.gallery.num_rows,
        exclude_self=task.exclude_self,
        num_threads=num_threads,
    )


def fold(  # noqa: PLR0913 - the last three are plain facts
    task: Task,
    queries: VectorBlock,
    parts: Sequence[VectorPart],
    basis: NDArray[np.float32] | None,
    floors: NDArray[np.float64],
    *,
    num_threads: int,
    on_part: Callable[[], None] = lambda: None,
) -> Folded:
    """Find the k nearest rows of some parts for each query.

    Args:
        task: What to rank, and how.
        queries: Q queries.
        parts: Parts of the gallery; read once.
        basis: See `CpuSearch`.
        floors: float64 (Q,), keys below which no row is wanted; -inf where unknown.
        num_threads: Threads that search.
        on_part: Called when a part has been read.
    """
    search = _search(task, queries, basis)
    search.raise_floors(floors)
    num_lanes = min(num_threads, len(parts)) if task.device == "cpu" else 1
    readers = [
        read_ahead(_read(task, parts[lane::num_lanes], on_part)) for lane in range(num_lanes)
    ]
    scan(search, readers, num_threads if task.device == "cpu" else 1)
    return Folded(search.result(), search.certificate(), len(parts))


def _search(
    task: Task, queries: VectorBlock, basis: NDArray[np.float32] | None
) -> CpuSearch | GpuSearch:
    if task.device == "cpu":
        return CpuSearch(queries, task.k, task.metric, exclude_self=task.exclude_self, basis=basis)
    import torch

    from retrieval.search.gpu import GpuSearch

    return GpuSearch(
        queries,
        task.k,
        task.metric,
        exclude_self=task.exclude_self,
        device=torch.device("cuda"),
    )


def _read(
    task: Task, parts: Sequence[VectorPart], on_part: Callable[[], None]
) -> Iterator[VectorBlock]:
    for part in parts:
        yield from read_blocks(task.gallery, part, task.gallery_rows)
        on_part()
