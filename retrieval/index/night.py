"""One night: a listed gallery becomes the index's next version, with as little work as can be.

The order of the steps is what makes it safe. Nothing that readers see changes before the
commit; what was embedded is staged with a receipt as soon as it is written; the commit is one
compare-and-swap on the version that was open at the beginning. Killed anywhere, the next
night finds either the old version and the receipts, or the new version.

Who does the work is the caller's affair (`Hands`): tasks of a cluster, or a plain loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from retrieval.breakpoints import reached
from retrieval.errors import IndexFormatError, RetrievalError, StorageError
from retrieval.images import Reason
from retrieval.index.carrying import Piece, Source, fill, plan_shards
from retrieval.index.commit import commit_index
from retrieval.index.difference import LISTED_SCHEMA, Difference, open_difference
from retrieval.index.schema import EmbeddingSpec
from retrieval.index.shards import Shard, is_intact
from retrieval.index.staging import (
    INDEX_REJECT_SCHEMA,
    Receipt,
    discard,
    read_receipts,
    read_rejects,
    write_rejects,
)
from retrieval.index.table import Index
from retrieval.storage import DAMAGED_PARQUET, first_line, join, open_input

__all__ = ["Candidate", "Hands", "Night", "prepare", "publish"]

# Two seconds: the coarsest clock of a file system that is in use. See `Difference.add_stored`.
_TICK_US = 2_000_000
# What may be otherwise tomorrow though the file is the same.
_PASSING = (Reason.MISSING, Reason.UNREADABLE)
_READ_ROWS = 64 * 1024
_NO_HASHES = pa.table(
    {"image_id": pa.array([], pa.string()), "content_sha256": pa.array([], pa.string())}
)


class Hands(Protocol):
    """Who does the work of a night."""

    def hash_photos(self, photos: pa.Table) -> pa.Table:
        """image_id and content_sha256 (null if unreadable) of image_id, uri, size_bytes."""

    def embed(self, photos: pa.Table, night: Night) -> list[Receipt]:
        """Embed rows of LISTED_SCHEMA: each ends in a staged shard or in staged rejects."""

    def carry(self, groups: Iterable[list[Piece]]) -> list[Shard]:
        """`carrying.carry` for each group, in their order."""


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


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The next version, written but not committed.

    Attributes:
        index: As it will be; its version is the number that it will have.
        seen_version: The version that it was made from; None if there was no index.
        is_unchanged: Whether it says nothing that this version does not say.
        rejects: Rows of INDEX_REJECT_SCHEMA, by id.
        counts: num_listed and what became of them.
        receipts: Of the work in it, and of what no run can use any more.
    """

    index: Index
    seen_version: int | None
    is_unchanged: bool
    rejects: pa.Table
    counts: dict[str, Any]
    receipts: tuple[Receipt, ...]


def prepare(
    uri: str,
    seen: Index | None,
    spec: EmbeddingSpec,
    listed: Iterable[pa.RecordBatch],
    night: Night,
    hands: Hands,
) -> Candidate:
    """Do all the work of a night but the commit.

    Args:
        uri: Absolute location of the index.
        seen: The version that is current; None if there is no index yet.
        spec: How embeddings are made now. Another make than that of `seen`: nothing of it is
            kept.
        listed: The gallery, rows of LISTED_SCHEMA in any order.
        night: Settings.
        hands: Who does the work.

    Raises:
        UsageError: an id is listed twice.
        IndexFormatError: a shard that holds rows to keep is damaged.
        RetrievalError: a photo is neither embedded nor refused.

    Cost: reads the ids, sizes and times of all rows. Memory is bounded (1 GiB for the
        comparison), but for the rows that are new.
    """
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
        difference.settle(hands.hash_photos(doubtful) if doubtful.num_rows else _NO_HASHES)
        reached("compared")
        photos = difference.to_embed()
        fresh = hands.embed(photos, night) if photos.num_rows else []
        reached("embedded")
        kept, sources = _carry(difference, shards, len(live), night, hands)
        reached("carried")
        rejects = pa.concat_tables(
            [
                difference.still_refused().cast(INDEX_REJECT_SCHEMA),
                read_rejects(uri, [receipt.rejects for receipt in fresh if receipt.rejects]),
            ]
        ).sort_by("image_id")
        counts = _count(difference, len(live), fresh, rejects)
    new = [*kept, *(receipt.shard for receipt in fresh if receipt.shard)]
    is_unchanged = (
        seen is not None
        and set(seen.shards) == set(new)
        and _rejects_of(uri, seen).equals(rejects.combine_chunks())
    )
    run = {"run_id": night.run_id, "listed_us": night.listed_us, **night.recorded, **counts}
    seen_version = None if seen is None else seen.version
    index = Index(
        uri=uri,
        version=0 if seen_version is None else seen_version + 1,
        spec=spec,
        shards=tuple(sorted(new, key=lambda shard: shard.path)),
        run={**run, "sources": sources},
    )
    return Candidate(
        index=index,
        seen_version=seen_version,
        is_unchanged=is_unchanged,
        rejects=rejects,
        counts=counts,
        receipts=(*receipts, *useless, *fresh),
    )


def publish(candidate: Candidate) -> int:
    """Commit a candidate; gives the version that is current then.

    Raises:
        MismatchError: somebody else has committed since it was begun.
        StorageError: a shard is gone, or the log cannot be written.
    """
    index = candidate.index
    if candidate.is_unchanged and candidate.seen_version is not None:
        with suppress(StorageError):  # tidying up, as below
            discard(index.uri, candidate.receipts)
        return candidate.seen_version
    rejects = write_rejects(index.uri, index.run["run_id"], candidate.rejects)
    version = commit_index(
        index.uri,
        index.spec,
        index.shards,
        run={**index.run, "rejects": rejects},
        seen_version=candidate.seen_version,
    )
    with suppress(StorageError):  # the night has succeeded; the next one tidies up
        discard(index.uri, candidate.receipts)
    reached("published")
    return version


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


def _carry(
    difference: Difference, shards: Sequence[Shard], num_live: int, night: Night, hands: Hands
) -> tuple[list[Shard], dict[str, list[str]]]:
    """Shards with all rows that go on, and for rewritten ones where their rows came from."""
    kept = difference.kept_by_file()
    sources = [
        Source(shard, number < num_live, *kept.get(number, (0, 0)))
        for number, shard in enumerate(shards)
    ]
    moved = difference.moved_by_file()
    # A night without a change makes no commit, not even of the same in fewer shards.
    if not (moved or difference.num_of_states()["new"]) and all(
        source.is_whole if source.is_live else not source.num_kept for source in sources
    ):
        return list(shards[:num_live]), {}
    stay, groups = plan_shards(sources, night.shard_rows)
    jobs = [[(number, "same") for number in group] for group in groups]
    jobs += [[(number, "moved") for number in group] for group in fill(moved, night.shard_rows)]
    pieces = (
        [Piece(shards[number], difference.carried(number, state)) for number, state in job]
        for job in jobs
    )
    written = hands.carry(pieces) if jobs else []
    origins = {
        shard.path: [shards[number].path for number in group]
        for shard, group in zip(written, groups, strict=False)
        if all(number < num_live for number in group)
    }
    return [*(shards[number] for number in stay), *written], origins


def _count(
    difference: Difference, num_live: int, fresh: Sequence[Receipt], rejects: pa.Table
) -> dict[str, Any]:
    """What became of every photo; each must be in one place, or the night is no good."""
    states = difference.num_of_states()
    num_embedded = sum(receipt.shard.num_rows for receipt in fresh if receipt.shard)
    num_refused = rejects.num_rows - states["rejected"]
    if num_embedded + num_refused != states["new"]:
        raise RetrievalError(
            f"{states['new']} photos were to be embedded, but {num_embedded} are and "
            f"{num_refused} were refused. This is a defect of the job; nothing was committed."
        )
    num_resumed = difference.num_of_later(num_live)
    return {
        "num_listed": states.total(),
        "num_embedded": num_embedded,
        "num_removed": difference.num_removed(num_live),
        "num_unchanged": states["same"] - num_resumed,
        "num_moved": states["moved"],
        "num_resumed": num_resumed,
        "num_rejected": rejects.num_rows,
        "num_rejected_now": num_refused,
        "reject_reasons": dict(Counter(rejects["reason"].to_pylist()).most_common()),
        "num_unlabelled": difference.num_unlabelled(),
    }


def _rejects_of(uri: str, seen: Index) -> pa.Table:
    path = seen.run.get("rejects")
    return read_rejects(uri, [path] if path else []).sort_by("image_id").combine_chunks()
