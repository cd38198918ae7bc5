"""The job: list, decode → embed → write on Ray Data, commit."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import ray.data

from pipelines import cluster
from pipelines.embed.budget import budget
from pipelines.embed.config import EmbedConfig
from pipelines.embed.placement import Placement, place_actors
from pipelines.embed.sink import IndexDatasink, Written, rejects_folder
from pipelines.embed.stages import Decode, EmbedPhotos
from pipelines.laps import Laps
from pipelines.progress import progress_line, status_line
from pipelines.tally import Tally
from retrieval.catalogue import list_photos
from retrieval.errors import RetrievalError, StorageError, UsageError
from retrieval.fetching import FETCH_AT_ONCE
from retrieval.images import Preprocessing
from retrieval.index import EmbeddingSpec, commit_index, is_index, open_index
from retrieval.labels import assign_labels
from retrieval.storage import absolute_uri, check_writable, join, list_files

__all__ = ["run"]

# Rows of one decoding task: 128 decoded photos are 19 MB and a second or two of work for the
# network, so that at the end no thread has much more to do than the others. A task costs 15 ms
# beside decoding (0.6 s); a million photos make 8,000 tasks.
_BLOCK_ROWS = 128
_SHARD_BYTES = 64 * 2**20  # of embeddings; scans at full speed, and little is redone


def run(
    photos: str, index: str, config: EmbedConfig, *, address: str | None = None
) -> dict[str, Any]:
    """Embed all photos of a gallery and commit them as the index's next version.

    Args:
        photos: Folder or address of the gallery.
        index: Folder or address of the index.
        config: Settings.
        address: Ray cluster; see `cluster.session`.

    Returns:
        The report: counts, version, model, seconds of each step.

    Raises:
        RetrievalError: see the head of this module.
    """
    laps = Laps()
    photos, index = absolute_uri(photos), absolute_uri(index)
    seen_version = _check_output(photos, index)
    with status_line(f"listing {photos}"):
        catalogue = list_photos(photos)
    labels = assign_labels(catalogue["image_id"].to_pylist(), config.labels)
    catalogue = catalogue.append_column("label", labels)
    laps.end("list")

    with status_line(f"loading {config.model or config.backbone}"):
        settings, spec = _load_model(config)
    laps.end("load_model")
    with cluster.session(address):
        laps.end("start_ray")
        run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
        sink = IndexDatasink(index, spec, run_id, max(1, _SHARD_BYTES // spec.row_bytes))
        there, begun_at = cluster.resources(), time.time()
        _embed(catalogue, settings, config, sink, place_actors(there, config.num_actors))
        laps.end("embed")
    laps.end("stop_ray")
    counts = _check_counts(photos, catalogue.num_rows, sink.written)
    version = commit_index(
        index,
        spec,
        [shard for written in sink.written for shard in written.shards],
        run={"run_id": run_id, "photos": photos, "settings": config.recorded(), **counts},
        seen_version=seen_version,
    )
    laps.end("commit")
    return {
        "index": index,
        "version": version,
        "run_id": run_id,
        **counts,
        "rejects": rejects_folder(index, run_id) if counts["num_rejected"] else None,
        "num_unlabelled": labels.null_count,
        "model": asdict(spec),
        "precision": dict(sum((part.manners for part in sink.written), Counter())),
        "photos_per_s": round(counts["num_listed"] / laps.seconds["embed"], 1),
        "stages": budget(
            [part.seconds for part in sink.written],
            counts["num_listed"],
            seconds=laps.seconds["embed"],
            start_s=max(0.0, min(part.ready_at for part in sink.written) - begun_at),
            there=there,
        ),
        "seconds": laps.seconds,
    }


def _check_output(photos: str, index: str) -> int | None:
    """The version that is there now, None for a new index; refuses what is no place for one."""
    if f"{index}/".startswith(f"{photos}/"):
        raise UsageError(
            f"{index}: lies inside the photos' folder {photos}, so that its shards would be "
            f"taken for photos. Choose a folder elsewhere."
        )
    if is_index(index):
        check_writable(index)
        return open_index(index).version
    # What a killed first run leaves behind (shards without a log) is no obstacle.
    strange = [name for name in list_files(index) if not name.startswith(join(index, "shard-"))]
    if strange:
        raise StorageError(
            f"{index}: holds files that are no index, such as {strange[0]}. "
            f"Choose a new folder, or an index to replace its content."
        )
    check_writable(index)
    return None


def _load_model(config: EmbedConfig) -> tuple[dict[str, Any], EmbeddingSpec]:
    """The arguments for each worker's Embedder, and what its embeddings will be.

    The driver builds the network once itself: unknown names and unfit weights end the job
    before Ray starts, and its fingerprint is what every worker must have.
    """
    from retrieval.backbones import BackboneSpec  # torch takes seconds to load
    from retrieval.embedding import Embedder
    from retrieval.model_folder import open_model

    model = None if config.model is None else open_model(config.model)
    spec = BackboneSpec(name=config.backbone, weights=config.weights, seed=config.seed)
    settings: dict[str, Any] = {
        "backbone": model or spec,
        "preprocessing": model.preprocessing if model else Preprocessing(size=config.image_size),
        "batch_size": config.batch_size,
        "dtype": config.dtype,
        "precision": config.precision,
    }
    made = Embedder(**settings).spec
    return {**settings, "expect": made.fingerprint}, made


def _embed(
    catalogue: pa.Table,
    settings: dict[str, Any],
    config: EmbedConfig,
    sink: IndexDatasink,
    place: Placement,
) -> None:
    """Decode → embed → write, as one streaming Ray Data job."""
    num_photos = catalogue.num_rows // (place.num_actors * place.num_calls)
    settings = {**settings, "num_photos": num_photos}
    tally = Tally()
    blocks = [
        catalogue.slice(start, _BLOCK_ROWS) for start in range(0, catalogue.num_rows, _BLOCK_ROWS)
    ]
    cluster.quiet_data()
    dataset = (
        ray.data.from_arrow(blocks)
        .map_batches(
            Decode(settings["preprocessing"]),
            batch_size=FETCH_AT_ONCE,
            batch_format="pyarrow",
            num_cpus=place.decode_cpus,
            # Usual need of a task. As the actors book none, Ray also cannot fuse the two
            # stages, which would decode and embed one after the other in one process.
            memory=2**28,
            udf_modifying_row_count=False,
        )
        .map_batches(
            EmbedPhotos,
            fn_constructor_args=(settings, tally),
            batch_size=config.batch_size or place.batch_size,
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

    with progress_line("embedded", "photos", catalogue.num_rows, tally.total):
        booked = {"num_cpus": place.write_cpus}
        dataset.write_datasink(sink, ray_remote_args=booked, concurrency=place.num_writes)


def _check_counts(photos: str, num_listed: int, written: Sequence[Written]) -> dict[str, Any]:
    """Every photo listed is embedded or rejected, and at least one is embedded."""
    num_embedded = sum(shard.num_rows for part in written for shard in part.shards)
    reasons = sum((part.reasons for part in written), Counter[str]())
    num_rejected = reasons.total()
    if num_embedded + num_rejected != num_listed:
        raise RetrievalError(
            f"{photos}: {num_listed} photos listed, but {num_embedded} embedded and "
            f"{num_rejected} rejected. This is a defect of the job; nothing was committed."
        )
    if not num_embedded:
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        example = next(part.example for part in written if part.example)
        raise StorageError(
            f"{photos}: none of the {num_listed} files can be embedded ({why}; such as {example})."
            f" A folder that holds photos is needed; nothing was committed."
        )
    return {
        "num_listed": num_listed,
        "num_embedded": num_embedded,
        "num_rejected": num_rejected,
        "reject_reasons": dict(reasons.most_common()),
    }
