"""Fixtures: photos drawn in code, small indexes, one Ray for the whole run."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from retrieval.index import EmbeddingSpec, commit_index, index_schema, open_index, write_shard

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 210)}


@pytest.fixture(scope="session")
def ray_session():
    """A Ray that the jobs of all tests use, since starting one takes seconds."""
    from pipelines import cluster

    with cluster.session():
        yield


def photo_bytes(colour, size=(32, 24), kind="JPEG"):
    """A photo of one colour with a little noise, seeded by the colour."""
    rng = np.random.default_rng(sum(colour))
    pixels = np.asarray(colour) + rng.integers(-20, 20, (size[1], size[0], 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def photos(tmp_path):
    """Nine photos in three class folders, one outside, and two files that are no photos."""
    root = tmp_path / "photos"
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(3):
            shade = tuple(max(0, value - 9 * number) for value in colour)
            (root / name / f"{name}-{number}.jpg").write_bytes(photo_bytes(shade))
    (root / "grey.png").write_bytes(photo_bytes((128, 128, 128), kind="PNG"))
    (root / "red" / "broken.jpg").write_bytes(photo_bytes(COLOURS["red"])[:300])
    (root / "notes.txt").write_text("no photo")
    return root


def make_spec(dim, dtype="float16", fingerprint="f" * 64):
    return EmbeddingSpec(
        fingerprint=fingerprint, backbone="fake", weights="none", dim=dim, dtype=dtype
    )


def make_index(path, ids, vectors, *, labels=None, num_shards=1, fingerprint="f" * 64):
    """An index of given vectors, dealt out to shards like cards."""
    vectors = np.asarray(vectors)
    spec = make_spec(vectors.shape[1], vectors.dtype.name, fingerprint)
    labels = labels or [None] * len(ids)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    shards = []
    for number in range(num_shards):
        rows = range(number, len(ids), num_shards)
        table = pa.table(
            {
                "image_id": [ids[row] for row in rows],
                "uri": [f"/nowhere/{ids[row]}" for row in rows],
                "content_sha256": ["0" * 64 for _ in rows],
                "size_bytes": [1 for _ in rows],
                "modified_at": [now for _ in rows],
                "width": [1 for _ in rows],
                "height": [1 for _ in rows],
                "label": pa.array([labels[row] for row in rows], pa.string()),
                "embedding": [vectors[row].tobytes() for row in rows],
            }
        ).cast(index_schema(spec))
        shards.append(write_shard(str(path), table))
    commit_index(str(path), spec, shards, run={}, seen_version=None)
    return open_index(str(path))
