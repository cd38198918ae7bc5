"""The stage of `embed` that writes: shards and rejects, by workers."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from ray.data import Datasink
from ray.data.datasource import WriteResult

from pipelines.embed.budget import Stopwatch, seconds_of
from retrieval.index import EmbeddingSpec, Shard, index_schema, write_shard
from retrieval.index.schema import REJECT_SCHEMA
from retrieval.index.shards import encode_parquet
from retrieval.storage import join, write_bytes

__all__ = ["IndexDatasink", "Written", "rejects_folder"]


@dataclass
class Written:
    """What one write task made.

    Attributes:
        shards: Its shard, if any photo was good.
        reasons: How many rejects of each reason.
        example: One reject in words, if there is any.
        seconds: Of each stage, all its photos together.
        manners: How many photos were embedded in which manner.
        ready_at: Seconds since 1970 at which the first of its networks was ready.
    """

    shards: list[Shard] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    example: str = ""
    seconds: Counter[str] = field(default_factory=Counter)
    manners: Counter[str] = field(default_factory=Counter)
    ready_at: float = math.inf


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
        result, watch = Written(), Stopwatch()
        with watch.measure("write"):
            self._write(table, result)
        result.seconds = seconds_of(watch.add_to(table))
        result.manners.update(table["manner"].drop_null().to_pylist())
        result.ready_at = pc.min(table["ready_at"]).as_py()
        return result

    def _write(self, table: pa.Table, result: Written) -> None:
        is_good = pc.is_null(table["reason"])
        good, bad = table.filter(is_good), table.filter(pc.invert(is_good))
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

    def on_write_complete(self, write_result: WriteResult) -> None:
        """Keep what the tasks returned, for the driver."""
        self.written = list(write_result.write_returns)
