"""Embed a gallery of photos into an index.

Reads       every file of a folder or bucket, once.
Writes      Parquet shards and the rejects, then one commit that makes them the index's whole
            content. Photos that cannot be embedded are rows of the rejects, with a reason.
Resources   CPU tasks fetch and decode; actors hold the network, one a GPU, or one per 16 CPUs
            with a thread for each of them. Memory does not grow with the number of photos, but
            for the listing (about 200 bytes a photo on the driver).
Resume      a killed run leaves the index as it was; run it again. Its shards are not used.
Fails when  no photo can be embedded, the weights do not fit, the output cannot be written,
            or another run commits first. Nothing is committed then.

config      settings
placement   how many actors, and what they book
stages      decode and embed, on workers
sink        shards and rejects, written by workers
budget      the time that each stage took, and what bounds the job
job         all of it
"""

from pipelines.embed.config import DECIDED_BY_MODEL, EmbedConfig
from pipelines.embed.job import run

__all__ = ["DECIDED_BY_MODEL", "EmbedConfig", "run"]
