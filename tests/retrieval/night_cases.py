"""Galleries, rows, killed nights and executor that refuse, for tests of the nightly index."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.index import index_schema, open_index, stage
from retrieval.index.staging import INDEX_REJECT_SCHEMA
from tests.retrieval.nights import DAY_US, SPEC, Gallery, LoopExecutor, begin


def gallery_of(num_photos):
    gallery = Gallery()
    for number in range(num_photos):
        gallery.put(f"a/{number:02d}", b"photo %d" % number)
    return gallery


def killed_night(uri, gallery, executor=None, **settings):
    """A night a day later that ends just before its commit."""
    gallery.now_us += DAY_US
    return begin(uri, gallery, executor or LoopExecutor(uri, gallery), **settings)


def shards_of(uri):
    return {shard.path: shard.num_rows for shard in open_index(uri).shards}


def ids_by_shard(uri, paths):
    return {path: tuple(pq.read_table(f"{uri}/{path}")["image_id"].to_pylist()) for path in paths}


class RefusingExecutor(LoopExecutor):
    """Refuse every photo, for one reason."""

    reason = "corrupt"

    def embed(self, photos, options):
        refused = [
            {**photo, "reason": self.reason, "message": "no"} for photo in photos.to_pylist()
        ]
        return [
            stage(
                self.uri,
                self.spec,
                (options.run_id, options.listed_us),
                index_schema(self.spec).empty_table(),
                pa.Table.from_pylist(refused, INDEX_REJECT_SCHEMA),
            )
        ]


def rows(*names, spec=SPEC):
    """Index rows whose every column can be told from the name."""
    numbers = [sum(name.encode()) for name in names]
    return pa.table(
        {
            "image_id": pa.array(names, pa.string()),
            "uri": [f"/old/{name}" for name in names],
            "content_sha256": [hashlib.sha256(name.encode()).hexdigest() for name in names],
            "size_bytes": numbers,
            "modified_at": [datetime(2026, 1, 1, tzinfo=UTC)] * len(names),
            "width": [2 * number for number in numbers],
            "height": [3 * number for number in numbers],
            "label": [f"old {name}" for name in names],
            "embedding": [
                hashlib.sha256(name.encode()).digest()[: spec.row_bytes] for name in names
            ],
        }
    ).cast(index_schema(spec))
