"""The index: a table of embeddings in immutable Parquet shards, one atomic commit a run.

schema    columns, and the EmbeddingSpec that says how the vectors were made
shards    one Parquet file: encode and decode
table     the Delta Lake log: open a version, commit shards
reading   the whole index as arrays
"""

from retrieval.index.reading import IndexRows, read_index
from retrieval.index.schema import EmbeddingSpec, index_schema
from retrieval.index.shards import Shard, write_shard
from retrieval.index.table import Index, commit_index, is_index, open_index

__all__ = [
    "EmbeddingSpec",
    "Index",
    "IndexRows",
    "Shard",
    "commit_index",
    "index_schema",
    "is_index",
    "open_index",
    "read_index",
    "write_shard",
]
