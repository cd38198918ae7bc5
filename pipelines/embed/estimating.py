"""What a run would do, for `--dry-run`: it lists and compares, reads no photo, writes nothing."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from pipelines.dry_run import Crew, Ground, look_around
from pipelines.embed.config import EmbedConfig
from pipelines.embed.inputs import Listing, check_output, check_places, labelled, plan_night
from pipelines.embed.model import check_same_model, complete, describe_input, load_model
from pipelines.embed.placement import ACTOR_BYTES, BLOCK_ROWS, DECODE_BYTES, place_actors
from pipelines.progress import status_line
from pipelines.ray_runtime.cluster_options import Site
from retrieval.gallery.labels import labeller
from retrieval.index import EmbeddingSpec, Night, Outlook, foresee, read_records
from retrieval.storage import absolute_uri

__all__ = ["estimate"]

_LOOK_BACK = 10


def estimate(
    photos: str, index: str, config: EmbedConfig, *, site: Site = Site()
) -> dict[str, Any]:
    """What `run` would do, with the same arguments.

    Only a cluster that is named is connected, to look at its nodes; nothing runs there. Whether
    the index can be written is not tried.

    Returns:
        `photos`: what would become of how many, as far as the listing tells; `read_bytes` and
        `write_bytes`; `work`: actors and tasks, with what each books; `nodes`: what each needs;
        `expected_seconds`: only where an earlier run has measured a rate.

    Raises:
        RetrievalError: as `run` does before it starts Ray.
    """
    photos, index = absolute_uri(photos), absolute_uri(index)
    check_places(photos, index, config)
    seen, asked = check_output(index), config
    config = complete(asked, seen)
    label, listing = labeller(config.labels), Listing(photos, follow_links=config.follow_links)
    check_same_model(config, seen, None, listing.count)
    with status_line(f"loading {config.model or config.network}"):
        settings, spec = load_model(config)
    check_same_model(config, seen, spec, listing.count)
    preprocessing = settings["preprocessing"]
    night = plan_night(listing, seen, spec, config, preprocessing)
    with status_line("comparing the gallery with what is embedded"):
        listed = labelled(listing.batches, config.labels, label)
        outlook = foresee(index, seen, spec, listed, night)
    ground = look_around(site)
    return {
        "dry_run": True,
        "photos": photos,
        "index": index,
        "version_before": None if seen is None else seen.version,
        "model": asdict(spec),
        "preprocessing": describe_input(preprocessing, asked, config, seen),
        "is_embedded_anew": seen is not None and not seen.spec.makes_same(spec),
        **_counts(outlook),
        "read_bytes": {
            "to_hash": outlook.hash_bytes,
            "to_embed": {
                "at_least": outlook.embed_bytes + outlook.touched_bytes - outlook.hash_bytes,
                "at_most": outlook.embed_bytes + outlook.touched_bytes,
            },
            "shards": outlook.rewritten_bytes,
        },
        **_output(outlook, spec, night),
        **_work(outlook, config, ground, preprocessing.size),
        **_expected(index, outlook),
    }


def _counts(outlook: Outlook) -> dict[str, Any]:
    counts = {name: value for name, value in asdict(outlook).items() if name.startswith("num_")}
    return counts | {
        "num_to_hash": outlook.num_to_hash,
        "num_to_embed": {"at_least": outlook.least_to_embed, "at_most": outlook.most_to_embed},
    }


def _output(outlook: Outlook, spec: EmbeddingSpec, night: Night) -> dict[str, Any]:
    """Bytes of embeddings; ids, addresses and hashes add some 200 bytes a row."""
    most = outlook.most_to_embed
    return {
        "write_bytes": {
            "embeddings_at_most": most * spec.row_bytes,
            "shards": outlook.rewritten_bytes,
        },
        "num_new_shards_at_most": math.ceil(most / night.shard_rows),
    }


def _work(outlook: Outlook, config: EmbedConfig, ground: Ground, side: int) -> dict[str, Any]:
    most = outlook.most_to_embed
    if not most:
        return ground.plan([])
    place = place_actors(ground.there, config.num_actors, math.ceil(most / BLOCK_ROWS))
    batch = config.batch_size or place.batch_size
    pixels = place.num_calls * batch * side**2 * 3
    actor_bytes = ACTOR_BYTES + pixels * (1 + 4)  # as uint8, and as float32 for the network
    crews = [
        Crew("actors", place.num_actors, place.num_cpus, place.num_gpus, actor_bytes),
        Crew("writing_tasks", place.num_writes, place.write_cpus),
        Crew("decoding_tasks", None, place.decode_cpus, 0, DECODE_BYTES),
    ]
    plan = ground.plan(crews)
    plan["work"]["actors"] |= {"num_threads": place.num_calls, "batch_size": batch}
    return plan


def _expected(index: str, outlook: Outlook) -> dict[str, Any]:
    """By the rate of the last run that embedded anything; it may have had other machines."""
    for record in read_records(index, _LOOK_BACK):
        rate = record.get("photos_per_s")
        if isinstance(rate, int | float) and rate > 0:
            return {
                "expected_seconds": {
                    "at_least": round(outlook.least_to_embed / rate, 1),
                    "at_most": round(outlook.most_to_embed / rate, 1),
                    "photos_per_s": rate,
                    "measured_by": record.get("run_id"),
                }
            }
    return {"expected_seconds": None}
