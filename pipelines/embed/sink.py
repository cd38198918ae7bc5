"""The stage of `embed` that writes: shards, rejects and their receipts, by workers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
from ray.data import Datasink
from ray.data.datasource import WriteResult

from pipelines.embed.budget import Stopwatch, seconds_of
from retrieval.index import EmbeddingSpec, Receipt, index_schema, stage
from retrieval.index.staging import INDEX_REJECT_SCHEMA

__all__ = ["IndexDatasink", "Written"]


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
