"""The gate: a version is measured before anybody sees it, on a probe and by what it lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipelines import rank
from pipelines.progress import announce
from pipelines.rank import RankConfig
from pipelines.ray_runtime.cluster_options import Site
from pipelines.reindex.config import GateConfig, ReindexConfig
from pipelines.reindex.sides import PROBE_RANKINGS
from retrieval.errors import GateError, MismatchError, StorageError
from retrieval.evaluation import evaluate
from retrieval.evaluation.overlap import compare_rankings
from retrieval.index import Candidate, Index, open_index, save_candidate, write_record
from retrieval.maintenance.version_diff import compare_versions
from retrieval.ranking.files import open_ranking, remove_ranking
from retrieval.storage import entries, entry_at, join, remove_written

__all__ = ["GateFigures", "ProbeFigures", "Removed", "forget_older", "pass_gate"]

# Pairs of a probe and a gallery that are ranked whole, for the exact mAP; of more than these each
# query lists its _DEPTH nearest, and mAP counts these.
_MOST_PAIRS = 20_000_000
_DEPTH = 1000


@dataclass(frozen=True, kw_only=True)
class Removed:
    """How much of the version before a new one lacks.

    Attributes:
        num_removed: Images whose id is gone and whose content has no new one: they left the
            gallery, or can no longer be read.
        first_removed: One of them.
        removed: Their share; None where there is no version before.
    """

    num_removed: int
    first_removed: str | None
    removed: float | None


@dataclass(frozen=True, kw_only=True)
class ProbeFigures:
    """What a version makes of the probe.

    Attributes:
        accuracies: top_1, top_3, top_10 and map as `evaluate` has them; of a large gallery
            map_at_1000 in place of map.
        overlap: Mean share of each query's nearest that the version before listed too; None
            where there is none to compare with.
    """

    accuracies: Mapping[str, float]
    overlap: float | None


@dataclass(frozen=True, kw_only=True)
class GateFigures:
    """Figures of a version before it is committed.

    Attributes:
        removed: What it lacks; None where that is not asked.
        probe: Of the probe; None where there is none.
        candidate: The address at which the version is kept aside; None once it is committed.
    """

    removed: Removed | None
    probe: ProbeFigures | None
    candidate: str | None

    def to_json(self) -> dict[str, Any]:
        """The figures as the record of the night has them."""
        found = asdict(self.removed) if self.removed else {}
        if self.probe:
            found |= {**self.probe.accuracies, "overlap": self.probe.overlap}
        return found if self.candidate is None else {**found, "candidate": self.candidate}


def pass_gate(
    candidate: Candidate, probe: str | None, config: ReindexConfig, site: Site
) -> GateFigures | None:
    """Measure a version that is not committed yet, and refuse it if it will not do.

    Args:
        candidate: The version.
        probe: Address of the probe's index, if there is one.
        config: Settings of the night.
        site: Where the probe is ranked.

    Returns:
        The figures; None where none is asked for, or the version says nothing new.

    Raises:
        GateError: the version was refused; its record is written.
        UsageError: no image of the probe has a label.
    """
    gate = config.gate
    if candidate.is_unchanged or (probe is None and gate.max_removed is None):
        return None
    removed = None if gate.max_removed is None else count_removed(candidate)
    address = save_candidate(candidate.index)
    measured = None
    if probe is not None:
        measured = _measure(candidate, address, probe, gate.overlap_k, config.rank.metric, site)
    figures = GateFigures(removed=removed, probe=measured, candidate=address)
    try:
        judge(candidate, figures, gate)
    except GateError as error:
        record = {
            **candidate.index.run,
            "status": "refused",
            "gate": figures.to_json(),
            "message": str(error),
        }
        run_id = candidate.index.run["run_id"]
        stamp = write_record(candidate.index.uri, run_id, record, announce)
        error.record = {**record, **asdict(stamp)}
        raise
    return figures


def _measure(
    candidate: Candidate, address: str, probe: str, overlap_k: int, metric: str, site: Site
) -> ProbeFigures:
    """Rank the probe against a version.

    Its ranking stays in INDEX/_probe_rankings/RUN_ID: the next night compares with it, also
    where the model is another one then.
    """
    index = candidate.index
    num_pairs = index.num_rows * open_index(probe).num_rows
    depth = None if num_pairs <= _MOST_PAIRS else min(_DEPTH, index.num_rows)
    ranking = _ranking_of(index)
    rank.run(probe, address, ranking, RankConfig(top_k=depth, metric=metric), site=site)
    ks = [k for k in (1, 3, 10) if k <= index.num_rows]
    found = evaluate(ranking, probe, address, [*ks, *([depth] if depth else [])]).to_json()
    map_name = f"map_at_{depth}" if depth else "map"
    return ProbeFigures(
        accuracies={name: found[name] for name in (*(f"top_{k}" for k in ks), map_name)},
        overlap=_overlap(candidate, probe, metric, overlap_k, site),
    )


def count_removed(candidate: Candidate) -> Removed:
    """How much of the version before a new one lacks.

    Cost: reads ids and hashes of the shards that are in one of the two versions alone.
    """
    if candidate.seen_version is None:
        return Removed(num_removed=0, first_removed=None, removed=None)
    before = open_index(candidate.index.uri, candidate.seen_version)
    changes = compare_versions(before, candidate.index, num_examples=1)
    num_removed = changes.counts["removed"]
    return Removed(
        num_removed=num_removed,
        first_removed=next(iter(changes.examples["removed"]), None),
        removed=num_removed / before.num_rows if before.num_rows else None,
    )


def _ranking_of(index: Index) -> str:
    return join(index.uri, PROBE_RANKINGS, _maker(index))


def _maker(index: Index) -> str:
    """The run that made a version's content; a vacuum only repeats it."""
    return str(index.run.get("repeated_run_id", index.run.get("run_id")))


def _overlap(candidate: Candidate, probe: str, metric: str, k: int, site: Site) -> float | None:
    """With the version before: its kept ranking, or one made now if the model is the same."""
    if candidate.seen_version is None:
        return None
    ours = open_ranking(_ranking_of(candidate.index))
    seen = open_index(candidate.index.uri, candidate.seen_version)
    kept = _ranking_of(seen)
    try:
        return compare_rankings(open_ranking(kept), ours, k=k).mean_overlap
    except (StorageError, MismatchError):  # there is none, or it is of another probe
        if not seen.spec.makes_same(candidate.index.spec):
            return None
    settings = RankConfig(top_k=min(k, seen.num_rows), metric=metric)
    address = f"{seen.uri}@{seen.version}"
    rank.run(probe, address, kept, settings, site=site, is_kept_inside=True)
    return compare_rankings(open_ranking(kept), ours, k=k).mean_overlap


def judge(candidate: Candidate, figures: GateFigures, config: GateConfig) -> None:
    """Refuse a version whose figures are too low, or that lacks too much.

    The first version has none before it: neither overlap nor a share removed is asked of it.

    Args:
        candidate: The version.
        figures: What was measured.
        config: The bounds.

    Raises:
        GateError: what was found, and what was needed; the version before stays.
    """
    is_first = candidate.seen_version is None
    known = figures.to_json()
    faults = []
    for name, least in config.bounds().items():
        shown = next((key for key in known if name == "map" and key.startswith("map")), name)
        value = known.get(shown)
        if value is None and name == "overlap" and is_first:
            continue
        if value is not None and value >= least:
            continue
        found = f"{shown} is unknown" if value is None else f"{shown} {value:.4g}"
        faults.append(f"{found}, at least {least:g} is needed (`min_{name}`)")
    lacks, most = figures.removed, config.max_removed
    if lacks and lacks.removed is not None and most is not None and lacks.removed > most:
        faults.append(
            f"{lacks.removed:.4g} of the images are gone ({lacks.num_removed}, such as "
            f"{lacks.first_removed!r}), at most {most:g} may be (`max_removed`)"
        )
    if faults:
        index = candidate.index
        stays = "there is still no version" if is_first else f"version {index.version - 1} stays"
        raise GateError(
            f"{index.uri}: the new version is refused: {'; '.join(faults)}. Nothing was committed, "
            f"{stays}; look at the candidate {figures.candidate}, and run again with other "
            f"bounds to take it without embedding anew."
        )


def forget_older(index: Index) -> None:
    """Remove rankings of the probe that no next night compares with; see `measure`."""
    folder = join(index.uri, PROBE_RANKINGS)
    place = entry_at(folder)
    if place is None or place.kind != "folder":
        return
    within = [entry.path.partition("/")[0] for entry in entries(folder) if "/" in entry.path]
    for name in {*within} - {_maker(index)}:
        remove_ranking(join(folder, name))
        remove_written(index.uri, [], folders=[f"{PROBE_RANKINGS}/{name}"])
