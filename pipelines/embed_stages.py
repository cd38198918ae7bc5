"""The three stages of `embed` that run on workers: decode, embed, write.

A row that fails in one stage goes on with its `reason` set, and ends among the rejects. So
every photo listed is counted once at the end, and one bad file never costs a neighbour.

torch loads in the actors alone: a decoding task starts in a second and stays small.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ray.data import Datasink
from ray.data.datasource import WriteResult

from pipelines.tally import Tally
from retrieval.errors import RetrievalError
from retrieval.fetching import fetch_photos, open_photo
from retrieval.images import Preprocessing, Reason
from retrieval.index import EmbeddingSpec, Shard, index_schema, write_shard
from retrieval.index.reading import vectors_of
from retrieval.index.schema import REJECT_SCHEMA
from retrieval.index.shards import encode_parquet
from retrieval.storage import join, write_bytes

__all__ = [
    "Decode",
    "EmbedPhotos",
    "IndexDatasink",
    "Written",
    "rejects_folder",
]


class Decode:
    """Fetch and decode photos: rows of the catalogue gain pixels or a reason."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing

    def __call__(self, table: pa.Table) -> pa.Table:
        """Add content_sha256, width, height, pixels, reason and message to a batch."""
        uris, sizes = table["uri"].to_pylist(), table["size_bytes"].to_pylist()
        rows = [open_photo(content, self._preprocessing) for content in fetch_photos(uris, sizes)]
        pixels = [None if row.pixels is None else row.pixels.tobytes() for row in rows]
        side = self._preprocessing.size
        pixel_type = pa.binary(side * side * 3)
        columns = {
            "content_sha256": pa.array([row.sha256 for row in rows], pa.string()),
            "width": pa.array([row.width for row in rows], pa.int32()),
            "height": pa.array([row.height for row in rows], pa.int32()),
            "pixels": pa.array(pixels, pixel_type),
            "reason": pa.array([row.reason for row in rows], pa.string()),
            "message": pa.array([row.message for row in rows], pa.string()),
        }
        for name, column in columns.items():
            table = table.append_column(name, column)
        return table


class EmbedPhotos:
    """The network, in an actor: pixels become embeddings."""

    def __init__(self, settings: dict[str, Any], num_threads: int, tally: Tally) -> None:
        """Build the network.

        Args:
            settings: Arguments of `Embedder`.
            num_threads: Threads of a forward pass on the CPU.
            tally: For the progress line.
        """
        import torch

        from retrieval.embedding import Embedder

        torch.set_num_threads(num_threads)
        # float32 means float32: TF32 would tell a GPU's embeddings from a CPU's.
        torch.backends.cudnn.allow_tf32 = False
        self._error: RetrievalError | None = None
        try:
            self._embedder = Embedder(**settings)
        except RetrievalError as error:  # of a constructor's error Ray keeps the text alone
            self._error = error
        self._side = settings["preprocessing"].size
        self._tally = tally

    def __call__(self, table: pa.Table) -> pa.Table:
        """Replace the column `pixels` by `embedding`."""
        if self._error:
            raise self._error
        rows = np.flatnonzero(pc.is_null(table["reason"]).to_numpy())
        pixels = vectors_of(table["pixels"].take(rows), self._side**2 * 3, "uint8")
        vectors = self._embedder.embed(pixels.reshape(-1, self._side, self._side, 3))

        reasons, messages = table["reason"].to_pylist(), table["message"].to_pylist()
        embeddings: list[bytes | None] = [None] * table.num_rows
        for row, vector in zip(rows, vectors, strict=True):
            if vector.any():
                embeddings[row] = vector.tobytes()
            else:
                reasons[row] = Reason.NO_EMBEDDING
                messages[row] = "the network answers this photo with zeros alone"
        self._tally.add(table.num_rows)
        kind = pa.binary(self._embedder.spec.row_bytes)
        return (
            table.drop_columns(["pixels", "reason", "message"])
            .append_column("embedding", pa.array(embeddings, kind))
            .append_column("reason", pa.array(reasons, pa.string()))
            .append_column("message", pa.array(messages, pa.string()))
        )


@dataclass
class Written:
    """What one write task made.

    Attributes:
        shards: Its shard, if any photo was good.
        reasons: How many rejects of each reason.
        example: One reject in words, if there is any.
    """

    shards: list[Shard] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    example: str = ""


def rejects_folder(index_uri: str, run_id: str) -> str:
    """Where a run's rejects are: beside the index, below a name that readers of tables skip."""
    return join(index_uri, "_rejects", run_id)


class IndexDatasink(Datasink[Written]):
    """Writes shards and rejects into an index's folder; the driver commits them."""

    def __init__(self, index_uri: str, spec: EmbeddingSpec, run_id: str, shard_rows: int) -> None:
        self._index_uri = index_uri
        self._spec = spec
        self._run_id = run_id
        self._shard_rows = shard_rows
        self.written: list[Written] = []

    @property
    def min_rows_per_write(self) -> int:
        """Rows that Ray gathers for one shard."""
        return self._shard_rows

    def write(self, blocks: Iterable[pa.Table], ctx: object) -> Written:
        """Write the rows of one task: one shard, and one file of rejects."""
        table = pa.concat_tables(blocks)
        is_good = pc.is_null(table["reason"])
        good, bad = table.filter(is_good), table.filter(pc.invert(is_good))
        result = Written()
        if good.num_rows:
            schema = index_schema(self._spec)
            rows = good.select(schema.names).cast(schema)
            result.shards.append(write_shard(self._index_uri, rows))
        if bad.num_rows:
            rejects = bad.select(REJECT_SCHEMA.names).cast(REJECT_SCHEMA)
            name = f"part-{uuid.uuid4().hex}.parquet"
            folder = rejects_folder(self._index_uri, self._run_id)
            write_bytes(join(folder, name), encode_parquet(rejects))
            result.reasons.update(rejects["reason"].to_pylist())
            first = rejects.slice(0, 1).to_pylist()[0]
            result.example = f"{first['image_id']}: {first['message']}"
        return result

    def on_write_complete(self, write_result: WriteResult) -> None:
        """Keep what the tasks returned, for the driver."""
        self.written = list(write_result.write_returns)
