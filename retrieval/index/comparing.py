"""The first half of a night: a listing against what an index, and killed runs, hold of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retrieval.errors import IndexFormatError
from retrieval.images import Reason
from retrieval.index.difference import LISTED_SCHEMA, Difference, open_difference
from retrieval.index.schema import EmbeddingSpec
from retrieval.index.shards import Shard, is_intact
from retrieval.index.staging import Receipt, read_receipts, read_rejects
from retrieval.index.table import Index
from retrieval.storage import DAMAGED_PARQUET, first_line, join, open_input

__all__ = ["Comparison", "Night", "compare"]

# Two seconds: the coarsest clock of a file system that is in use. See `Difference.add_stored`.
_TICK_US = 2_000_000
# What may be otherwise tomorrow though the file is the same.
_PASSING = (Reason.MISSING, Reason.UNREADABLE)
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
        retry_rejects: Try again what was refused; otherwise only what may be a passing fault.
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
    """Compare a listing with an index; writes nothing there. Arguments as of `night.prepare`."""
    is_same_make = seen is not None and seen.spec.makes_same(spec)
    if seen is not None and is_same_make:
        spec = seen.spec  # another name of the same network is no new make
    live = list(seen.shards) if seen is not None and is_same_make else []
    receipts, useless = read_receipts(uri, spec)
    if night.heal:
        live = [shard for shard in live if is_intact(uri, shard)]
        receipts, useless = _intact(uri, receipts, useless)
    staged = [receipt for receipt in receipts if receipt.shard]
    shards = live + [receipt.shard for receipt in staged if receipt.shard]
    with open_difference() as difference:
        difference.add_listed(listed)
        _add_stored(difference, uri, shards, len(live), staged, night)
        _add_refused(difference, uri, seen if is_same_make else None, receipts, night)
        doubtful = difference.compare(by_content=night.by_content)
        yield Comparison(difference, doubtful, spec, shards, len(live), receipts, useless)


def _intact(
    uri: str, receipts: list[Receipt], useless: list[Receipt]
) -> tuple[list[Receipt], list[Receipt]]:
    """The receipts without those of damaged shards, and the useless ones with them."""
    whole = [each for each in receipts if not each.shard or is_intact(uri, each.shard)]
    return whole, useless + [each for each in receipts if each not in whole]


def _add_stored(
    difference: Difference,
    uri: str,
    shards: Sequence[Shard],
    num_live: int,
    staged: Sequence[Receipt],
    night: Night,
) -> None:
    for number, shard in enumerate(shards):
        is_live = number < num_live
        settled_us = night.settled_us if is_live else staged[number - num_live].listed_us
        difference.add_stored(number, _described(uri, shard), settled_us - _TICK_US)


def _described(uri: str, shard: Shard) -> Iterator[pa.RecordBatch]:
    """What a shard says of its photos, without the embeddings."""
    columns = [*LISTED_SCHEMA.names, "content_sha256"]
    address = join(uri, shard.path)
    try:
        with (
            open_input(address) as stream,
            pq.ParquetFile(stream, page_checksum_verification=True) as file,
        ):
            yield from file.iter_batches(_READ_ROWS, columns=columns)
    except DAMAGED_PARQUET as error:
        raise IndexFormatError(
            f"{address}: this shard cannot be read ({first_line(error)}). If the disk or the store "
            f"is well again, embed with --heal what it held."
        ) from error


def _add_refused(
    difference: Difference,
    uri: str,
    seen: Index | None,
    receipts: Sequence[Receipt],
    night: Night,
) -> None:
    if night.retry_rejects:
        return
    groups = [([seen.run.get("rejects")] if seen else [], night.settled_us)]
    groups += [([receipt.rejects], receipt.listed_us) for receipt in receipts]
    for paths, settled_us in groups:
        rejects = read_rejects(uri, [path for path in paths if path])
        lasting = pc.invert(pc.is_in(rejects["reason"], pa.array(list(_PASSING), pa.string())))
        difference.add_refused(rejects.filter(lasting), settled_us - _TICK_US)
