"""The first half of an update: a listing against what an index, and killed runs, hold of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from retrieval.errors import IndexFormatError, VacuumedError
from retrieval.failpoints import reached
from retrieval.index.before_commit import check_not_overtaken
from retrieval.index.compaction import Rewrites, ShardUsage
from retrieval.index.folder import check_no_link
from retrieval.index.gallery_diff import (
    LISTED_SCHEMA,
    TRIED_NOW_US,
    Difference,
    open_difference,
)
from retrieval.index.names import REJECTS, STAGING
from retrieval.index.reading import DAMAGED_SHARD, read_whole_shard, strange_shard
from retrieval.index.rejects import lasting_rejects, rejects_path, still_refused
from retrieval.index.schema import EmbeddingSpec, as_index_columns, index_schema
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

__all__ = ["UpdateOptions", "UpdatePlan", "plan_update"]

# Two seconds: the coarsest clock of a file system that is in use. See `Difference.add_stored`.
_TICK_US = 2_000_000
_READ_ROWS = 64 * 1024
_NO_HASHES: Final = pa.table(
    {"image_id": pa.array([], pa.string()), "content_sha256": pa.array([], pa.string())}
)


@dataclass(frozen=True, kw_only=True)
class UpdateOptions:
    """Settings of one update.

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
class UpdatePlan:
    """What an update has to do, of `plan_update`; read while that is open.

    In this order: hash the content of `to_hash`, give it to `settle`, embed `to_embed()`, write
    the groups of `rewrites` by `compaction.compact`; then `update.finish`.

    Attributes:
        uri: Of the index.
        seen: The version that is current; None if there is no index yet.
        spec: How embeddings are made; of the index, if that makes the same.
        options: Settings.
        difference: What has changed.
        to_hash: image_id, uri and size_bytes of the images whose content tells what becomes of
            them; perhaps none.
        shards: All that hold rows to keep: first those of the index, then those of killed runs.
        num_live: How many of them are the index's.
        receipts: Of killed runs, whose work can be used.
        useless: Of killed runs, whose work cannot.
    """

    uri: str
    seen: Index | None
    spec: EmbeddingSpec
    options: UpdateOptions
    difference: Difference
    to_hash: pa.Table
    shards: list[Shard]
    num_live: int
    receipts: list[Receipt]
    useless: list[Receipt]
    _rewrites: list[Rewrites] = field(default_factory=list, repr=False)

    def settle(self, hashes: pa.Table | None = None) -> None:
        """Decide what becomes of the images of `to_hash`.

        Args:
            hashes: image_id and content_sha256 of each; null where it cannot be read, which
                leaves it to the next stage to say why. None where there are none.
        """
        self.difference.settle(_NO_HASHES if hashes is None else hashes)
        reached("compared")

    def to_embed(self) -> pa.Table:
        """Images to embed: rows of LISTED_SCHEMA, by id."""
        return self.difference.to_embed()

    @property
    def rewrites(self) -> Rewrites:
        """Which shards are written anew, and of what; once it is settled."""
        # No cached_property: until Python 3.12 it holds one lock for all plans of a process.
        if not self._rewrites:
            reached("embedded")
            self._rewrites.append(self._plan_rewrites())
        return self._rewrites[0]

    def _plan_rewrites(self) -> Rewrites:
        difference = self.difference
        return Rewrites(
            self.usages(),
            difference.moved_by_file(),
            self.options.shard_rows,
            rows_of=difference.carried,
            has_new=bool(difference.num_of_states()["new"]),
        )

    def usages(self) -> list[ShardUsage]:
        """How much of each of `shards` goes on."""
        kept = self.difference.kept_by_file()
        return [
            ShardUsage(shard, number < self.num_live, *kept.get(number, (0, 0)))
            for number, shard in enumerate(self.shards)
        ]


@contextmanager
def plan_update(
    uri: str,
    seen: Index | None,
    spec: EmbeddingSpec,
    listed: Iterable[pa.RecordBatch],
    options: UpdateOptions,
) -> Iterator[UpdatePlan]:
    """Compare a listing with an index; writes nothing there.

    While it is open, what is found to be removed meanwhile is told from what is damaged; see
    `_removal_noticed`.

    Args:
        uri: Absolute location of the index.
        seen: The version that is current; None if there is no index yet.
        spec: How embeddings are made now. Another make than that of `seen`: nothing of it is
            kept.
        listed: The gallery, rows of LISTED_SCHEMA in any order.
        options: Settings.

    Raises:
        UsageError: an id is listed twice.
        IndexFormatError: a shard that holds rows to keep is damaged.
        VacuumedError: work that was taken up, or just done, has been removed meanwhile.
        MismatchError: a shard is gone, and another run has committed since `seen`.
        StorageError: a folder that an update writes to is a link.

    Cost: reads the ids, sizes and times of all rows. Memory is bounded (1 GiB for the
        comparison), but for the rows that are new.
    """
    check_no_link(uri, STAGING, REJECTS)
    is_same_make = seen is not None and seen.spec.makes_same(spec)
    if seen is not None and is_same_make:
        spec = seen.spec  # another name of the same network is no new make
    live = list(seen.shards) if seen is not None and is_same_make else []
    receipts, useless = read_receipts(uri, spec)
    if options.heal:
        live = [shard for shard in live if _is_sound(uri, spec, shard)]
        receipts, useless = _intact(uri, spec, receipts, useless)
    staged = [receipt for receipt in receipts if receipt.shard]
    shards = live + [receipt.shard for receipt in staged if receipt.shard]
    with _removal_noticed(uri, seen, shards), open_difference() as difference:
        difference.add_listed(listed)
        settled = [options.settled_us] * len(live) + [receipt.listed_us for receipt in staged]
        for number, (shard, settled_us) in enumerate(zip(shards, settled, strict=True)):
            rows = _described(uri, spec, shard)
            difference.add_stored(number, rows, settled_us - _TICK_US)
        _add_refused(difference, uri, seen if is_same_make else None, receipts, options)
        yield UpdatePlan(
            uri=uri,
            seen=seen,
            spec=spec,
            options=options,
            difference=difference,
            to_hash=difference.compare(by_content=options.by_content),
            shards=shards,
            num_live=len(live),
            receipts=receipts,
            useless=useless,
        )


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
    options: UpdateOptions,
) -> None:
    if options.retry_rejects:
        return
    groups = [([rejects_path(seen.run, uri)] if seen else [], options.settled_us)]
    groups += [([receipt.rejects], receipt.listed_us) for receipt in receipts]
    for paths, settled_us in groups:
        rejects = read_rejects(uri, [path for path in paths if path])
        difference.add_refused(lasting_rejects(rejects), settled_us - _TICK_US)
        difference.add_refused(still_refused(rejects), TRIED_NOW_US)
