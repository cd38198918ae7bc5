"""The first half of a night: a listing against what an index, and killed runs, hold of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from retrieval.errors import IndexFormatError, VacuumedError
from retrieval.images import Reason
from retrieval.images.fetch import check_fetch
from retrieval.index.before_commit import check_not_overtaken
from retrieval.index.columns import as_index_columns
from retrieval.index.gallery_diff import (
    LISTED_SCHEMA,
    TRIED_NOW_US,
    Difference,
    open_difference,
)
from retrieval.index.reading import DAMAGED_SHARD, read_whole_shard, strange_shard
from retrieval.index.rejects import rejects_path
from retrieval.index.schema import EmbeddingSpec, index_schema
from retrieval.index.shards import Shard
from retrieval.index.staging import Receipt, read_receipts, read_rejects
from retrieval.index.table import Index
from retrieval.storage import (
    file_stamp,
    first_line,
    is_no_answer,
    join,
    not_read,
    open_input,
    parquet_file,
)

__all__ = ["Comparison", "Night", "compare"]

# Two seconds: the coarsest clock of a file system that is in use. See `Difference.add_stored`.
_TICK_US = 2_000_000
# What may be otherwise tomorrow though the file is the same, as with a store that was down.
_PASSING = (Reason.MISSING, Reason.UNREADABLE)
# What whoever fetches a file finds, before any decoder. Whether it is so still costs little to
# try; of a link that is not followed, no time tells whether it has changed.
_FETCHED = (*_PASSING, Reason.LINK_OUTSIDE, Reason.TOO_LARGE)
_TRIED_AT_ONCE = 256
_TRY_S = 60.0
_READ_ROWS = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Night:
    """Settings of one night.

    Attributes:
        run_id: Its name.
        listed_us: When the listing began, microseconds since 1970.
        shard_rows: Rows of a full shard.
        settled_us: When the gallery was last found to be as the index says; 0 if never.
        by_content: Trust neither size nor time of a photo.
        retry_rejects: Try again what was refused; otherwise only what has changed since, or what
            could not be fetched then and can be now.
        heal: Read every shard whole first; what damaged ones held counts as not embedded.
        recorded: What else the run's record is to say.
    """

    run_id: str
    listed_us: int
    shard_rows: int
    settled_us: int = 0
    by_content: bool = False
    retry_rejects: bool = False
    heal: bool = False
    recorded: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Both sides, compared as far as the listing tells.

    Attributes:
        difference: What has changed; to be settled by the hashes of `doubtful`.
        doubtful: image_id, uri and size_bytes of the photos whose content must be read for that.
        spec: How embeddings are made; of the index, if that makes the same.
        shards: All that hold rows to keep: first those of the index, then those of killed runs.
        num_live: How many of them are the index's.
        receipts: Of killed runs, whose work can be used.
        useless: Of killed runs, whose work cannot.
    """

    difference: Difference
    doubtful: pa.Table
    spec: EmbeddingSpec
    shards: list[Shard]
    num_live: int
    receipts: list[Receipt]
    useless: list[Receipt]


@contextmanager
def compare(
    uri: str,
    seen: Index | None,
    spec: EmbeddingSpec,
    listed: Iterable[pa.RecordBatch],
    night: Night,
) -> Iterator[Comparison]:
    """Compare a listing with an index; writes nothing there. Arguments as of `night.prepare`.

    While it is open, what is found to be removed meanwhile is told from what is damaged; see
    `_removal_noticed`.
    """
    is_same_make = seen is not None and seen.spec.makes_same(spec)
    if seen is not None and is_same_make:
        spec = seen.spec  # another name of the same network is no new make
    live = list(seen.shards) if seen is not None and is_same_make else []
    receipts, useless = read_receipts(uri, spec)
    if night.heal:
        live = [shard for shard in live if _is_sound(uri, spec, shard)]
        receipts, useless = _intact(uri, spec, receipts, useless)
    staged = [receipt for receipt in receipts if receipt.shard]
    shards = live + [receipt.shard for receipt in staged if receipt.shard]
    with _removal_noticed(uri, seen, shards), open_difference() as difference:
        difference.add_listed(listed)
        settled = [night.settled_us] * len(live) + [receipt.listed_us for receipt in staged]
        for number, (shard, settled_us) in enumerate(zip(shards, settled, strict=True)):
            rows = _described(uri, spec, shard)
            difference.add_stored(number, rows, settled_us - _TICK_US)
        _add_refused(difference, uri, seen if is_same_make else None, receipts, night)
        doubtful = difference.compare(by_content=night.by_content)
        yield Comparison(difference, doubtful, spec, shards, len(live), receipts, useless)


@contextmanager
def _removal_noticed(uri: str, seen: Index | None, shards: Sequence[Shard]) -> Iterator[None]:
    """Tell a shard that was removed meanwhile from one that is damaged.

    Only shards that no version needs are removed: what killed runs have left, and those of `seen`
    once another run has committed.

    Raises:
        MismatchError: another run has.
        VacuumedError: a shard of a killed run is gone.
    """
    try:
        yield
    except (IndexFormatError, VacuumedError) as error:
        check_not_overtaken(uri, None if seen is None else seen.version)
        live = set() if seen is None else {shard.path for shard in seen.shards}
        for shard in shards:
            where = join(uri, shard.path)
            if shard.path not in live and file_stamp(where)[0] < 0:
                raise VacuumedError(
                    f"{where}: this shard of a run that was killed is gone: a vacuum, or another "
                    f"run, has removed it. Nothing was committed: run it again."
                ) from error
        raise


def _is_sound(uri: str, spec: EmbeddingSpec, shard: Shard) -> bool:
    """Whether all that a reader may need of a shard can be read; StorageError as there."""
    try:
        read_whole_shard(uri, shard, index_schema(spec))
    except IndexFormatError:
        return False
    return True


def _intact(
    uri: str, spec: EmbeddingSpec, receipts: list[Receipt], useless: list[Receipt]
) -> tuple[list[Receipt], list[Receipt]]:
    """The receipts without those of damaged shards, and the useless ones with them."""
    whole = [each for each in receipts if not each.shard or _is_sound(uri, spec, each.shard)]
    return whole, useless + [each for each in receipts if each not in whole]


def _described(uri: str, spec: EmbeddingSpec, shard: Shard) -> Iterator[pa.RecordBatch]:
    """What a shard says of its photos, without the embeddings."""
    needed = index_schema(spec)
    schema = pa.schema([needed.field(name) for name in (*LISTED_SCHEMA.names, "content_sha256")])
    address = join(uri, shard.path)
    num_rows = 0
    try:
        with (
            open_input(address) as stream,
            parquet_file(stream, page_checksum_verification=True) as file,
        ):
            if any(file.schema_arrow.get_field_index(name) < 0 for name in schema.names):
                raise strange_shard(uri, shard)
            for batch in file.iter_batches(_READ_ROWS, columns=schema.names):
                num_rows += batch.num_rows
                yield as_index_columns(batch, schema, is_ours=bool(shard.sha256))
    except DAMAGED_SHARD as error:
        if is_no_answer(error):
            raise not_read(address, error) from error
        raise IndexFormatError(
            f"{address}: this shard cannot be read ({first_line(error)}). If the disk or the store "
            f"is well again, embed with `heal` what it held."
        ) from error
    if num_rows != shard.num_rows:
        raise strange_shard(uri, shard)


def _add_refused(
    difference: Difference,
    uri: str,
    seen: Index | None,
    receipts: Sequence[Receipt],
    night: Night,
) -> None:
    if night.retry_rejects:
        return
    groups = [([rejects_path(seen.run, uri)] if seen else [], night.settled_us)]
    groups += [([receipt.rejects], receipt.listed_us) for receipt in receipts]
    for paths, settled_us in groups:
        rejects = read_rejects(uri, [path for path in paths if path])
        lasting = rejects.filter(pc.invert(_is_of(rejects, _PASSING)))
        difference.add_refused(lasting, settled_us - _TICK_US)
        difference.add_refused(
            _still_refused(rejects.filter(_is_of(rejects, _FETCHED))), TRIED_NOW_US
        )


def _is_of(rejects: pa.Table, reasons: Sequence[Reason]) -> pa.ChunkedArray:
    return pc.is_in(rejects["reason"], pa.array(list(reasons), pa.string()))


def _still_refused(rejects: pa.Table) -> pa.Table:
    """Those of the files that could not be fetched that still cannot, for the same reason.

    Tried here, so that a night without a change starts no workers for them. Where one has come
    back there is work for workers, who try the rest, as they do where this takes too long.
    """
    begun = time.monotonic()
    num_same = 0
    for start in range(0, rejects.num_rows, _TRIED_AT_ONCE):
        rows = rejects.slice(start, _TRIED_AT_ONCE).to_pydict()
        before = list(zip(rows["reason"], rows["message"], strict=True))
        if check_fetch(rows["uri"], rows["size_bytes"]) != before:
            break
        num_same += len(before)
        if time.monotonic() - begun > _TRY_S:
            break
    return rejects.slice(0, num_same)
