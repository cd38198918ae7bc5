"""What a run has written and not yet committed, so that one that is killed loses nothing.

Whoever writes a shard writes a receipt for it into INDEX/_staging, shard first: a receipt that
is there names a shard that is whole. The next run takes the rows of such shards for embedded,
as those of the index itself, and its commit takes the receipts away. Readers of tables skip
names that begin with "_".
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval.breakpoints import reached
from retrieval.index.schema import REJECT_SCHEMA, EmbeddingSpec, index_schema
from retrieval.index.shards import Shard, encode_parquet, write_shard
from retrieval.storage import (
    DAMAGED_PARQUET,
    file_stamp,
    join,
    list_files,
    open_input,
    read_bytes,
    remove_file,
    write_bytes,
)

__all__ = [
    "INDEX_REJECT_SCHEMA",
    "Receipt",
    "discard",
    "read_receipts",
    "read_rejects",
    "rejects_folder",
    "stage",
    "write_rejects",
]

# With size and time, so that a later run can tell whether the photo has changed.
INDEX_REJECT_SCHEMA = pa.schema(
    [
        *REJECT_SCHEMA,
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("modified_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
_FOLDER = "_staging"


@dataclass(frozen=True)
class Receipt:
    """One part of a run's work.

    Attributes:
        path: Of the receipt, relative to the index.
        run_id: The run.
        listed_us: When that run began to list its photos, microseconds since 1970.
        fingerprint, dim, dtype: Of the embeddings.
        shard: The embedded photos; None if there are none.
        rejects: Path of a Parquet file of INDEX_REJECT_SCHEMA; None if there are none.
    """

    path: str
    run_id: str
    listed_us: int
    fingerprint: str
    dim: int
    dtype: str
    shard: Shard | None
    rejects: str | None


def stage(
    index_uri: str, spec: EmbeddingSpec, run: tuple[str, int], good: pa.Table, bad: pa.Table
) -> Receipt:
    """Write one part of a run's work, for a later commit.

    Args:
        index_uri: The index.
        spec: How the embeddings were made.
        run: Its id, and when it began to list (microseconds since 1970).
        good: Rows of `index_schema`; may be none.
        bad: Rows of INDEX_REJECT_SCHEMA; may be none.

    Raises:
        StorageError: the folder cannot be written.
    """
    run_id, listed_us = run
    name = f"{run_id}-{uuid.uuid4().hex}"
    shard = rejects = None
    if good.num_rows:
        shard = write_shard(index_uri, good.cast(index_schema(spec)))
    if bad.num_rows:
        rejects = f"{_FOLDER}/{name}.rejects.parquet"
        write_bytes(join(index_uri, rejects), encode_parquet(bad.cast(INDEX_REJECT_SCHEMA)))
    reached("shard written")
    receipt = Receipt(
        path=f"{_FOLDER}/{name}.json",
        run_id=run_id,
        listed_us=listed_us,
        fingerprint=spec.fingerprint,
        dim=spec.dim,
        dtype=spec.dtype,
        shard=shard,
        rejects=rejects,
    )
    write_bytes(join(index_uri, receipt.path), json.dumps(asdict(receipt)).encode())
    reached("staged")
    return receipt


def read_receipts(index_uri: str, spec: EmbeddingSpec) -> tuple[list[Receipt], list[Receipt]]:
    """What earlier runs have left.

    Returns:
        Receipts of embeddings of this make whose shard is there; and the others. A receipt
        that cannot be read is none: its photos are embedded again.
    """
    ours: list[Receipt] = []
    others: list[Receipt] = []
    for uri in list_files(join(index_uri, _FOLDER)):
        if not uri.endswith(".json"):
            continue
        receipt = _read(uri)
        if receipt is None:
            continue
        fits = (receipt.fingerprint, receipt.dim, receipt.dtype) == (
            spec.fingerprint,
            spec.dim,
            spec.dtype,
        )
        is_whole = fits and _is_there(index_uri, receipt.shard)
        (ours if is_whole else others).append(receipt)
    return ours, others


def _read(uri: str) -> Receipt | None:
    try:
        found = json.loads(read_bytes(uri))
        shard = found["shard"] and Shard(**found["shard"])
        return Receipt(**{**found, "shard": shard})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _is_there(index_uri: str, shard: Shard | None) -> bool:
    return shard is None or file_stamp(join(index_uri, shard.path))[0] == shard.size_bytes


def discard(index_uri: str, receipts: Iterable[Receipt]) -> None:
    """Take receipts away whose work is committed, or of no use any more. The shards stay.

    Of a run that was killed here the rest is taken away by the next one: a receipt of committed
    work does no harm.
    """
    for receipt in receipts:
        for path in (receipt.path, receipt.rejects):
            if path:
                remove_file(join(index_uri, path))
                reached("discarded")


def rejects_folder(index_uri: str, run_id: str) -> str:
    """Where the rejects of a run's version are: below a name that readers of tables skip."""
    return join(index_uri, "_rejects", run_id)


def write_rejects(index_uri: str, run_id: str, rejects: pa.Table) -> str | None:
    """Write all rejects of a version; gives their folder relative to the index, if any."""
    if not rejects.num_rows:
        return None
    folder = rejects_folder(index_uri, run_id)
    data = encode_parquet(rejects.cast(INDEX_REJECT_SCHEMA))
    write_bytes(join(folder, "part-0.parquet"), data)
    return folder.removeprefix(f"{index_uri}/")


def read_rejects(index_uri: str, paths: Sequence[str]) -> pa.Table:
    """Rejects in files, or in all files of folders: rows of INDEX_REJECT_SCHEMA.

    Files that are missing, damaged or of an older make (without size and time) give no rows:
    their photos are tried again.
    """
    tables = [INDEX_REJECT_SCHEMA.empty_table()]
    for path in paths:
        uri = join(index_uri, path)
        for file in [uri] if path.endswith(".parquet") else list_files(uri):
            try:
                with open_input(file) as stream:
                    table = pq.read_table(stream, page_checksum_verification=True)
                tables.append(table.select(INDEX_REJECT_SCHEMA.names).cast(INDEX_REJECT_SCHEMA))
            except (*DAMAGED_PARQUET, ValueError):  # an empty cell, for the cast
                continue
    return pa.concat_tables(tables)
