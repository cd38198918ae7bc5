"""What a run has written and not yet committed, so that one that is killed loses nothing.

Whoever writes a shard writes a receipt for it into INDEX/_staging, shard first: a receipt that
is there names a shard that is whole. The next run takes the rows of such shards for embedded,
as those of the index itself, and its commit takes the receipts away. Readers of tables skip
names that begin with "_".
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import pyarrow as pa

from retrieval.errors import IndexFormatError, StorageError, VacuumedError
from retrieval.failpoints import reached
from retrieval.format_version import check_format_version
from retrieval.index.folder import is_behind_link, own_files, parquet_names
from retrieval.index.names import RECEIPT, REJECTS, SHARD, STAGING
from retrieval.index.removal_lists import names_in_force
from retrieval.index.schema import REJECT_SCHEMA, EmbeddingSpec, index_schema
from retrieval.index.shards import Shard, encode_parquet, write_shard
from retrieval.storage import (
    DAMAGED_PARQUET,
    file_stamp,
    first_line,
    join,
    open_input,
    parquet_table,
    read_json,
    write_bytes,
)
from retrieval.storage.json_files import check_fields, items, optional, text, whole
from retrieval.storage.removal import remove_written

__all__ = [
    "INDEX_REJECT_SCHEMA",
    "Receipt",
    "discard",
    "read_own_rejects",
    "read_receipts",
    "read_rejects",
    "reject_files",
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
_NEWEST_FORMAT = 1
_RECEIPT = {
    "path": text,
    "run_id": text,
    "listed_us": whole(),
    "shard": optional(
        items({"path": text, "num_rows": whole(), "size_bytes": whole(), "sha256": text})
    ),
    "rejects": optional(text),
}


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
        format_version: Of the receipt.
    """

    path: str
    run_id: str
    listed_us: int
    fingerprint: str
    dim: int
    dtype: str
    shard: Shard | None
    rejects: str | None
    format_version: int = 1


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
        rejects = f"{STAGING}/{name}.rejects.parquet"
        write_bytes(join(index_uri, rejects), encode_parquet(bad.cast(INDEX_REJECT_SCHEMA)))
    reached("shard written")
    receipt = Receipt(
        path=f"{STAGING}/{name}.json",
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
        Receipts of embeddings of this make whose shard is there, and which no vacuum is about to
        remove; and the others. A receipt that cannot be read, that names what a run does not
        write, or that a newer release has written is none: its photos are embedded again.

    Raises:
        IndexFormatError, StorageError: as `names_in_force`.
    """
    ours: list[Receipt] = []
    others: list[Receipt] = []
    listed = names_in_force(index_uri)
    for file in own_files(index_uri, STAGING, RECEIPT):
        receipt = _read(index_uri, file.name)
        if receipt is None:
            continue
        fits = (receipt.fingerprint, receipt.dim, receipt.dtype) == (
            spec.fingerprint,
            spec.dim,
            spec.dtype,
        )
        is_whole = fits and _is_there(index_uri, receipt.shard, listed)
        (ours if is_whole else others).append(receipt)
    reached("receipts read")
    return ours, others


def _read(index_uri: str, path: str) -> Receipt | None:
    """A receipt, if a run has written it: it names its own parts by the names that a run gives."""
    try:
        found = read_json(join(index_uri, path))
        check_format_version(found, _NEWEST_FORMAT, path, IndexFormatError)
        check_fields(found, _RECEIPT)
        shard = found["shard"] and Shard(**found["shard"])
        receipt = Receipt(**{**found, "shard": shard})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, IndexFormatError):
        return None
    own_rejects = f"{path.removesuffix('.json')}.rejects.parquet"
    is_own = receipt.path == path and receipt.rejects in (None, own_rejects)
    is_shard = shard is None or SHARD.fullmatch(shard.path) is not None
    return receipt if is_own and is_shard else None


def _is_there(index_uri: str, shard: Shard | None, listed: Collection[str]) -> bool:
    if shard is None:
        return True
    if shard.path in listed or is_behind_link(index_uri, shard.path):
        return False
    return file_stamp(join(index_uri, shard.path))[0] == shard.size_bytes


def discard(index_uri: str, receipts: Iterable[Receipt]) -> None:
    """Take receipts away whose work is committed, or of no use any more. The shards stay.

    Of a run that was killed here the rest is taken away by the next one: a receipt of committed
    work does no harm.

    Raises:
        StorageError: one cannot be removed, or is no file that a run has written.
    """
    for receipt in receipts:
        for path in (receipt.path, receipt.rejects):
            if path:
                remove_written(index_uri, [path])
                reached("discarded")


def rejects_folder(index_uri: str, run_id: str) -> str:
    """Where the rejects of a run's version are: below a name that readers of tables skip."""
    return join(index_uri, REJECTS, run_id)


def write_rejects(index_uri: str, run_id: str, rejects: pa.Table) -> str | None:
    """Write all rejects of a version; gives their folder relative to the index, if any.

    A run writes them once: a vacuum may be about to remove what has this name, and its folder is
    named by a commit only if it is not.
    """
    if not rejects.num_rows:
        return None
    folder = rejects_folder(index_uri, run_id)
    data = encode_parquet(rejects.cast(INDEX_REJECT_SCHEMA))
    write_bytes(join(folder, "part-0.parquet"), data)
    reached("rejects written")
    return folder.removeprefix(f"{index_uri}/")


def read_rejects(index_uri: str, paths: Sequence[str]) -> pa.Table:
    """Rejects in files, or in all files of folders: rows of INDEX_REJECT_SCHEMA.

    Files that are missing, damaged, behind a link or of an older make (without size and time) give
    no rows: their photos are tried again.
    """
    tables = [INDEX_REJECT_SCHEMA.empty_table()]
    for path in paths:
        if path.endswith(".parquet"):
            names = [] if is_behind_link(index_uri, path) else [path]
        else:
            names = reject_files(index_uri, path)
        for name in names:
            with suppress(*DAMAGED_PARQUET, ValueError):  # an empty cell, for the cast
                tables.append(_read_rejects(index_uri, name))
    return pa.concat_tables(tables)


def reject_files(index_uri: str, folder: str) -> list[str]:
    """The files of rejects in a folder of an index, relative to the index; none behind a link."""
    names = [join(folder, name) for name in parquet_names(join(index_uri, folder))]
    return [name for name in names if not is_behind_link(index_uri, name)]


def read_own_rejects(index_uri: str, receipts: Iterable[Receipt]) -> pa.Table:
    """What a run itself has refused: `read_rejects`, but each file must be there.

    Raises:
        VacuumedError: one is gone, as a vacuum or another night may have it.
        StorageError: one cannot be read.
    """
    tables = [INDEX_REJECT_SCHEMA.empty_table()]
    for receipt in receipts:
        if receipt.rejects is None:
            continue
        where = join(index_uri, receipt.rejects)
        try:
            tables.append(_read_rejects(index_uri, receipt.rejects))
        except FileNotFoundError as error:
            raise VacuumedError(
                f"{where}: these rejects of this run are gone: a vacuum, or another run, has "
                f"removed them. Nothing was committed: run it again."
            ) from error
        except (*DAMAGED_PARQUET, ValueError) as error:
            raise StorageError(
                f"{where}: these rejects of this run cannot be read back ({first_line(error)}). "
                f"The store or the disk is at fault: check it, and run it again."
            ) from error
    return pa.concat_tables(tables)


def _read_rejects(index_uri: str, path: str) -> pa.Table:
    with open_input(join(index_uri, path)) as stream:
        table = parquet_table(stream, page_checksum_verification=True)
    return table.select(INDEX_REJECT_SCHEMA.names).cast(INDEX_REJECT_SCHEMA)
