"""What an update would do, as far as the listing tells without reading a photo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from retrieval.index.compaction import plan_shards
from retrieval.index.schema import EmbeddingSpec
from retrieval.index.table import Index
from retrieval.index.update_plan import UpdateOptions, UpdatePlan, plan_update

__all__ = ["UpdateEstimate", "estimate_update"]


@dataclass(frozen=True, kw_only=True)
class UpdateEstimate:
    """What would become of how many photos, and what is read for it.

    Attributes:
        num_listed: All photos.
        num_unchanged: By size and time; their rows stay.
        num_resumed: Of them, in shards of a killed run.
        num_new: With an id that has no row.
        num_changed: With another size than that of their row.
        num_touched: With another time, or changed just when they were listed last: their content
            tells whether they have changed.
        num_perhaps_moved: Of the new and changed ones, with the size of a row that lost its
            photo: their content tells whether its embedding is theirs.
        num_refused_before: Rejects that have not changed since.
        num_removed: Rows whose photo is gone from its place; those that moved are among them.
        num_unlabelled: Photos without a label.
        hash_bytes: Of the files that are read for their hash alone.
        embed_bytes: Of the files that are embedded, if no touched one has changed and none has
            moved.
        touched_bytes: Of the touched ones.
        num_rewritten_shards, rewritten_bytes: Shards that are read and written anew, at most.
    """

    num_listed: int
    num_unchanged: int
    num_resumed: int
    num_new: int
    num_changed: int
    num_touched: int
    num_perhaps_moved: int
    num_refused_before: int
    num_removed: int
    num_unlabelled: int
    hash_bytes: int
    embed_bytes: int
    touched_bytes: int
    num_rewritten_shards: int
    rewritten_bytes: int

    @property
    def num_to_hash(self) -> int:
        """Photos whose content must be read before it is known what becomes of them."""
        return self.num_touched + self.num_perhaps_moved

    @property
    def least_to_embed(self) -> int:
        """Photos to embed if none of those to hash needs it."""
        return self.num_new + self.num_changed - self.num_perhaps_moved

    @property
    def most_to_embed(self) -> int:
        """Photos to embed if all of those to hash need it."""
        return self.num_new + self.num_changed + self.num_touched


def estimate_update(
    uri: str,
    seen: Index | None,
    spec: EmbeddingSpec,
    listed: Iterable[pa.RecordBatch],
    options: UpdateOptions,
) -> UpdateEstimate:
    """Compare as an update does, and stop there. Writes nothing to the index.

    Arguments, errors and cost are those of `plan_update`; no photo is read.
    """
    with plan_update(uri, seen, spec, listed, options) as plan:
        difference, none = plan.difference, (0, 0)
        totals = difference.totals()
        new = totals.get(("new", False), none)
        changed = totals.get(("new", True), none)
        touched = totals.get(("doubtful", True), none)
        num_same = totals.get(("same", True), none)[0]
        num_resumed = difference.num_of_later(plan.num_live)
        is_anything_new = bool(new[0] + changed[0] + touched[0])
        num_rewritten, rewritten_bytes = _rewritten(plan, is_anything_new=is_anything_new)
        return UpdateEstimate(
            num_listed=sum(num for num, _ in totals.values()),
            num_unchanged=num_same,
            num_resumed=num_resumed,
            num_new=new[0],
            num_changed=changed[0],
            num_touched=touched[0],
            num_perhaps_moved=plan.to_hash.num_rows - touched[0],
            num_refused_before=totals.get(("rejected", False), none)[0],
            num_removed=difference.num_removed(plan.num_live),
            num_unlabelled=difference.num_unlabelled(),
            hash_bytes=pc.sum(plan.to_hash["size_bytes"]).as_py() or 0,
            embed_bytes=new[1] + changed[1],
            touched_bytes=touched[1],
            num_rewritten_shards=num_rewritten,
            rewritten_bytes=rewritten_bytes,
        )


def _rewritten(plan: UpdatePlan, *, is_anything_new: bool) -> tuple[int, int]:
    """Shards that would be read and written anew if every photo to hash had changed."""
    usages = plan.usages()
    if not is_anything_new and all(usage.is_live and usage.is_whole for usage in usages):
        return 0, 0  # an update without a change joins no shards either
    _, groups = plan_shards(usages, plan.options.shard_rows)
    read = [plan.shards[place] for group in groups for place in group]
    return len(read), sum(shard.size_bytes for shard in read)
