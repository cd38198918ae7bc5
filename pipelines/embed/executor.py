"""Who does the work of an update: tasks and actors of Ray, which starts when it is first needed."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import pyarrow as pa
import ray
import ray.data

from pipelines.embed.budget import Budget, budget
from pipelines.embed.placement import BLOCK_ROWS, DECODE_BYTES, Placement, place_actors
from pipelines.embed.stages import Decode, EmbedPhotos, IndexDatasink
from pipelines.embed.update import Update
from pipelines.metrics import Laps, tell_rejects
from pipelines.progress import progress_line, status_line
from pipelines.ray_runtime.cluster_options import Site
from pipelines.ray_runtime.counter import Tally
from pipelines.ray_runtime.nodes import resources
from pipelines.ray_runtime.session import quiet_data, session
from retrieval.images.fetch import FETCH_AT_ONCE, hash_photos
from retrieval.index import EmbeddingSpec, Receipt, Shard
from retrieval.index.compaction import RowSlice, compact

__all__ = ["Embedded", "Executor", "RayExecutor"]

# Hashed in this process, 32 at a time: 2,000 photos take a second, which Ray Data takes to begin;
# and a night on which some were only touched needs no Ray.
_FEW_PHOTOS = 4096


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """What became of images that were to be embedded.

    Attributes:
        receipts: Of their shards and rejects.
        precision: How many were embedded in which precision and batch size.
        stages: What bounds the job; None where there were none to embed.
    """

    receipts: Sequence[Receipt] = ()
    precision: Mapping[str, int] = field(default_factory=dict)
    stages: Budget | None = None


class Executor(Protocol):
    """Who does the work of an update."""

    def hash_images(self, images: pa.Table, update: Update) -> pa.Table:
        """image_id and content_sha256 (null if unreadable) of image_id, uri, size_bytes."""

    def embed(self, images: pa.Table, update: Update) -> Embedded:
        """Embed rows of LISTED_SCHEMA: each ends in a staged shard or in staged rejects."""

    def compact(self, groups: Sequence[list[RowSlice]], update: Update) -> list[Shard]:
        """`compaction.compact` for each group, in their order."""


class RayExecutor:
    """The work on Ray; a context, which ends Ray if it has started it. It may do many updates."""

    def __init__(self, site: Site, laps: Laps) -> None:
        """Nothing starts yet.

        Args:
            site: Where the work is done.
            laps: Where the time is told that Ray takes to end.
        """
        self._site = site
        self._laps = laps
        self._session = ExitStack()
        self._is_started = False

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._session.__exit__(kind, error, trace)
        if self._is_started:
            self._laps.end("stop_ray")

    @contextmanager
    def _on_ray(self, laps: Laps) -> Iterator[None]:
        """Do a step on Ray, which stays for the next one."""
        laps.end("compare")
        if not self._is_started:
            self._session.enter_context(session(self._site))
            self._is_started = True
        with session(self._site):
            laps.end("start_ray")
            yield

    def hash_images(self, images: pa.Table, update: Update) -> pa.Table:
        """Hash the content of images, in tasks that read 32 at a time; a few in this process."""
        if not images.num_rows:
            return _with_hashes(images)
        if images.num_rows <= _FEW_PHOTOS:
            blocks = _blocks(images, FETCH_AT_ONCE)
            with status_line(f"hashing {images.num_rows} photos"):
                return pa.concat_tables([_with_hashes(block) for block in blocks])
        with self._on_ray(update.laps):
            tally = Tally(images.num_rows)
            quiet_data(self._site)
            dataset = ray.data.from_blocks(_blocks(images, 2 * BLOCK_ROWS)).map_batches(
                _hash,
                fn_args=(tally,),
                batch_size=FETCH_AT_ONCE,
                batch_format="pyarrow",
                udf_modifying_row_count=False,
            )
            with progress_line("hashed", "photos", images.num_rows, tally.counts):
                found = list(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
        update.laps.end("hash")
        return pa.concat_tables(found)

    def embed(self, images: pa.Table, update: Update) -> Embedded:
        """Decode → embed → write, as one streaming Ray Data job."""
        if not images.num_rows:
            return Embedded()
        options = update.options
        sink = IndexDatasink(
            update.index,
            update.network.spec,
            (options.run_id, options.listed_us),
            options.shard_rows,
        )
        with self._on_ray(update.laps):
            there, begun_at = resources(self._site), time.time()
            num_blocks = math.ceil(images.num_rows / BLOCK_ROWS)
            place = place_actors(there, update.config.num_actors, num_blocks)
            self._stream(images, update, sink, place)
        update.laps.end("embed")
        written = sink.written
        tell_rejects(sum((part.reasons for part in written), Counter[str]()))
        return Embedded(
            receipts=[part.receipt for part in written],
            precision=dict(sum((part.precision for part in written), Counter[str]())),
            stages=budget(
                [part.seconds for part in written],
                sum(part.receipt.shard.num_rows for part in written if part.receipt.shard),
                seconds=update.laps.seconds["embed"],
                start_s=max(0.0, min(part.ready_at for part in written) - begun_at),
                there=there,
            ),
        )

    def _stream(
        self, images: pa.Table, update: Update, sink: IndexDatasink, place: Placement
    ) -> None:
        num_photos = images.num_rows // (place.num_actors * place.num_calls)
        settings = {**update.network.settings, "num_photos": num_photos}
        tally = Tally(images.num_rows)
        quiet_data(self._site, actors_first=place.num_gpus > 0)
        dataset = (
            ray.data.from_blocks(_blocks(images, BLOCK_ROWS))
            .map_batches(
                Decode(settings["preprocessing"], tally),
                batch_size=FETCH_AT_ONCE,
                batch_format="pyarrow",
                num_cpus=place.decode_cpus,
                # Usual need of a task. As the actors book none, Ray also cannot fuse the two
                # stages, which would decode and embed one after the other in one process.
                memory=DECODE_BYTES,
                udf_modifying_row_count=False,
            )
            .map_batches(
                EmbedPhotos,
                fn_constructor_args=(settings, tally),
                batch_size=update.config.batch_size or place.batch_size,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(
                    size=place.num_actors,
                    max_concurrent_calls_per_actor=place.num_calls,
                    enable_true_multi_threading=True,
                ),
                num_cpus=place.num_cpus,
                num_gpus=place.num_gpus,
                udf_modifying_row_count=False,
            )
        )
        with progress_line("embedded", "photos", images.num_rows, tally.counts):
            booked = {"num_cpus": place.write_cpus}
            dataset.write_datasink(sink, ray_remote_args=booked, concurrency=place.num_writes)

    def compact(self, groups: Sequence[list[RowSlice]], update: Update) -> list[Shard]:
        """Rewrite shards in tasks, two a CPU at a time: the rows wait in the object store."""
        if not groups:
            return []
        pending: list[ray.ObjectRef[Shard]] = []
        written: list[Shard] = []
        with self._on_ray(update.laps), status_line("rewriting the shards that have changed"):
            most = 2 * resources(self._site).num_cpus
            task = _compact.options(**self._site.label_options)
            for group in groups:
                pending.append(task.remote(update.index, update.network.spec, group))
                if len(pending) == most:
                    written.append(ray.get(pending.pop(0)))
            written += ray.get(pending)
        update.laps.end("carry")
        return written


def _blocks(photos: pa.Table, rows: int) -> list[pa.Table]:
    return [photos.slice(start, rows) for start in range(0, photos.num_rows, rows)]


def _hash(table: pa.Table, tally: Tally) -> pa.Table:
    hashes = _with_hashes(table)
    tally.add(table.num_rows, "hashed", table["uri"][:1].to_pylist())
    return hashes


def _with_hashes(table: pa.Table) -> pa.Table:
    hashes = hash_photos(table["uri"].to_pylist(), table["size_bytes"].to_pylist())
    return pa.table(
        {"image_id": table["image_id"], "content_sha256": pa.array(hashes, pa.string())}
    )


# A damaged shard is damaged for the next attempt too; Ray tries again only where a worker is lost.
@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def _compact(index: str, spec: EmbeddingSpec, group: list[RowSlice]) -> Shard:
    return compact(index, spec, group)
