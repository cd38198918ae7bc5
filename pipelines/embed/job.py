"""The job: list → compare → embed → carry → check → commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from pipelines.cluster.site import Site
from pipelines.embed.config import EmbedConfig
from pipelines.embed.hands import RayHands
from pipelines.embed.inputs import Listing, check_output, labelled, load_model, plan_night
from pipelines.laps import Laps
from pipelines.progress import announce, status_line
from retrieval.errors import MismatchError, StorageError
from retrieval.images import Reason
from retrieval.index import (
    Candidate,
    failures_recorded,
    open_index,
    prepare,
    publish,
    write_record,
)
from retrieval.labels import labeller
from retrieval.storage import absolute_uri, check_writable, join

__all__ = ["Gate", "run"]

# Called with the next version before it is committed. Gives what the report is to say of it, or
# raises a RetrievalError: then the version that is there stays.
Gate = Callable[[Candidate], Mapping[str, Any] | None]


def run(
    photos: str,
    index: str,
    config: EmbedConfig,
    *,
    site: Site = Site(),
    gate: Gate | None = None,
) -> dict[str, Any]:
    """Make the index's next version: what the gallery holds now.

    Args:
        photos: Folder or address of the gallery, or a manifest of it.
        index: Folder or address of the index.
        config: Settings.
        site: Where it runs.
        gate: Judges the version before it is committed.

    Returns:
        The report: counts, version, model, seconds of each step.

    Raises:
        RetrievalError: see the head of this module.
    """
    photos, index = absolute_uri(photos), absolute_uri(index)
    facts = {"photos": photos, "settings": config.recorded()}
    with failures_recorded(index, facts, announce):
        return _run(photos, index, config, site, gate)


def _run(
    photos: str, index: str, config: EmbedConfig, site: Site, gate: Gate | None
) -> dict[str, Any]:
    laps = Laps()
    seen = check_output(photos, index)
    check_writable(index)
    label, listing = labeller(config.labels), Listing(photos, follow_links=config.follow_links)
    laps.end("list")
    with status_line(f"loading {config.model or config.backbone}"):
        settings, spec = load_model(config)
    laps.end("load_model")
    while True:
        night = plan_night(listing, seen, spec, config)
        with RayHands(index, settings, spec, config, laps, site) as hands:
            listed = labelled(listing.batches, config.labels, label)
            with status_line("comparing the gallery with what is embedded"):
                candidate = prepare(index, seen, spec, listed, night, hands)
            laps.end("compare")
        _check_not_empty(photos, candidate)
        verdict = _judge(candidate, gate, laps)
        version = _publish(candidate, laps, may_lose=config.rebase)
        if version is not None:
            report = _report(photos, candidate, version, hands, laps) | verdict
            return write_record(index, night.run_id, report, announce)
        seen, listing = open_index(index), Listing(photos, follow_links=config.follow_links)


def _judge(candidate: Candidate, gate: Gate | None, laps: Laps) -> dict[str, Any]:
    """What the gate says, for the report."""
    if gate is None or candidate.is_unchanged:
        return {}
    found = gate(candidate)
    laps.end("gate")
    return {} if found is None else {"gate": found}


def _publish(candidate: Candidate, laps: Laps, *, may_lose: bool) -> int | None:
    """The version that is current then; None where another run was faster, and that may be."""
    try:
        version = publish(candidate)
    except MismatchError as error:
        if not may_lose:
            raise
        announce(f"{error} Going on from there, as --rebase asks.")
        return None
    laps.end("commit")
    return version


def _check_not_empty(photos: str, candidate: Candidate) -> None:
    """A version without a photo is a mistake."""
    counts, rejects = candidate.counts, candidate.rejects
    if not candidate.index.num_rows:
        why = ", ".join(f"{count} {reason}" for reason, count in counts["reject_reasons"].items())
        first = rejects.slice(0, 1).to_pylist()[0]
        hint = " See --follow-links." if Reason.LINK_OUTSIDE in counts["reject_reasons"] else ""
        raise StorageError(
            f"{photos}: none of the {counts['num_listed']} files can be embedded ({why}; such as "
            f"{first['image_id']}: {first['message']}). A folder that holds photos is needed; "
            f"nothing was committed.{hint}"
        )


def _report(
    photos: str, candidate: Candidate, version: int, hands: RayHands, laps: Laps
) -> dict[str, Any]:
    index, counts = candidate.index, candidate.counts
    rate = counts["num_embedded"] / laps.seconds["embed"] if "embed" in laps.seconds else None
    run_id = index.run["run_id"]
    rejects = open_index(index.uri, version).run.get("rejects")
    return {
        "index": index.uri,
        "photos": photos,
        "status": "unchanged" if version == candidate.seen_version else "committed",
        "version": version,
        "version_before": candidate.seen_version,
        "version_after": version,
        "run_id": run_id,
        "created_at": index.run["created_at"],
        "listed_us": index.run["listed_us"],
        **counts,
        "num_rows": index.num_rows,
        "rejects": rejects and join(index.uri, rejects),
        "model": asdict(index.spec),
        "settings": index.run["settings"],
        "precision": hands.manners(),
        "photos_per_s": rate and round(rate, 1),
        "stages": hands.stages,
        "seconds": laps.seconds,
    }
