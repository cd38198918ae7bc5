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
update      what a run starts from, and how often it is tried
job         prepare and publish: list → compare → hash → embed → rewrite → commit
executor    who does the work: Ray
placement   how many actors, and what they book
stages      decode, embed, write: on workers
budget      the time that each stage took, and what bounds the job
report      what a run has found
estimating  what a run would do, for --dry-run
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.lazily import lazily

if TYPE_CHECKING:
    from pipelines.embed.config import DECIDED_BY_MODEL, EmbedConfig
    from pipelines.embed.estimating import EmbedEstimate, estimate
    from pipelines.embed.executor import Embedded, Executor, RayExecutor
    from pipelines.embed.job import Prepared, prepare, publish, run
    from pipelines.embed.model import Network, complete
    from pipelines.embed.report import EmbedReport
    from pipelines.embed.update import Attempts, Update, start

__all__ = [
    "DECIDED_BY_MODEL",
    "Attempts",
    "EmbedConfig",
    "EmbedEstimate",
    "EmbedReport",
    "Embedded",
    "Executor",
    "Network",
    "Prepared",
    "RayExecutor",
    "Update",
    "complete",
    "estimate",
    "prepare",
    "publish",
    "run",
    "start",
]

__getattr__ = lazily(
    __name__,
    {
        "DECIDED_BY_MODEL": "config",
        "EmbedConfig": "config",
        "EmbedEstimate": "estimating",
        "estimate": "estimating",
        "Embedded": "executor",
        "Executor": "executor",
        "RayExecutor": "executor",
        "Prepared": "job",
        "prepare": "job",
        "publish": "job",
        "run": "job",
        "Network": "model",
        "complete": "model",
        "EmbedReport": "report",
        "Attempts": "update",
        "Update": "update",
        "start": "update",
    },
)
