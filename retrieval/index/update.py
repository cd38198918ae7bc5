"""One night: a listed gallery becomes the index's next version, with as little work as can be.

The order of the steps is what makes it safe. Nothing that readers see changes before the
commit; what was embedded is staged with a receipt as soon as it is written; the commit is one
compare-and-swap on the version that was open at the beginning. Killed anywhere, the next
night finds either the old version and the receipts, or the new version.

Who does the work is the caller's affair (`Hands`): tasks of a cluster, or a plain loop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from retrieval.errors import RetrievalError, StorageError
from retrieval.failpoints import reached
from retrieval.index.commit import commit_index
from retrieval.index.compaction import Piece, Source, fill, plan_shards
from retrieval.index.folder import check_no_link
from retrieval.index.gallery_diff import Difference
from retrieval.index.names import REJECTS, STAGING
from retrieval.index.rejects import rejects_path
from retrieval.index.schema import EmbeddingSpec
from retrieval.index.shards import Shard
from retrieval.index.staging import (
    INDEX_REJECT_SCHEMA,
    Receipt,
    discard,
    read_own_rejects,
    read_rejects,
    write_rejects,
)
from retrieval.index.table import Index
from retrieval.index.update_plan import Night, compare

__all__ = ["Candidate", "Hands", "Night", "prepare", "publish"]

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
        VacuumedError: work that was taken up, or just done, has been removed meanwhile.
        MismatchError: a shard is gone, and another run has committed since `seen`.
        StorageError: a folder that is written to is a link.
        RetrievalError: a photo is neither embedded nor refused.

    Cost: reads the ids, sizes and times of all rows. Memory is bounded (1 GiB for the
        comparison), but for the rows that are new.
    """
    check_no_link(uri, STAGING, REJECTS)
    with compare(uri, seen, spec, listed, night) as sides:
        difference, shards, num_live = sides.difference, sides.shards, sides.num_live
        doubtful = sides.doubtful
        difference.settle(hands.hash_photos(doubtful) if doubtful.num_rows else _NO_HASHES)
        reached("compared")
        photos = difference.to_embed()
        fresh = hands.embed(photos, night) if photos.num_rows else []
        reached("embedded")
        kept, sources = _carry(difference, shards, num_live, night, hands)
        reached("carried")
        rejects = pa.concat_tables(
            [
                difference.still_refused().cast(INDEX_REJECT_SCHEMA),
                read_own_rejects(uri, fresh),
            ]
        ).sort_by("image_id")
        counts = _count(difference, num_live, fresh, rejects)
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
        spec=sides.spec,
        shards=tuple(sorted(new, key=lambda shard: shard.path)),
        run={**run, "sources": sources},
    )
    return Candidate(
        index=index,
        seen_version=seen_version,
        is_unchanged=is_unchanged,
        rejects=rejects,
        counts=counts,
        receipts=(*sides.receipts, *sides.useless, *fresh),
    )


def publish(candidate: Candidate) -> int:
    """Commit a candidate; gives the version that is current then.

    Raises:
        MismatchError: another run has committed since it was begun.
        VacuumedError: a shard or its rejects are gone, or a vacuum is about to remove them.
        StorageError: a shard is not whole, or the log cannot be written.
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
        rejects=rejects,
    )
    with suppress(StorageError):  # the night has succeeded; the next one tidies up
        discard(index.uri, candidate.receipts)
    reached("published")
    return version


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
    path = rejects_path(seen.run, uri)
    return read_rejects(uri, [path] if path else []).sort_by("image_id").combine_chunks()
