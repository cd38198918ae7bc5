"""Fixtures: photos drawn in code, small indexes, one Ray for the whole run."""

from __future__ import annotations

import gc
import io
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from retrieval.index import EmbeddingSpec, commit_index, index_schema, open_index, write_shard

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 210)}


@pytest.fixture(scope="session")
def s3():
    """A bucket on an S3 server of our own, as s3://bucket-…; clients find it by the environment.

    In a process of its own, since deltalake holds the interpreter's lock while it waits.
    """
    import boto3

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    url, bucket = f"http://127.0.0.1:{port}", f"bucket-{uuid.uuid4().hex[:8]}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as server, pytest.MonkeyPatch.context() as patch:
        try:
            for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
                patch.delenv(name, raising=False)
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                patch.setenv(name, "test")
            patch.setenv("AWS_ENDPOINT_URL", url)
            patch.setenv("AWS_ALLOW_HTTP", "true")  # deltalake refuses http:// without it
            patch.setenv("AWS_REGION", "us-east-1")
            wait_for_server(server, url)
            boto3.client("s3").create_bucket(Bucket=bucket)
            yield f"s3://{bucket}"
        finally:
            server.terminate()


def wait_for_server(server, url):
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"moto does not answer at {url} (exit code {server.poll()})")


@pytest.fixture(scope="session", autouse=True)
def quiet_steps():
    """A busy machine takes its time for a step, and a test compares what is printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.progress._LOG_EVERY_S", 3600.0)
        yield


@pytest.fixture(scope="session")
def ray_session(s3):
    """A Ray that the jobs of all tests use, since starting one takes seconds.

    After the S3 server, since workers find that by the environment that Ray was started with.
    """
    from pipelines.ray_runtime.session import session

    with pytest.MonkeyPatch.context() as patch:
        # Ray's workers give way to all else that runs here, and a test waits for them.
        patch.setenv("RAY_worker_niceness", "0")
        # The tests of metrics wait for what is exported; Ray's own interval is 10 s.
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        # A process for each training, which looks out for machines that are taken away.
        patch.setenv("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # The rankings of these tests are all so small that no actor would ever rank.
        patch.setattr("pipelines.rank.executor._SMALL_S", 0.0)
        with session():
            gc.freeze()  # each job looks for garbage: what is loaded by now is none
            yield
            gc.unfreeze()  # else what should end with the process is told to have leaked


def photo_bytes(colour, size=(32, 24), kind="JPEG"):
    """A photo of one colour with a little noise, seeded by the colour."""
    rng = np.random.default_rng(sum(colour))
    pixels = np.asarray(colour) + rng.integers(-20, 20, (size[1], size[0], 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def draw_photos(root):
    """Nine photos in three class folders, one outside, and two files that are no photos."""
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(3):
            shade = tuple(max(0, value - 9 * number) for value in colour)
            (root / name / f"{name}-{number}.jpg").write_bytes(photo_bytes(shade))
    (root / "grey.png").write_bytes(photo_bytes((128, 128, 128), kind="PNG"))
    (root / "red" / "broken.jpg").write_bytes(photo_bytes(COLOURS["red"])[:300])
    (root / "notes.txt").write_text("no photo")
    return root


@pytest.fixture
def photos(tmp_path):
    """Photos of the test's own, which it may change; see `draw_photos`."""
    return draw_photos(tmp_path / "photos")


def make_spec(dim, dtype="float16", fingerprint="f" * 64):
    return EmbeddingSpec(
        fingerprint=fingerprint, backbone="fake", weights="none", dim=dim, dtype=dtype
    )


def make_index(
    path, ids, vectors, *, labels=None, num_shards=1, fingerprint="f" * 64, folder="/nowhere"
):
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
                "uri": [f"{folder}/{ids[row]}" for row in rows],
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
