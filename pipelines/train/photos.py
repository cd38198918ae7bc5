"""The photos of a worker as streams of decoded batches."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from numpy.typing import NDArray

from pipelines.ray_runtime.session import quiet_data
from pipelines.train.decoding import DecodePhotos
from pipelines.train.network import preprocessing_of
from pipelines.train.placement import DECODE_CPUS, WorkerPlan
from retrieval.augmentations import Recipe, load_recipe
from retrieval.images.fetch import FETCH_AT_ONCE
from retrieval.index.reading import vectors_of
from retrieval.storage import open_input, parquet_table
from retrieval.training.epochs import PhotoBatch
from retrieval.training.sampling import epoch_batches, num_steps
from retrieval.training.splitting import LEFT_OUT, TRAINING, VALIDATION

__all__ = ["TrainingPhotos"]

_BLOCK_ROWS = 32  # photos of one decoding task: some 0.2 s of work
_VALIDATION_BATCH = 64

_Stream = Generator[PhotoBatch, None, None]  # starts with the first batch asked for


class TrainingPhotos:
    """The photos of a split, and a worker's share of them as streams of decoded batches."""

    def __init__(self, plan: WorkerPlan, rank: int, num_workers: int) -> None:
        with open_input(plan.split_uri) as stream:
            table = parquet_table(stream)
        table = table.filter(pc.not_equal(table["side"], LEFT_OUT))  # may have classes of its own
        codes = {label: code for code, label in enumerate(plan.classes)}
        labels = pa.array([codes[label] for label in table["label"].to_pylist()], pa.int64())
        names = ["image_id", "uri", "size_bytes", "content_sha256"]  # the last one came later
        names = [name for name in names if name in table.column_names]
        photos = table.select(names).append_column("code", labels)
        self._training = photos.filter(pc.equal(table["side"], TRAINING))
        self._validation = photos.filter(pc.equal(table["side"], VALIDATION))
        self._config, self._recipe = plan.config, plan.recipe
        self._rank, self._num_workers = rank, num_workers
        self._site, self._num_decoders = plan.site, plan.num_decoders

    @property
    def num_steps(self) -> int:
        """Batches of an epoch."""
        return num_steps(self._training.num_rows, self._config.batch_size)

    def streams(self, epochs: Iterable[int]) -> Iterator[_Stream]:
        """Of each epoch its training photos, then the validation photos."""
        for epoch in epochs:
            yield self.training(epoch)
            yield self.validation()

    def training(self, epoch: int) -> _Stream:
        """This worker's share of each batch of an epoch, augmented."""
        batches = epoch_batches(
            self._training["code"].to_numpy(),
            batch_size=self._config.batch_size,
            sampler=self._config.sampler,
            seed=self._config.seed,
            epoch=epoch,
        )
        share = self._share(batches.shape[1])
        # What tells the draws of an epoch apart: a balanced batch may hold a photo twice.
        numbers = np.arange(batches.size).reshape(batches.shape) + (epoch << 40)
        photos = self._training.take(batches[:, share].ravel())
        photos = photos.append_column("number", pa.array(numbers[:, share].ravel()))
        return self._stream(photos, self._recipe, len(share), batches.shape[1])

    def validation(self) -> _Stream:
        """This worker's share of the validation photos, not augmented."""
        rows = self._share(self._validation.num_rows)
        photos = self._validation.take(rows).append_column("number", pa.array(rows))
        return self._stream(photos, load_recipe("none"), _VALIDATION_BATCH, _VALIDATION_BATCH)

    def _share(self, count: int) -> NDArray[np.int64]:
        return np.array_split(np.arange(count), self._num_workers)[self._rank]

    def _stream(self, photos: pa.Table, recipe: Recipe, share: int, num_photos: int) -> _Stream:
        """Decode photos on the cluster's CPUs, in order, some batches ahead of the network.

        Args:
            photos: Columns image_id, uri, size_bytes, code and number, in order.
            recipe: Augmentation.
            share: Photos of a batch that this worker gets.
            num_photos: Photos of the whole batch.
        """
        starts = range(0, photos.num_rows, _BLOCK_ROWS)
        quiet_data(self._site, in_order=True)
        decode = DecodePhotos(preprocessing_of(self._config), recipe, self._config.seed)
        dataset = ray.data.from_blocks([photos.slice(start, _BLOCK_ROWS) for start in starts])
        dataset = dataset.map_batches(
            decode,
            batch_size=FETCH_AT_ONCE,
            batch_format="pyarrow",
            num_cpus=DECODE_CPUS,
            # Of more tasks than blocks Ray Data warns.
            compute=ray.data.TaskPoolStrategy(
                self._num_decoders and max(1, min(self._num_decoders, len(starts)))
            ),
        )
        side = preprocessing_of(self._config).size
        for table in dataset.iter_batches(
            batch_size=share, batch_format="pyarrow", prefetch_batches=2
        ):
            pixels = vectors_of(table["pixels"], side**2 * 3, "uint8").reshape(-1, side, side, 3)
            yield PhotoBatch(pixels, table["code"].to_numpy(), num_photos)
