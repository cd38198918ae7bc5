"""The stages of `embed` on workers: decode, embed, and write shards, rejects and their receipts.

A row that fails in one stage goes on with its `reason` set, and ends among the rejects. So
every photo listed is counted once at the end, and one bad file never costs a neighbour.

torch loads in the actors alone: a decoding task starts in a second and stays small.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from ray.data import Datasink
from ray.data.datasource import WriteResult

from pipelines.embed.budget import BusyTime, Stopwatch, seconds_of
from pipelines.ray_runtime.counter import Tally
from pipelines.ray_runtime.decode_task import open_photos
from retrieval.errors import ImageError, RetrievalError
from retrieval.images import Preprocessing, Reason
from retrieval.images.fetch import OpenedPhoto, fetch_photos
from retrieval.index import EmbeddingSpec, Receipt, index_schema, stage
from retrieval.index.reading import vectors_of
from retrieval.index.staging import INDEX_REJECT_SCHEMA

__all__ = ["Decode", "EmbedPhotos", "IndexDatasink", "Written"]


class Decode:
    """Fetch and decode photos: rows of the catalogue gain pixels or a reason."""

    def __init__(self, preprocessing: Preprocessing, tally: Tally) -> None:
        self._preprocessing = preprocessing
        self._tally = tally

    def __call__(self, table: pa.Table) -> pa.Table:
        """Add content_sha256, width, height, pixels, reason and message to a batch."""
        watch = Stopwatch()
        with watch.measure("read", is_waiting=True):
            contents = fetch_photos(table["uri"].to_pylist(), table["size_bytes"].to_pylist())
        with watch.measure("decode"):
            photos = open_photos(contents, self._preprocessing)
        with watch.measure("hand_over"):
            table = _with_pixels(_with_sizes(table, contents), photos, self._preprocessing.size)
        self._tally.add(table.num_rows, "decoded", table["uri"][:1].to_pylist())
        return watch.add_to(table)


def _with_sizes(table: pa.Table, contents: list[bytes | ImageError]) -> pa.Table:
    """The sizes of what was read: a photo may have changed since it was listed."""
    pairs = zip(contents, table["size_bytes"].to_pylist(), strict=True)
    sizes = [size if isinstance(content, ImageError) else len(content) for content, size in pairs]
    place = table.column_names.index("size_bytes")
    return table.set_column(place, "size_bytes", pa.array(sizes, pa.int64()))


def _with_pixels(table: pa.Table, photos: list[OpenedPhoto], side: int) -> pa.Table:
    # Not .data: pyarrow 26 never lets go of a memoryview that it has made an array of.
    pixels = [None if photo.pixels is None else photo.pixels.tobytes() for photo in photos]
    columns = {
        "content_sha256": pa.array([photo.sha256 for photo in photos], pa.string()),
        "width": pa.array([photo.width for photo in photos], pa.int32()),
        "height": pa.array([photo.height for photo in photos], pa.int32()),
        "pixels": pa.array(pixels, pa.binary(side * side * 3)),
        "reason": pa.array([photo.reason for photo in photos], pa.string()),
        "message": pa.array([photo.message for photo in photos], pa.string()),
    }
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


class EmbedPhotos:
    """The network, in an actor: pixels become embeddings."""

    def __init__(self, settings: Mapping[str, Any], tally: Tally) -> None:
        """Build the network.

        Args:
            settings: Arguments of `Embedder`.
            tally: For the progress line.
        """
        import torch

        from retrieval.models.embedder import Embedder

        torch.set_num_threads(1)
        # float32 means float32: TF32 would tell a GPU's embeddings from a CPU's.
        torch.backends.cudnn.allow_tf32 = False
        self._error: RetrievalError | None = None
        try:
            self._embedder = Embedder(**settings)
        except RetrievalError as error:  # of a constructor's error Ray keeps the text alone
            self._error = error
        self._side = settings["preprocessing"].size
        self._tally = tally
        self._ready_at = time.time()
        self._on_gpu = BusyTime() if torch.cuda.is_available() else None

    def __call__(self, table: pa.Table) -> pa.Table:
        """Replace the column `pixels` by `embedding`, and say when it was ready and how it did."""
        import torch

        if self._error:
            raise self._error
        torch.set_num_threads(1)  # is a setting of each thread; see Placement
        watch = Stopwatch()
        with watch.measure("hand_over"):
            rows = np.flatnonzero(pc.is_null(table["reason"]).to_numpy())
            # take copies, also where it takes all
            good = table["pixels"].take(rows) if len(rows) < table.num_rows else table["pixels"]
            pixels = vectors_of(good, self._side**2 * 3, "uint8")
        vectors = self._embed(pixels.reshape(-1, self._side, self._side, 3), watch)
        with watch.measure("hand_over"):
            table = self._with_embeddings(table, rows, vectors)
        self._tally.add(table.num_rows, "embedded", table["uri"][:1].to_pylist())
        return watch.add_to(table)

    def _embed(self, pixels: NDArray[np.uint8], watch: Stopwatch) -> NDArray[Any]:
        if self._on_gpu is None:
            with watch.measure("forward"):
                return self._embedder.embed(pixels)
        with self._on_gpu:
            vectors = self._embedder.embed(pixels)
        watch.add("forward", self._on_gpu.take())
        return vectors

    def _with_embeddings(
        self, table: pa.Table, rows: NDArray[np.intp], vectors: NDArray[Any]
    ) -> pa.Table:
        reasons, messages = table["reason"].to_pylist(), table["message"].to_pylist()
        embeddings: list[bytes | None] = [None] * table.num_rows
        manners: list[str | None] = [None] * table.num_rows
        for row, vector in zip(rows, vectors, strict=True):
            if vector.any():
                embeddings[row] = vector.tobytes()
                manners[row] = self._embedder.manner
            else:
                reasons[row] = Reason.NO_EMBEDDING
                messages[row] = "the network answers this photo with zeros alone"
        kind = pa.binary(self._embedder.spec.row_bytes)
        return (
            table.drop_columns(["pixels", "reason", "message"])
            .append_column("embedding", pa.array(embeddings, kind))
            .append_column("reason", pa.array(reasons, pa.string()))
            .append_column("message", pa.array(messages, pa.string()))
            .append_column("manner", pa.array(manners, pa.string()))
            .append_column("ready_at", pa.array([self._ready_at] * table.num_rows, pa.float64()))
        )


@dataclass
class Written:
    """What one write task made.

    Attributes:
        receipt: For its shard and its rejects.
        seconds: Of each stage, all its photos together.
        precision: How many photos were embedded in which precision and batch size.
        reasons: How many were refused for which reason.
        ready_at: Seconds since 1970 at which the first of its networks was ready.
    """

    receipt: Receipt
    seconds: Counter[str] = field(default_factory=Counter)
    precision: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    ready_at: float = math.inf


class IndexDatasink(Datasink[Written]):
    """Writes shards and rejects into an index's folder; the driver commits them."""

    def __init__(
        self, index_uri: str, spec: EmbeddingSpec, run: tuple[str, int], shard_rows: int
    ) -> None:
        self._index_uri = index_uri
        self._spec = spec
        self._run = run
        self._shard_rows = shard_rows
        self.written: list[Written] = []

    @property
    def min_rows_per_write(self) -> int:
        """Rows that Ray gathers for one shard."""
        return self._shard_rows

    def write(self, blocks: Iterable[pa.Table], ctx: object) -> Written:
        """Write the rows of one task: one shard, one file of rejects, and the receipt."""
        table = pa.concat_tables(blocks)
        watch = Stopwatch()
        with watch.measure("write"):
            is_good = pc.is_null(table["reason"])
            good = table.filter(is_good).select(index_schema(self._spec).names)
            bad = table.filter(pc.invert(is_good)).select(INDEX_REJECT_SCHEMA.names)
            receipt = stage(self._index_uri, self._spec, self._run, good, bad)
        return Written(
            receipt=receipt,
            seconds=seconds_of(watch.add_to(table)),
            precision=Counter(table["manner"].drop_null().to_pylist()),
            reasons=Counter(bad["reason"].to_pylist()),
            ready_at=pc.min(table["ready_at"]).as_py(),
        )

    def on_write_complete(self, write_result: WriteResult) -> None:
        """Keep what the tasks returned, for the driver."""
        self.written = list(write_result.write_returns)
