"""Embed a gallery of photos into an index; run again, only what has changed.

Reads       the listing of a folder or bucket, or a manifest; the files that are new or changed,
            once; ids, sizes and times of the rows that are there.
Writes      Parquet shards and the rejects, then one commit. Photos that cannot be embedded are
            rows of the rejects, with a reason. A run without a change commits nothing.
Resources   CPU tasks fetch and decode; actors hold the network, one a GPU, or one per 16 CPUs
            with a thread for each of them. Memory does not grow with the number of photos, but
            for those to embed (about 200 bytes a photo on the driver). Ray starts only if there
            is something to do.
Resume      shards of a killed run are staged with receipts: the next run takes them over.
Fails when  no photo can be embedded, the weights do not fit, the output cannot be written,
            another run commits first, or the index is of another model (but with new_model).
            Nothing is committed then.

config      settings
inputs      gallery and index as they are
model       which network, where the settings leave it open
estimating  what a run would do, for --dry-run
executor    who does the work: Ray
placement   how many actors, and what they book
stages      decode and embed, on workers
sink        shards, rejects and receipts, written by workers
budget      the time that each stage took, and what bounds the job
job         all of it; the order of a night is in retrieval/index/update.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.lazily import lazily

if TYPE_CHECKING:
    from pipelines.embed.config import DECIDED_BY_MODEL, EmbedConfig
    from pipelines.embed.estimating import estimate
    from pipelines.embed.job import Gate, run
    from pipelines.embed.model import complete

__all__ = ["DECIDED_BY_MODEL", "EmbedConfig", "Gate", "complete", "estimate", "run"]

__getattr__ = lazily(
    __name__,
    {
        "DECIDED_BY_MODEL": "config",
        "EmbedConfig": "config",
        "estimate": "estimating",
        "Gate": "job",
        "run": "job",
        "complete": "model",
    },
)
