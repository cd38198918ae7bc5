"""One shard: an immutable Parquet file of index rows."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.storage import join, write_bytes

__all__ = ["ROW_GROUP_ROWS", "Shard", "encode_parquet", "write_shard"]

# 64 Ki rows of 512 × float16 are 64 MiB: large enough to scan at full speed, small enough
# to read one group at a time.
ROW_GROUP_ROWS = 64 * 1024


@dataclass(frozen=True)
class Shard:
    """A Parquet file of an index.

    Attributes:
        path: Relative to the index.
        num_rows: Rows in it.
        size_bytes: Size of the file.
        sha256: Hash of the file's bytes; empty where the log does not keep it.
    """

    path: str
    num_rows: int
    size_bytes: int
    sha256: str = ""


def encode_parquet(table: pa.Table) -> pa.Buffer:
    """A table as the bytes of a Parquet file in the layout of the index.

    Text columns are compressed; the embedding is not (it would gain some 10 % and cost most
    of the reading speed) and has neither dictionary nor statistics. Pages carry checksums.
    """
    text = [name for name in table.column_names if name != "embedding"]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=ROW_GROUP_ROWS,
        use_dictionary=[name for name in text if name == "label"],
        compression={
            name: "zstd" if name != "embedding" else "none" for name in table.column_names
        },
        write_statistics=text,
        write_page_checksum=True,
    )
    return sink.getvalue()


def write_shard(index_uri: str, table: pa.Table) -> Shard:
    """Write index rows as a new shard, invisible until a commit names it.

    The name holds a fresh uuid, so that a second attempt at the same rows can never
    overwrite a file that a commit refers to.

    Args:
        index_uri: The index's folder.
        table: Rows of `index_schema`.

    Raises:
        StorageError: the folder cannot be written.

    Cost: holds the encoded file in memory, about as much as the table itself.
    """
    data = encode_parquet(table)
    path = f"shard-{uuid.uuid4().hex}.parquet"
    write_bytes(join(index_uri, path), data)
    return Shard(path, table.num_rows, data.size, hashlib.sha256(data).hexdigest())
