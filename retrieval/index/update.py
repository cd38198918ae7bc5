"""One update: a listed gallery becomes the index's next version, with as little work as can be.

    with plan_update(...) as plan:                   what must be done
        plan.settle(...), then embed and compact     whoever does the work: a cluster, or a loop
        candidate = finish(plan, receipts, shards)   the next version, written and not committed
    publish(candidate)                               the next version

The order of the steps is what makes it safe. Nothing that readers see changes before the
commit; what was embedded is staged with a receipt as soon as it is written; the commit is one
compare-and-swap on the version that was open at the beginning. Killed anywhere, the next
update finds either the old version and the receipts, or the new version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import pyarrow as pa

from retrieval.errors import RetrievalError, StorageError
from retrieval.failpoints import reached
from retrieval.index.commit import commit_index
from retrieval.index.rejects import rejects_path
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
from retrieval.index.update_plan import UpdatePlan

__all__ = ["Candidate", "UpdateCounts", "finish", "publish"]


@dataclass(frozen=True, kw_only=True)
class UpdateCounts:
    """What became of the images of a gallery.

    Attributes:
        num_listed: All.
        num_embedded: By this run.
        num_removed: Rows of the version before whose image is gone from its place.
        num_unchanged: Their rows stay.
        num_moved: They have the embedding of an id that is gone.
        num_resumed: Embedded by a run that was killed.
        num_rejected: That cannot be embedded.
        num_rejected_now: Of these, found by this run.
        reject_reasons: How many for which reason, the commonest first.
        num_unlabelled: Without a label.
    """

    num_listed: int
    num_embedded: int
    num_removed: int
    num_unchanged: int
    num_moved: int
    num_resumed: int
    num_rejected: int
    num_rejected_now: int
    reject_reasons: Mapping[str, int]
    num_unlabelled: int


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The next version, written but not committed.

    Attributes:
        index: As it will be; its version is the number that it will have.
        seen_version: The version that it was made from; None if there was no index.
        is_unchanged: Whether it says nothing that this version does not say.
        rejects: Rows of INDEX_REJECT_SCHEMA, by id.
        counts: What became of the images.
        receipts: Of the work in it, and of what no run can use any more.
    """

    index: Index
    seen_version: int | None
    is_unchanged: bool
    rejects: pa.Table
    counts: UpdateCounts
    receipts: tuple[Receipt, ...]


def finish(plan: UpdatePlan, receipts: Sequence[Receipt], rewritten: Sequence[Shard]) -> Candidate:
    """The next version, of all that was done for a plan; call it while that is open.

    Args:
        plan: The plan, settled.
        receipts: Of `plan.to_embed()`: each of these images is in a staged shard, or in staged
            rejects.
        rewritten: The shards that were written of `plan.rewrites`, in its order.

    Raises:
        VacuumedError: rejects of this run have been removed meanwhile.
        StorageError: they cannot be read back.
        RetrievalError: an image is neither embedded nor refused.
    """
    rewrites, seen, options = plan.rewrites, plan.seen, plan.options
    reached("carried")
    rejects = pa.concat_tables(
        [
            plan.difference.still_refused().cast(INDEX_REJECT_SCHEMA),
            read_own_rejects(plan.uri, receipts),
        ]
    ).sort_by("image_id")
    counts = _count(plan, receipts, rejects)
    new = [*rewrites.stay, *rewritten, *(receipt.shard for receipt in receipts if receipt.shard)]
    is_unchanged = (
        seen is not None
        and set(seen.shards) == set(new)
        and _rejects_of(plan.uri, seen).equals(rejects.combine_chunks())
    )
    sources = {
        shard.path: origins
        for shard, origins in zip(rewritten, rewrites.origins, strict=True)
        if origins
    }
    run = {
        "run_id": options.run_id,
        "listed_us": options.listed_us,
        **options.recorded,
        **asdict(counts),
    }
    seen_version = None if seen is None else seen.version
    index = Index(
        uri=plan.uri,
        version=0 if seen_version is None else seen_version + 1,
        spec=plan.spec,
        shards=tuple(sorted(new, key=lambda shard: shard.path)),
        run={**run, "sources": sources},
    )
    return Candidate(
        index=index,
        seen_version=seen_version,
        is_unchanged=is_unchanged,
        rejects=rejects,
        counts=counts,
        receipts=(*plan.receipts, *plan.useless, *receipts),
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
    with suppress(StorageError):  # the update has succeeded; the next one tidies up
        discard(index.uri, candidate.receipts)
    reached("published")
    return version


def _count(plan: UpdatePlan, receipts: Sequence[Receipt], rejects: pa.Table) -> UpdateCounts:
    """What became of every image; each must be in one place, or the update is no good."""
    difference, num_live = plan.difference, plan.num_live
    states = difference.num_of_states()
    num_embedded = sum(receipt.shard.num_rows for receipt in receipts if receipt.shard)
    num_refused = rejects.num_rows - states["rejected"]
    if num_embedded + num_refused != states["new"]:
        raise RetrievalError(
            f"{states['new']} photos were to be embedded, but {num_embedded} are and "
            f"{num_refused} were refused. This is a defect of the job; nothing was committed."
        )
    num_resumed = difference.num_of_later(num_live)
    return UpdateCounts(
        num_listed=states.total(),
        num_embedded=num_embedded,
        num_removed=difference.num_removed(num_live),
        num_unchanged=states["same"] - num_resumed,
        num_moved=states["moved"],
        num_resumed=num_resumed,
        num_rejected=rejects.num_rows,
        num_rejected_now=num_refused,
        reject_reasons=dict(Counter(rejects["reason"].to_pylist()).most_common()),
        num_unlabelled=difference.num_unlabelled(),
    )


def _rejects_of(uri: str, seen: Index) -> pa.Table:
    path = rejects_path(seen.run, uri)
    return read_rejects(uri, [path] if path else []).sort_by("image_id").combine_chunks()
