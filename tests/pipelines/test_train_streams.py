"""The streams of a worker: every photo where the order of the epoch puts it, run by Ray Data."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.ray_runtime.cluster_options import Site
from pipelines.train import photos
from pipelines.train.config import TrainConfig
from pipelines.train.network import preprocessing_of
from pipelines.train.photos import TrainingPhotos
from pipelines.train.placement import WorkerPlan
from pipelines.train.prefetcher import StreamsAhead
from pipelines.train.publishing import start_folder
from pipelines.train.split import split_photos
from retrieval.augmentations import load_recipe
from retrieval.errors import StorageError
from retrieval.training.photos import training_pixels
from retrieval.training.sampling import epoch_batches
from retrieval.training.splitting import TRAINING, VALIDATION
from tests.training import draw_photos

pytestmark = pytest.mark.usefixtures("ray_session")

CONFIG = TrainConfig(batch_size=7, image_size=32, validation=0.25, recipe="light", epochs=3)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, ray_session):
    """A plan over photos of three classes: 18 to train on, 6 to validate."""
    root = tmp_path_factory.mktemp("streams")
    split = split_photos(str(draw_photos(root / "photos")), CONFIG, print, Site())
    start_folder(str(root / "model"), split, {})
    return WorkerPlan(
        config=CONFIG,
        recipe=load_recipe(CONFIG.recipe),
        classes=tuple(split.classes_of(TRAINING)),
        num_threads=1,
        num_decoders=2,
        split_uri=str(root / "model" / "split.parquet"),
        metrics_uri=str(root / "metrics.jsonl"),
        site=Site(),
    )


def plainly(plan, epochs, rank, num_workers):
    """Pixels, labels and size of the whole batch of each batch of each stream, in plain loops."""
    rows = pq.read_table(plan.split_uri).to_pylist()
    sides = [[row for row in rows if row["side"] == side] for side in (TRAINING, VALIDATION)]

    def batch(rows, recipe, numbers, size):
        pixels = [
            training_pixels(
                Path(row["uri"]).read_bytes(), preprocessing_of(CONFIG), load_recipe(recipe),
                seed=CONFIG.seed, draw=(row["image_id"], number),
            )
            for row, number in zip(rows, numbers, strict=True)
        ]  # fmt: skip
        return np.stack(pixels), [plan.classes.index(row["label"]) for row in rows], size

    labels = np.array([plan.classes.index(row["label"]) for row in sides[0]])
    for epoch in epochs:
        order = epoch_batches(labels, batch_size=7, sampler="shuffled", seed=0, epoch=epoch)
        parts = [np.array_split(np.arange(7), num_workers)[rank].tolist() for _ in order]
        yield [
            batch(
                [sides[0][row] for row in step_rows[part]],
                CONFIG.recipe,
                [(epoch << 40) + 7 * step + place for place in part],
                7,
            )
            for step, (step_rows, part) in enumerate(zip(order, parts, strict=True))
        ]
        part = np.array_split(np.arange(6), num_workers)[rank].tolist()
        yield [batch([sides[1][row] for row in part], "none", part, 64)]


def executors():
    return [one for one in threading.enumerate() if one.name.startswith("StreamingExecutor")]


@pytest.mark.parametrize(("rank", "num_workers"), [(0, 1), (1, 2)])
def test_streams_read_ahead_hold_the_batches_of_a_plain_loop(drawn, rank, num_workers):
    shared_out, epochs = TrainingPhotos(drawn, rank, num_workers), range(1, 3)
    with StreamsAhead(shared_out.streams(epochs), 2) as streams:
        for expected in plainly(drawn, epochs, rank, num_workers):
            found = list(streams.next_stream())
            assert len(found) == len(expected) in (1, shared_out.num_steps)
            for batch, (pixels, labels, num_photos) in zip(found, expected, strict=True):
                np.testing.assert_array_equal(batch.pixels, pixels)
                assert batch.labels.tolist() == labels
                assert batch.num_photos == num_photos
    assert not executors()


def test_leaving_early_leaves_nothing_running(drawn, monkeypatch):
    monkeypatch.setattr(photos, "_BLOCK_ROWS", 1)  # a task a photo, so that there is much to leave
    with StreamsAhead(TrainingPhotos(drawn, 0, 1).streams(range(3)), 1) as streams:
        next(streams.next_stream())
    assert not executors()


def test_a_photo_that_has_gone_is_named_in_its_stream(drawn):
    rows = pq.read_table(drawn.split_uri).to_pylist()
    gone = next(row for row in rows if row["side"] == VALIDATION)
    file = Path(gone["uri"])
    content = file.read_bytes()
    file.unlink()
    try:
        with StreamsAhead(TrainingPhotos(drawn, 0, 1).streams(range(1)), 4) as streams:
            assert len(list(streams.next_stream())) == 2
            # Amidst what Ray says of its task; see `pipelines.train.trainer` on the bare one.
            with pytest.raises(StorageError, match=f"{gone['image_id']}: could be read when "):
                list(streams.next_stream())
    finally:
        file.write_bytes(content)
    assert not executors()
