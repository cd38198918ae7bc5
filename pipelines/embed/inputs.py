"""What a run starts from: gallery, index and settings. Looked at, and nothing written."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain

import pyarrow as pa

from pipelines.embed.config import EmbedConfig
from pipelines.embed.model import Network
from pipelines.progress import announce, status_line
from retrieval.errors import StorageError, UsageError
from retrieval.gallery.labels import check_labels
from retrieval.gallery.listing import list_batches
from retrieval.index import Index, UpdateOptions, is_index, last_check_us, open_index
from retrieval.storage import check_apart, contents_at, file_exists, join, list_files

__all__ = ["Listing", "check_output", "check_places", "labelled", "update_options"]

_SHARD_BYTES = 64 * 2**20  # of embeddings; scans at full speed, and little is redone


def check_places(photos: str, index: str, config: EmbedConfig) -> None:
    """Refuse an index that does not lie apart from what it is made of: UsageError."""
    weights = None if config.weights in ("imagenet", "none") else config.weights
    inputs = {
        "the photos' folder": photos,
        "the model's folder": config.model,
        "the file of weights": weights,
    }
    check_apart(inputs, {"the index": index})


def check_output(index: str) -> Index | None:
    """The version that is there now, None for a new index; refuses what is no place for one."""
    if is_index(index):
        return open_index(index)
    # What a killed first run leaves behind (shards without a log) is no obstacle.
    strange = [name for name in list_files(index) if not name.startswith(join(index, "shard-"))]
    if strange:
        raise StorageError(
            f"{index}: holds files that are no index, such as {strange[0]}. "
            f"Choose a new folder, or an index to replace its content."
        )
    return None


def _check_gallery(photos: str) -> None:
    there = contents_at(photos)
    if there == "a model" and not file_exists(join(photos, "weights.safetensors")):
        return  # a file of that name may lie among photos
    if there in ("an index", "a ranking", "a model"):
        raise UsageError(
            f"{photos}: {there}, where a folder of photos or a manifest is needed: PHOTOS comes "
            f"first, as in retrieval-cli embed PHOTOS INDEX."
        )


class Listing:
    """A gallery's files; begun at once, so that a folder that is missing is told at once.

    Attributes:
        photos: The gallery.
        begun_at: Before any file was looked at.
        batches: See `list_batches`.
    """

    def __init__(self, photos: str, *, follow_links: bool = False) -> None:
        _check_gallery(photos)
        self.photos = photos
        self.begun_at = datetime.now(UTC)
        batches = list_batches(photos, follow_links=follow_links)
        with status_line(f"listing {photos}"):
            first = next(batches)
        self.batches = chain([first], batches)

    def count(self) -> int:
        """How many files there are; of those that were not taken from `batches` yet."""
        return sum(batch.num_rows for batch in self.batches)


def update_options(
    listing: Listing, seen: Index | None, network: Network, config: EmbedConfig
) -> UpdateOptions:
    """The settings of an update that begins with this listing."""
    begun_at = listing.begun_at
    return UpdateOptions(
        run_id=f"{begun_at:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
        listed_us=int(begun_at.timestamp() * 1_000_000),
        shard_rows=max(1, _SHARD_BYTES // network.spec.row_bytes),
        settled_us=0 if seen is None else last_check_us(seen),
        by_content=config.verify_content,
        retry_rejects=config.retry_rejects,
        heal=config.heal,
        recorded={
            "created_at": f"{begun_at:%Y-%m-%dT%H:%M:%SZ}",
            "photos": listing.photos,
            "settings": config.recorded(network.preprocessing),
        },
    )


def labelled(
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
    if rule == "folder" and num_unlabelled == num_photos:
        announce(
            f"None of the {num_photos} files lies in a folder of its class, such as {example!r}: "
            f"no photo gets a label. See `labels`; `labels` none says that it is meant so."
        )
