"""Rank a gallery for each query, exactly: `retrieval.ranking`, here or on a cluster.

Reads       queries and gallery: indexes, or vectors of other tools.
Writes      a ranking: one Parquet part a block of queries, then _ranking.json.
Resources   the threads of this process; on a cluster, actors of one CPU or one GPU each. Every
            one searches parts of the gallery for a block of queries, the driver merges. A process
            holds at most `memory_bytes`, and the driver the queries' ids (about 100 bytes
            each).
Resume      finished parts are kept: the same command goes on after them.
Fails when  the two sides are of different models or dimensions, a vector is NaN, infinite or
            zero, an id occurs twice, a shard is damaged or changes meanwhile, or k is above
            the gallery's size.

executor    who ranks: the threads of this process, or actors of a cluster
actors      the actors, which take work as soon as they have started
placement   how many there are, and what they book
job         all of it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.lazily import lazily
from retrieval.ranking.settings import RankConfig

if TYPE_CHECKING:
    from pipelines.rank.job import estimate, run

__all__ = ["RankConfig", "estimate", "run"]

__getattr__ = lazily(
    __name__,
    {"estimate": "job", "run": "job"},
)
