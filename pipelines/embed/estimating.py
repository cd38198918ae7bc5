"""What a run would do, for `--dry-run`: it lists and compares, reads no photo, writes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.dry_run import Crew, Ground, look_around
from pipelines.embed.config import EmbedConfig
from pipelines.embed.inputs import check_places, labelled
from pipelines.embed.model import Network, check_same_model, describe_input
from pipelines.embed.placement import ACTOR_BYTES, BLOCK_ROWS, DECODE_BYTES, place_actors
from pipelines.embed.update import Update, start
from pipelines.progress import status_line
from pipelines.ray_runtime.cluster_options import Site
from retrieval.index import EmbeddingSpec, UpdateEstimate, estimate_update, read_records
from retrieval.storage import absolute_uri

__all__ = ["EmbedEstimate", "estimate"]

_LOOK_BACK = 10


@dataclass(frozen=True, kw_only=True)
class EmbedEstimate:
    """What a run would do.

    Attributes:
        photos, index: Their addresses.
        network: The network that it would embed by.
        version_before: The version that is there; None for a new index.
        preprocessing: What the network's input is, and what says so.
        is_embedded_anew: Whether the index is of another make, so that nothing of it is kept.
        update: What would become of the images, as far as the listing tells.
        num_new_shards: At most.
        work: `work`, `nodes` and more of `pipelines.dry_run.Ground.plan`.
        expected_seconds: Where an earlier run has measured a rate; else None.
    """

    photos: str
    index: str
    network: Network
    version_before: int | None
    preprocessing: Mapping[str, Any]
    is_embedded_anew: bool
    update: UpdateEstimate
    num_new_shards: int
    work: Mapping[str, Any]
    expected_seconds: Mapping[str, Any] | None

    @property
    def spec(self) -> EmbeddingSpec:
        """What the embeddings would be."""
        return self.network.spec

    def to_json(self) -> dict[str, Any]:
        """The estimate as it is printed. A row takes some 200 bytes more than its embedding."""
        update = self.update
        return {
            "dry_run": True,
            "photos": self.photos,
            "index": self.index,
            "version_before": self.version_before,
            "model": asdict(self.spec),
            "preprocessing": dict(self.preprocessing),
            "is_embedded_anew": self.is_embedded_anew,
            **_counts(update),
            "read_bytes": {
                "to_hash": update.hash_bytes,
                "to_embed": {
                    "at_least": update.embed_bytes + update.touched_bytes - update.hash_bytes,
                    "at_most": update.embed_bytes + update.touched_bytes,
                },
                "shards": update.rewritten_bytes,
            },
            "write_bytes": {
                "embeddings_at_most": update.most_to_embed * self.spec.row_bytes,
                "shards": update.rewritten_bytes,
            },
            "num_new_shards_at_most": self.num_new_shards,
            **self.work,
            "expected_seconds": self.expected_seconds,
        }


def estimate(
    photos: str,
    index: str,
    config: EmbedConfig,
    *,
    site: Site = Site(),
    network: Network | None = None,
) -> EmbedEstimate:
    """What `run` would do, with the same arguments.

    Only a cluster that is named is connected, to look at its nodes; nothing runs there. Whether
    the index can be written is not tried.

    Raises:
        RetrievalError: as `run` does before it starts Ray.
    """
    photos, index = absolute_uri(photos), absolute_uri(index)
    check_places(photos, index, config)
    update = start(photos, index, config, network=network, writes=False)
    config, seen, spec = update.config, update.seen, update.network.spec
    check_same_model(config, seen, spec, update.listing.count)
    with status_line("comparing the gallery with what is embedded"):
        listed = labelled(update.listing.batches, config.labels, update.label)
        found = estimate_update(index, seen, spec, listed, update.options)
    return EmbedEstimate(
        photos=photos,
        index=index,
        network=update.network,
        version_before=None if seen is None else seen.version,
        preprocessing=describe_input(update.network.preprocessing, update.asked, config, seen),
        is_embedded_anew=seen is not None and not seen.spec.makes_same(spec),
        update=found,
        num_new_shards=math.ceil(found.most_to_embed / update.options.shard_rows),
        work=_work(found, update, look_around(site)),
        expected_seconds=_expected(index, found),
    )


def _counts(update: UpdateEstimate) -> dict[str, Any]:
    counts = {name: value for name, value in asdict(update).items() if name.startswith("num_")}
    return counts | {
        "num_to_hash": update.num_to_hash,
        "num_to_embed": {"at_least": update.least_to_embed, "at_most": update.most_to_embed},
    }


def _work(found: UpdateEstimate, update: Update, ground: Ground) -> dict[str, Any]:
    config, most = update.config, found.most_to_embed
    if not most:
        return ground.plan([])
    place = place_actors(ground.there, config.num_actors, math.ceil(most / BLOCK_ROWS))
    batch = config.batch_size or place.batch_size
    pixels = place.num_calls * batch * update.network.preprocessing.size**2 * 3
    actor_bytes = ACTOR_BYTES + pixels * (1 + 4)  # as uint8, and as float32 for the network
    crews = [
        Crew("actors", place.num_actors, place.num_cpus, place.num_gpus, actor_bytes),
        Crew("writing_tasks", place.num_writes, place.write_cpus),
        Crew("decoding_tasks", None, place.decode_cpus, 0, DECODE_BYTES),
    ]
    plan = ground.plan(crews)
    plan["work"]["actors"] |= {"num_threads": place.num_calls, "batch_size": batch}
    return plan


def _expected(index: str, update: UpdateEstimate) -> dict[str, Any] | None:
    """By the rate of the last run that embedded anything; it may have had other machines."""
    for record in read_records(index, _LOOK_BACK):
        rate = record.get("photos_per_s")
        if isinstance(rate, int | float) and rate > 0:
            return {
                "at_least": round(update.least_to_embed / rate, 1),
                "at_most": round(update.most_to_embed / rate, 1),
                "photos_per_s": rate,
                "measured_by": record.get("run_id"),
            }
    return None
