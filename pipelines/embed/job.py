"""The job: list → compare → embed → carry → check → commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.embed.config import EmbedConfig
from pipelines.embed.executor import RayHands
from pipelines.embed.inputs import Listing, check_output, check_places, labelled, plan_night
from pipelines.embed.model import check_same_model, complete, describe_input, load_model
from pipelines.progress import announce, status_line
from pipelines.ray_runtime.cluster_options import Site
from pipelines.step_timer import Laps
from retrieval.errors import MismatchError, StorageError, VacuumedError
from retrieval.gallery.labels import labeller
from retrieval.images import Reason
from retrieval.index import (
    Candidate,
    EmbeddingSpec,
    Index,
    failures_recorded,
    is_index,
    open_index,
    prepare,
    publish,
    write_record,
)
from retrieval.storage import absolute_uri, check_writable, join

__all__ = ["Gate", "run"]

# Whose work is removed again and again works beside `vacuum --force`, which is not meant for that.
_MOST_VACUUMED = 3
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
    check_places(photos, index, config)
    facts = {"photos": photos, "settings": config.recorded()}
    with failures_recorded(index, facts, announce):
        return _run(photos, index, config, site, gate)


def _run(
    photos: str, index: str, config: EmbedConfig, site: Site, gate: Gate | None
) -> dict[str, Any]:
    laps = Laps()
    seen = check_output(index)
    check_writable(index)
    asked, config = config, complete(config, seen)
    label, listing = labeller(config.labels), Listing(photos, follow_links=config.follow_links)
    laps.end("list")
    check_same_model(config, seen, None, listing.count)
    with status_line(f"loading {config.model or config.network}"):
        model = load_model(config)
    laps.end("load_model")
    attempt = _Attempt(index, model, label, asked, config, site, gate, laps)
    num_vacuumed = 0
    while True:
        try:
            report = attempt.run(seen, listing)
            return write_record(index, report["run_id"], report, announce)
        except VacuumedError as error:
            num_vacuumed += 1
            if num_vacuumed == _MOST_VACUUMED:
                raise
            announce(f"{error} Embedding what is gone once more.")
        except MismatchError as error:
            if not (config.rebase and _is_overtaken(index, seen)):
                raise
            announce(f"{error} Going on from there, as `rebase` asks.")
        seen = check_output(index)
        listing = Listing(photos, follow_links=config.follow_links)


@dataclass(frozen=True)
class _Attempt:
    """A version, from its listing to its commit; what does not change if it must begin anew."""

    index: str
    model: tuple[dict[str, Any], EmbeddingSpec]
    label: Callable[[str], str | None]
    asked: EmbedConfig
    config: EmbedConfig
    site: Site
    gate: Gate | None
    laps: Laps

    def run(self, seen: Index | None, listing: Listing) -> dict[str, Any]:
        """Gives the report."""
        config, laps, (settings, spec) = self.config, self.laps, self.model
        check_same_model(config, seen, spec, listing.count)
        preprocessing = settings["preprocessing"]
        night = plan_night(listing, seen, spec, config, preprocessing)
        with RayHands(self.index, settings, spec, config, laps, self.site) as hands:
            listed = labelled(listing.batches, config.labels, self.label)
            with status_line("comparing the gallery with what is embedded"):
                candidate = prepare(self.index, seen, spec, listed, night, hands)
            laps.end("compare")
        _check_not_empty(listing.photos, candidate)
        verdict = _judge(candidate, self.gate, laps)
        version = publish(candidate)
        laps.end("commit")
        return {
            **_report(listing.photos, candidate, version, hands, laps),
            "preprocessing": describe_input(preprocessing, self.asked, config, seen),
            **verdict,
        }


def _is_overtaken(index: str, seen: Index | None) -> bool:
    return is_index(index) and (seen is None or open_index(index).version != seen.version)


def _judge(candidate: Candidate, gate: Gate | None, laps: Laps) -> dict[str, Any]:
    """What the gate says, for the report."""
    if gate is None or candidate.is_unchanged:
        return {}
    found = gate(candidate)
    laps.end("gate")
    return {} if found is None else {"gate": found}


def _check_not_empty(photos: str, candidate: Candidate) -> None:
    """A version without a photo is a mistake."""
    counts, rejects = candidate.counts, candidate.rejects
    if not candidate.index.num_rows:
        why = ", ".join(f"{count} {reason}" for reason, count in counts["reject_reasons"].items())
        first = rejects.slice(0, 1).to_pylist()[0]
        hint = " See `follow_links`." if Reason.LINK_OUTSIDE in counts["reject_reasons"] else ""
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
