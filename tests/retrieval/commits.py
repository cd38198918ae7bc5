"""Small indexes whose rows tell by their id what their vector must be."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from retrieval.index import commit_index, index_schema, is_index, open_index, read_index
from retrieval.index.shards import write_shard
from tests.conftest import make_spec

SPEC = make_spec(3)


def vector_of(image_id):
    digest = hashlib.sha256(image_id.encode()).digest()
    return np.frombuffer(digest[:3], np.uint8).astype(np.float16)


def make_shard(uri, *ids, spec=SPEC):
    """A shard that no commit names yet."""
    columns = {
        "image_id": ids,
        "uri": [f"/photos/{image_id}" for image_id in ids],
        "content_sha256": ["0" * 64] * len(ids),
        "size_bytes": [1] * len(ids),
        "modified_at": [datetime(2026, 1, 1, tzinfo=UTC)] * len(ids),
        "width": [1] * len(ids),
        "height": [1] * len(ids),
        "label": pa.nulls(len(ids), pa.string()),
        "embedding": [vector_of(image_id).tobytes() for image_id in ids],
    }
    return write_shard(str(uri), pa.table(columns).cast(index_schema(spec)))


def commit(uri, shards, seen_version, spec=SPEC, **run):
    return commit_index(str(uri), spec, shards, run=run, seen_version=seen_version)


def ids_of(uri, version=None):
    """Ids of a version, read whole: each with the vector that belongs to it."""
    rows = read_index(str(uri), version)
    assert rows.embeddings.tolist() == [vector_of(row_id).tolist() for row_id in rows.ids]
    return rows.ids


def make_versions(uri, num_versions):
    """An index in which version n holds the ids a, b and n, in a shard each."""
    uri.mkdir(parents=True, exist_ok=True)
    kept = [make_shard(uri, "a"), make_shard(uri, "b")]
    for version in range(num_versions):
        shards = [*kept, make_shard(uri, str(version))]
        commit(uri, shards, version - 1 if version else None)


def state_of(uri):
    """Newest version and its ids; None and no id where there is no index."""
    if not is_index(str(uri)):
        return None, []
    return open_index(str(uri)).version, ids_of(uri)


def night(uri, ids):
    """What a run does that is started again after a failure: commit what is still missing.

    Shards whose ids are all wanted stay, those of a single id that is not go.
    """
    version, found = state_of(uri)
    if found == sorted(ids):
        return version
    stay = {} if version is None else {shard.path: shard for shard in open_index(str(uri)).shards}
    for image_id in set(found) - set(ids):
        del stay[path_of(uri, image_id)]
    new = [make_shard(uri, image_id) for image_id in ids if image_id not in found]
    return commit(uri, [*stay.values(), *new], version)


def path_of(uri, image_id):
    """The shard of the newest version that begins with an image."""
    import pyarrow.parquet as pq

    shards = open_index(str(uri)).shards
    return next(
        shard.path
        for shard in shards
        if pq.read_table(f"{uri}/{shard.path}")["image_id"][0].as_py() == image_id
    )
