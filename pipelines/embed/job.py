"""The job: list → compare → embed → carry → check → commit."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from typing import Any

import pyarrow as pa

from pipelines.embed.config import EmbedConfig
from pipelines.embed.hands import RayHands
from pipelines.laps import Laps
from pipelines.progress import announce, status_line
from retrieval.catalogue import list_batches
from retrieval.errors import MismatchError, StorageError, UsageError
from retrieval.images import Preprocessing
from retrieval.index import (
    Candidate,
    EmbeddingSpec,
    Index,
    Night,
    is_index,
    last_check_us,
    open_index,
    prepare,
    publish,
    write_record,
)
from retrieval.labels import check_labels, labeller
from retrieval.storage import absolute_uri, check_writable, join, list_files

__all__ = ["Gate", "run"]

# Called with the next version before it is committed. Gives what the report is to say of it, or
# raises a RetrievalError: then the version that is there stays.
Gate = Callable[[Candidate], Mapping[str, Any] | None]

_SHARD_BYTES = 64 * 2**20  # of embeddings; scans at full speed, and little is redone


def run(
    photos: str,
    index: str,
    config: EmbedConfig,
    *,
    address: str | None = None,
    gate: Gate | None = None,
) -> dict[str, Any]:
    """Make the index's next version: what the gallery holds now.

    Args:
        photos: Folder or address of the gallery, or a manifest of it.
        index: Folder or address of the index.
        config: Settings.
        address: Ray cluster; see `cluster.session`.
        gate: Judges the version before it is committed.

    Returns:
        The report: counts, version, model, seconds of each step.

    Raises:
        RetrievalError: see the head of this module.
    """
    laps = Laps()
    photos, index = absolute_uri(photos), absolute_uri(index)
    seen = _check_output(photos, index)
    label, listing = labeller(config.labels), _Listing(photos)
    laps.end("list")
    with status_line(f"loading {config.model or config.backbone}"):
        settings, spec = _load_model(config)
    laps.end("load_model")
    while True:
        night = _night(listing, seen, spec, config)
        with RayHands(index, settings, spec, config, laps, address) as hands:
            listed = _labelled(listing.batches, config.labels, label)
            with status_line("comparing the gallery with what is embedded"):
                candidate = prepare(index, seen, spec, listed, night, hands)
            laps.end("compare")
        _check_not_empty(photos, candidate)
        verdict = _judge(candidate, gate, laps)
        version = _publish(candidate, laps, may_lose=config.rebase)
        if version is not None:
            report = _report(photos, candidate, version, hands, laps) | verdict
            write_record(index, night.run_id, report, announce)
            return report
        seen, listing = open_index(index), _Listing(photos)


def _judge(candidate: Candidate, gate: Gate | None, laps: Laps) -> dict[str, Any]:
    """What the gate says, for the report."""
    if gate is None or candidate.is_unchanged:
        return {}
    found = gate(candidate)
    laps.end("gate")
    return {} if found is None else {"gate": found}


def _publish(candidate: Candidate, laps: Laps, *, may_lose: bool) -> int | None:
    """The version that is current then; None where another run was faster, and that may be."""
    try:
        version = publish(candidate)
    except MismatchError as error:
        if not may_lose:
            raise
        announce(f"{error} Going on from there, as --rebase asks.")
        return None
    laps.end("commit")
    return version


def _check_output(photos: str, index: str) -> Index | None:
    """The version that is there now, None for a new index; refuses what is no place for one."""
    if f"{index}/".startswith(f"{photos}/"):
        raise UsageError(
            f"{index}: lies inside the photos' folder {photos}, so that its shards would be "
            f"taken for photos. Choose a folder elsewhere."
        )
    if is_index(index):
        check_writable(index)
        return open_index(index)
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


class _Listing:
    """A gallery's files; begun at once, so that a folder that is missing is told at once.

    Attributes:
        photos: The gallery.
        begun_at: Before any file was looked at.
        batches: See `list_batches`.
    """

    def __init__(self, photos: str) -> None:
        self.photos = photos
        self.begun_at = datetime.now(UTC)
        batches = list_batches(photos)
        with status_line(f"listing {photos}"):
            first = next(batches)
        self.batches = chain([first], batches)


def _night(
    listing: _Listing, seen: Index | None, spec: EmbeddingSpec, config: EmbedConfig
) -> Night:
    begun_at = listing.begun_at
    return Night(
        run_id=f"{begun_at:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
        listed_us=int(begun_at.timestamp() * 1_000_000),
        shard_rows=max(1, _SHARD_BYTES // spec.row_bytes),
        settled_us=0 if seen is None else last_check_us(seen),
        by_content=config.verify_content,
        retry_rejects=config.retry_rejects,
        heal=config.heal,
        recorded={
            "created_at": f"{begun_at:%Y-%m-%dT%H:%M:%SZ}",
            "photos": listing.photos,
            "settings": config.recorded(),
        },
    )


def _labelled(
    batches: Iterable[pa.RecordBatch], rule: str, label: Callable[[str], str | None]
) -> Iterator[pa.RecordBatch]:
    """The listing with its labels; a rule that labels none is refused at its end."""
    num_photos = num_unlabelled = 0
    example = ""
    for batch in batches:
        ids = batch["image_id"].to_pylist()
        labels = pa.array(map(label, ids), pa.string())
        num_photos += len(ids)
        num_unlabelled += labels.null_count
        example = example or ids[0]
        yield batch.append_column("label", labels)
    check_labels(rule, num_unlabelled, num_photos, example)


def _check_not_empty(photos: str, candidate: Candidate) -> None:
    """A version without a photo is a mistake."""
    counts, rejects = candidate.counts, candidate.rejects
    if not candidate.index.num_rows:
        why = ", ".join(f"{count} {reason}" for reason, count in counts["reject_reasons"].items())
        first = rejects.slice(0, 1).to_pylist()[0]
        raise StorageError(
            f"{photos}: none of the {counts['num_listed']} files can be embedded ({why}; such as "
            f"{first['image_id']}: {first['message']}). A folder that holds photos is needed; "
            f"nothing was committed."
        )


def _report(
    photos: str, candidate: Candidate, version: int, hands: RayHands, laps: Laps
) -> dict[str, Any]:
    index, counts = candidate.index, candidate.counts
    rate = counts["num_embedded"] / laps.seconds["embed"] if "embed" in laps.seconds else None
    run_id = index.run["run_id"]
    rejects = open_index(index.uri, version).run.get("rejects")
    return {
        "index": index.uri,
        "photos": photos,
        "status": "unchanged" if version == candidate.seen_version else "committed",
        "version": version,
        "version_before": candidate.seen_version,
        "version_after": version,
        "run_id": run_id,
        "created_at": index.run["created_at"],
        "listed_us": index.run["listed_us"],
        **counts,
        "num_rows": index.num_rows,
        "rejects": rejects and join(index.uri, rejects),
        "model": asdict(index.spec),
        "precision": hands.manners(),
        "photos_per_s": rate and round(rate, 1),
        "stages": hands.stages,
        "seconds": laps.seconds,
    }
