"""The job: list → compare → hash → embed → rewrite → commit."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

from pipelines.embed.config import EmbedConfig
from pipelines.embed.executor import Embedded, Executor, RayExecutor
from pipelines.embed.inputs import check_places, labelled
from pipelines.embed.model import Network, check_same_model, describe_input
from pipelines.embed.report import EmbedReport
from pipelines.embed.update import Attempts, Update, start
from pipelines.progress import announce, status_line
from pipelines.ray_runtime.cluster_options import Site
from retrieval.errors import StorageError
from retrieval.images import Reason
from retrieval.index import (
    Candidate,
    failures_recorded,
    finish,
    open_index,
    plan_update,
    write_record,
)
from retrieval.index import publish as commit
from retrieval.storage import absolute_uri, join

__all__ = ["Prepared", "prepare", "publish", "run"]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An index's next version, written and not committed.

    Attributes:
        update: What it was made from.
        candidate: The version.
        embedded: What was embedded for it.
    """

    update: Update
    candidate: Candidate
    embedded: Embedded


def run(
    photos: str,
    index: str,
    config: EmbedConfig,
    *,
    site: Site = Site(),
    network: Network | None = None,
    executor: Executor | None = None,
) -> EmbedReport:
    """Make the index's next version: what the gallery holds now.

    Args:
        photos: Folder or address of the gallery, or a manifest of it.
        index: Folder or address of the index.
        config: Settings.
        site: Where it runs.
        network: The network that the settings mean, where it is loaded already.
        executor: Who does the work; by default Ray, which ends with the run.

    Returns:
        The report: counts, version, model, seconds of each step.

    Raises:
        RetrievalError: see the head of the package.
    """
    photos, index = absolute_uri(photos), absolute_uri(index)
    check_places(photos, index, config)
    with failures_recorded(index, {"photos": photos, "settings": config.recorded()}, announce):
        for attempt in Attempts(start(photos, index, config, network=network)):
            with attempt as update:
                ours = RayExecutor(site, update.laps) if executor is None else nullcontext(executor)
                with ours as does_it:
                    prepared = prepare(update, does_it)
                report = publish(prepared)
    return replace(report, stamp=write_record(index, report.run_id, report.to_json(), announce))


def prepare(update: Update, executor: Executor) -> Prepared:
    """Write the next version of an index, and commit nothing.

    What was embedded is kept, whatever comes: the next update takes it over.

    Args:
        update: Of `start`.
        executor: Who hashes, embeds and rewrites.

    Raises:
        VacuumedError: work that was taken up, or just done, has been removed meanwhile.
        MismatchError: another run has committed meanwhile.
        RetrievalError: see the head of the package.
    """
    config, seen, spec = update.config, update.seen, update.network.spec
    check_same_model(config, seen, spec, update.listing.count)
    listed = labelled(update.listing.batches, config.labels, update.label)
    with status_line("comparing the gallery with what is embedded"):
        with plan_update(update.index, seen, spec, listed, update.options) as plan:
            plan.settle(executor.hash_images(plan.to_hash, update))
            embedded = executor.embed(plan.to_embed(), update)
            rewritten = executor.compact(plan.rewrites, update)
            candidate = finish(plan, embedded.receipts, rewritten)
        update.laps.end("compare")
    _check_not_empty(update.photos, candidate)
    return Prepared(update=update, candidate=candidate, embedded=embedded)


def publish(prepared: Prepared) -> EmbedReport:
    """Commit a version; gives the report, which is not recorded yet.

    Raises:
        VacuumedError: a shard or its rejects are gone, or a vacuum is about to remove them.
        MismatchError: another run has committed since it was begun.
        StorageError: a shard is not whole, or the log cannot be written.
    """
    version = commit(prepared.candidate)
    prepared.update.laps.end("commit")
    return _report(prepared, version)


def _check_not_empty(photos: str, candidate: Candidate) -> None:
    """A version without an image is a mistake."""
    counts, rejects = candidate.counts, candidate.rejects
    if not candidate.index.num_rows:
        why = ", ".join(f"{count} {reason}" for reason, count in counts.reject_reasons.items())
        first = rejects.slice(0, 1).to_pylist()[0]
        hint = " See `follow_links`." if Reason.LINK_OUTSIDE in counts.reject_reasons else ""
        raise StorageError(
            f"{photos}: none of the {counts.num_listed} files can be embedded ({why}; such as "
            f"{first['image_id']}: {first['message']}). A folder that holds photos is needed; "
            f"nothing was committed.{hint}"
        )


def _report(prepared: Prepared, version: int) -> EmbedReport:
    update, candidate, embedded = prepared.update, prepared.candidate, prepared.embedded
    index, counts, seconds = candidate.index, candidate.counts, update.laps.seconds
    rate = counts.num_embedded / seconds["embed"] if "embed" in seconds else None
    rejects = open_index(index.uri, version).run.get("rejects")
    return EmbedReport(
        index=index.uri,
        photos=update.photos,
        version_before=candidate.seen_version,
        version=version,
        run_id=index.run["run_id"],
        created_at=index.run["created_at"],
        listed_us=index.run["listed_us"],
        counts=counts,
        num_rows=index.num_rows,
        rejects=rejects and join(index.uri, rejects),
        model=index.spec,
        settings=index.run["settings"],
        precision=dict(embedded.precision),
        photos_per_s=rate and round(rate, 1),
        stages=embedded.stages,
        seconds=dict(seconds),
        preprocessing=describe_input(
            update.network.preprocessing, update.asked, update.config, update.seen
        ),
    )
