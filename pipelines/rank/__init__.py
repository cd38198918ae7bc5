"""Rank a gallery for each query, exactly.

Reads       queries and gallery: indexes, or vectors of other tools.
Writes      a ranking: one Parquet part a block of queries, then _ranking.json.
Resources   the threads of this process; on a cluster, actors of one CPU or one GPU each. Every
            one folds parts of the gallery for a block of queries, the driver merges. A process
            holds at most `memory_bytes`, and the driver the queries' ids (about 100 bytes
            each).
Resume      finished parts are kept: the same command goes on after them.
Fails when  the two sides are of different models or dimensions, a vector is NaN, infinite or
            zero, an id occurs twice, a shard is damaged or changes meanwhile, or k is above
            the gallery's size.

config      whether the settings fit the sides
places      where a ranking may lie
queries     ids and vectors of the queries
planning    how the work is cut, and what it will take
folding     ranking some parts of the gallery, in one process
placement   how many actors, and what they book
sharing     who does it: the threads of this process
actors      ... or actors of a cluster
previous    what a previous ranking spares
lineage     rows that two versions share though their shards differ
job         all of it
"""

from retrieval.ranking.settings import RankConfig

from pipelines.rank.job import estimate, run

__all__ = ["RankConfig", "estimate", "run"]
