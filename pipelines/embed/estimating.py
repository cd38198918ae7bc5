"""What a run would do, for `--dry-run`: it lists and compares, reads no photo, writes nothing."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.dry_run import Capacity, Estimate, ResourceRequest, look_around
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
class EmbedEstimate(Estimate):
    """What a run would do; a night goes on from it.

    Attributes:
        index: Its address.
        network: The network that it would embed by.
        update: What would become of the images, as far as the listing tells.
    """

    index: str
    network: Network
    update: UpdateEstimate

    @property
    def spec(self) -> EmbeddingSpec:
        """What the embeddings would be."""
        return self.network.spec


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
    facts = {
        "photos": photos,
        "index": index,
        "version_before": None if seen is None else seen.version,
        "model": asdict(spec),
        "preprocessing": describe_input(update.network.preprocessing, update.asked, config, seen),
        "is_embedded_anew": seen is not None and not seen.spec.makes_same(spec),
        **_counts(found),
    }
    num_new_shards = math.ceil(found.most_to_embed / update.options.shard_rows)
    work = _work(found, update, look_around(site))
    return EmbedEstimate(
        index=index,
        network=update.network,
        update=found,
        facts=facts,
        read_bytes=_read_bytes(found),
        write_bytes={
            "embeddings_at_most": found.most_to_embed * spec.row_bytes,
            "shards": found.rewritten_bytes,
        },
        work={"num_new_shards_at_most": num_new_shards, **work},
        expected_seconds=_expected(index, found),
    )


def _read_bytes(update: UpdateEstimate) -> dict[str, Any]:
    sure = update.embed_bytes + update.touched_bytes - update.hash_bytes
    return {
        "to_hash": update.hash_bytes,
        "to_embed": {"at_least": sure, "at_most": update.embed_bytes + update.touched_bytes},
        "shards": update.rewritten_bytes,
    }


def _counts(update: UpdateEstimate) -> dict[str, Any]:
    counts = {name: value for name, value in asdict(update).items() if name.startswith("num_")}
    return counts | {
        "num_to_hash": update.num_to_hash,
        "num_to_embed": {"at_least": update.least_to_embed, "at_most": update.most_to_embed},
    }


def _work(found: UpdateEstimate, update: Update, capacity: Capacity) -> dict[str, Any]:
    config, most = update.config, found.most_to_embed
    if not most:
        return capacity.plan([])
    place = place_actors(capacity.there, config.num_actors, math.ceil(most / BLOCK_ROWS))
    batch = config.batch_size or place.batch_size
    pixels = place.num_calls * batch * update.network.preprocessing.size**2 * 3
    actor_bytes = ACTOR_BYTES + pixels * (1 + 4)  # as uint8, and as float32 for the network
    requests = [
        ResourceRequest("actors", place.num_actors, place.num_cpus, place.num_gpus, actor_bytes),
        ResourceRequest("writing_tasks", place.num_writes, place.write_cpus),
        ResourceRequest("decoding_tasks", None, place.decode_cpus, 0, DECODE_BYTES),
    ]
    plan = capacity.plan(requests)
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
