"""What the tests of an index's care share: versions of given photos, made by hand."""

from __future__ import annotations

import json
import os
import zlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval.index import commit_index, index_schema, is_index, open_index, write_shard
from retrieval.index.shards import encode_parquet
from retrieval.index.staging import INDEX_REJECT_SCHEMA
from retrieval.storage import join, write_bytes
from tests.conftest import make_spec

DAY_S = 24 * 3600
PRESENT_S = 1_800_000_000.0  # when the tests of `vacuum` take place
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def unit_vector(name):
    """float16 (2,) of length 1, of its own for each id."""
    angle = zlib.crc32(name.encode()) / 2**32 * 2 * np.pi
    return np.array([np.cos(angle), np.sin(angle)]).astype(np.float16)


def rows_of(photos, spec=None, vectors=None):
    """Index rows of {id: content} or {id: (content, label)}."""
    pairs = [value if isinstance(value, tuple) else (value, None) for value in photos.values()]
    vectors = vectors or [unit_vector(name) for name in photos]
    count = len(photos)
    return pa.table(
        {
            "image_id": list(photos),
            "uri": [f"/photos/{name}" for name in photos],
            "content_sha256": [content for content, _ in pairs],
            "size_bytes": [1] * count,
            "modified_at": [NOW] * count,
            "width": [1] * count,
            "height": [1] * count,
            "label": pa.array([label for _, label in pairs], pa.string()),
            "embedding": [vector.tobytes() for vector in vectors],
        }
    ).cast(index_schema(spec or make_spec(2)))


def add_shard(path, photos, **settings):
    """Write a shard that a commit may name."""
    return write_shard(str(path), rows_of(photos, **settings))


def commit(path, shards, *, spec=None, **run):
    """The next version, or the first; returns it opened."""
    seen = open_index(str(path)).version if is_index(str(path)) else None
    commit_index(str(path), spec or make_spec(2), shards, run=run, seen_version=seen)
    return open_index(str(path))


def add_rejects(path, run_id, ids, reason="truncated"):
    """Write rejects as a night does; gives their folder relative to the index."""
    table = pa.table(
        {
            "image_id": list(ids),
            "uri": [f"/photos/{name}" for name in ids],
            "reason": [reason] * len(ids),
            "message": ["it ends early"] * len(ids),
            "size_bytes": [1] * len(ids),
            "modified_at": [NOW] * len(ids),
        }
    ).cast(INDEX_REJECT_SCHEMA)
    name = join(str(path), "_rejects", run_id, "part-0.parquet")
    write_bytes(name, encode_parquet(table))
    return f"_rejects/{run_id}"


def entry(path, version):
    """The log's file of a version."""
    return Path(path) / "_delta_log" / f"{version:020d}.json"


def date_commit(path, version, when_s):
    """Have a commit been made at another time."""
    lines = entry(path, version).read_text().splitlines()
    actions = [json.loads(line) for line in lines]
    for action in actions:
        if "commitInfo" in action:
            action["commitInfo"]["timestamp"] = int(when_s * 1000)
    entry(path, version).write_text("".join(json.dumps(action) + "\n" for action in actions))


def date_file(path, when_s):
    """Have a file been written at another time."""
    os.utime(path, (when_s, when_s))


def old_index(path, ages_days):
    """Version n of shard n alone, committed so many days ago, with a reject of its own."""
    shards = []
    for number, age in enumerate(ages_days):
        shards.append(add_shard(path, {f"p{number}": str(number)}))
        rejects = add_rejects(path, f"run{number}", [f"x{number}"])
        commit(path, shards[-1:], run_id=f"run{number}", rejects=rejects)
        date_commit(path, number, PRESENT_S - age * DAY_S)
        date_file(path / shards[-1].path, PRESENT_S - age * DAY_S)
        date_file(path / rejects / "part-0.parquet", PRESENT_S - age * DAY_S)
    return shards
