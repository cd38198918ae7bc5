"""Who does the work of a night: tasks and actors of Ray, which starts when it is first needed."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import pyarrow as pa
import ray
import ray.data

from pipelines.embed.budget import budget
from pipelines.embed.config import EmbedConfig
from pipelines.embed.placement import BLOCK_ROWS, DECODE_BYTES, Placement, place_actors
from pipelines.embed.sink import IndexDatasink, Written
from pipelines.embed.stages import Decode, EmbedPhotos
from pipelines.metrics import tell_rejects
from pipelines.progress import progress_line, status_line
from pipelines.ray_runtime.cluster_options import Site
from pipelines.ray_runtime.counter import Tally
from pipelines.ray_runtime.nodes import resources
from pipelines.ray_runtime.session import quiet_data, session
from pipelines.step_timer import Laps
from retrieval.images.fetch import FETCH_AT_ONCE, hash_photos
from retrieval.index import EmbeddingSpec, Night, Receipt, Shard
from retrieval.index.compaction import Piece, carry

__all__ = ["RayHands"]

# Hashed in this process, 32 at a time: 2,000 photos take a second, which Ray Data takes to begin;
# and a night on which some were only touched needs no Ray.
_FEW_PHOTOS = 4096


class RayHands:
    """The work of one run on Ray; a context, which ends Ray if it has started it.

    Attributes:
        written: What the tasks that write have told.
        stages: The report's `stages`; None if nothing was embedded.
    """

    def __init__(
        self,
        index: str,
        settings: dict[str, Any],
        spec: EmbeddingSpec,
        config: EmbedConfig,
        laps: Laps,
        site: Site,
    ) -> None:
        """Nothing starts yet.

        Args:
            index: Where to write.
            settings: Arguments of `Embedder`, in each actor.
            spec: How the embeddings are made.
            config: Settings of the job.
            laps: Where the time of the steps is told.
            site: Where it is done.
        """
        self._index = index
        self._settings = settings
        self._spec = spec
        self._config = config
        self._laps = laps
        self._site = site
        self._session = ExitStack()
        self._is_started = False
        self.written: list[Written] = []
        self.stages: dict[str, Any] | None = None

    def __enter__(self) -> RayHands:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # With the error: the session takes out of it what Ray has wrapped around ours.
        self._session.__exit__(kind, error, trace)
        if self._is_started:
            self._laps.end("stop_ray")

    def _start(self, step: str) -> None:
        self._laps.end(step)
        if not self._is_started:
            self._session.enter_context(session(self._site))
            self._is_started = True
            self._laps.end("start_ray")

    def hash_photos(self, photos: pa.Table) -> pa.Table:
        """Hash the content of photos, in tasks that read 32 at a time; a few in this process."""
        if photos.num_rows <= _FEW_PHOTOS:
            blocks = _blocks(photos, FETCH_AT_ONCE)
            with status_line(f"hashing {photos.num_rows} photos"):
                return pa.concat_tables([_with_hashes(block) for block in blocks])
        self._start("compare")
        tally = Tally(photos.num_rows)
        quiet_data(self._site)
        dataset = ray.data.from_blocks(_blocks(photos, 2 * BLOCK_ROWS)).map_batches(
            _hash,
            fn_args=(tally,),
            batch_size=FETCH_AT_ONCE,
            batch_format="pyarrow",
            udf_modifying_row_count=False,
        )
        with progress_line("hashed", "photos", photos.num_rows, tally.counts):
            found = list(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
        self._laps.end("hash")
        return pa.concat_tables(found)

    def embed(self, photos: pa.Table, night: Night) -> list[Receipt]:
        """Decode → embed → write, as one streaming Ray Data job."""
        self._start("compare")
        there, begun_at = resources(self._site), time.time()
        num_blocks = math.ceil(photos.num_rows / BLOCK_ROWS)
        place = place_actors(there, self._config.num_actors, num_blocks)
        sink = IndexDatasink(
            self._index, self._spec, (night.run_id, night.listed_us), night.shard_rows
        )
        self._stream(photos, sink, place)
        self._laps.end("embed")
        self.written = sink.written
        tell_rejects(sum((part.reasons for part in sink.written), Counter[str]()))
        self.stages = budget(
            [part.seconds for part in sink.written],
            sum(part.receipt.shard.num_rows for part in sink.written if part.receipt.shard),
            seconds=self._laps.seconds["embed"],
            start_s=max(0.0, min(part.ready_at for part in sink.written) - begun_at),
            there=there,
        )
        return [part.receipt for part in sink.written]

    def _stream(self, photos: pa.Table, sink: IndexDatasink, place: Placement) -> None:
        num_photos = photos.num_rows // (place.num_actors * place.num_calls)
        settings = {**self._settings, "num_photos": num_photos}
        tally = Tally(photos.num_rows)
        quiet_data(self._site, actors_first=place.num_gpus > 0)
        dataset = (
            ray.data.from_blocks(_blocks(photos, BLOCK_ROWS))
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
                batch_size=self._config.batch_size or place.batch_size,
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
        with progress_line("embedded", "photos", photos.num_rows, tally.counts):
            booked = {"num_cpus": place.write_cpus}
            dataset.write_datasink(sink, ray_remote_args=booked, concurrency=place.num_writes)

    def carry(self, groups: Iterable[list[Piece]]) -> list[Shard]:
        """Rewrite shards in tasks, two a CPU at a time: the pieces wait in the object store."""
        self._start("compare")
        most = 2 * resources(self._site).num_cpus
        carrying = _carry.options(**self._site.label_options)
        pending: list[ray.ObjectRef[Shard]] = []
        written: list[Shard] = []
        with status_line("rewriting the shards that have changed"):
            for group in groups:
                pending.append(carrying.remote(self._index, self._spec, group))
                if len(pending) == most:
                    written.append(ray.get(pending.pop(0)))
            written += ray.get(pending)
        self._laps.end("carry")
        return written

    def manners(self) -> dict[str, int]:
        """How many photos were embedded in which manner."""
        return dict(sum((part.manners for part in self.written), Counter[str]()))


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
def _carry(index: str, spec: EmbeddingSpec, group: list[Piece]) -> Shard:
    return carry(index, spec, group)
