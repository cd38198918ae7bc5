"""The k nearest rows of some parts of the gallery for a block of queries, in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import UsageError
from retrieval.search import Candidates, CpuSearch, guess_floors, scan
from retrieval.vectors import Sample, VectorBlock, VectorPart, VectorSource, read_ahead, read_blocks

if TYPE_CHECKING:
    from retrieval.search.gpu import GpuSearch

__all__ = [
    "PRODUCTS",
    "PartialTopK",
    "SearchTask",
    "choose_device",
    "initial_thresholds",
    "search_parts",
    "this_machine_has_gpu",
]

PRODUCTS = ("cosine", "ip", "l2")  # what a GPU can rank


@dataclass(frozen=True)
class SearchTask:
    """What every part of the gallery is searched for. Plain values: each process gets them.

    Attributes:
        gallery: The gallery.
        k: Neighbours of each query.
        metric: One of METRICS, or "minkowski:P".
        exclude_self: Leave out the gallery row with the query's own id.
        gallery_rows: Rows that are read at a time.
        device: "cpu", "cuda" or "auto", as asked for; `on_device` settles it.
    """

    gallery: VectorSource
    k: int
    metric: str
    exclude_self: bool
    gallery_rows: int
    device: str

    def on_device(self, *, has_gpu: bool) -> SearchTask:
        """The same on "cpu" or "cuda", as `choose_device` says."""
        return replace(self, device=choose_device(self.device, self.metric, has_gpu=has_gpu))


@dataclass(frozen=True)
class PartialTopK:
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


def initial_thresholds(
    task: SearchTask, queries: NDArray[Any], sample: Sample, *, num_threads: int
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


def search_parts(  # noqa: PLR0913 - the last three are plain facts
    task: SearchTask,
    queries: VectorBlock,
    parts: Sequence[VectorPart],
    basis: NDArray[np.float32] | None,
    floors: NDArray[np.float64],
    *,
    num_threads: int,
    on_part: Callable[[], None] = lambda: None,
) -> PartialTopK:
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
    return PartialTopK(search.result(), search.certificate(), len(parts))


def _search(
    task: SearchTask, queries: VectorBlock, basis: NDArray[np.float32] | None
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
    task: SearchTask, parts: Sequence[VectorPart], on_part: Callable[[], None]
) -> Iterator[VectorBlock]:
    for part in parts:
        yield from read_blocks(task.gallery, part, task.gallery_rows)
        on_part()
