"""One shard: an immutable Parquet file of index rows."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.errors import StorageError
from retrieval.storage import first_line, join, read_bytes, write_bytes

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

    @property
    def is_plain(self) -> bool:
        """Whether it is of the types above, as a file that was damaged may not have it."""
        sizes = all(type(each) is int and each >= 0 for each in (self.num_rows, self.size_bytes))
        return sizes and isinstance(self.path, str) and isinstance(self.sha256, str)


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
        StorageError: the folder cannot be written, or what is read back is something else.

    Cost: holds the encoded file in memory, about as much as the table itself, and once more
        while it is read back.
    """
    data = encode_parquet(table)
    path = f"shard-{uuid.uuid4().hex}.parquet"
    uri, sha256 = join(index_uri, path), hashlib.sha256(data).hexdigest()
    write_bytes(uri, data)
    _check_written(uri, data.size, sha256)
    return Shard(path, table.num_rows, data.size, sha256)


def _check_written(uri: str, size_bytes: int, sha256: str) -> None:
    """Read a file back: an upload that was cut short must never be committed."""
    try:
        found = read_bytes(uri)
    except OSError as error:
        raise StorageError(
            f"{uri}: cannot be read back ({first_line(error)}). Allow reading it, and run it again."
        ) from error
    if hashlib.sha256(found).hexdigest() != sha256:
        raise StorageError(
            f"{uri}: {len(found)} bytes are read back that are not the {size_bytes} bytes written. "
            f"The store or the disk is at fault: check it, and run it again."
        )
