"""The quality gate: a version is measured on a labelled probe before anybody sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines import evaluate, rank
from pipelines.cluster.site import Site
from pipelines.rank import RankConfig
from pipelines.reindex.config import GateConfig
from pipelines.reindex.places import PROBE_RANKINGS
from retrieval.churn import compare_rankings
from retrieval.errors import GateError, MismatchError, StorageError
from retrieval.index import Candidate, Index, open_index, save_candidate
from retrieval.rankings import open_ranking, remove_ranking
from retrieval.storage import entries, entry_at, join, remove_written

__all__ = ["forget_older", "judge", "measure"]

# Pairs of a probe and a gallery that are ranked whole, for the exact mAP; of more than these each
# query lists its _DEPTH nearest, and mAP counts these.
_MOST_PAIRS = 20_000_000
_DEPTH = 1000


def measure(
    candidate: Candidate, probe: str, config: GateConfig, metric: str, site: Site
) -> dict[str, Any]:
    """Figures of a version that is not committed yet.

    The ranking of the probe stays in INDEX/_probe_rankings/RUN_ID: the next night compares with
    it, also where the model is another one then.

    Args:
        candidate: The version.
        probe: Index of the probe.
        config: Of the gate.
        metric: How near is told.
        site: Where it is ranked.

    Returns:
        top_1, top_3, top_10 and map (as `evaluate` has them), overlap (None where there is no
        version before to compare with), and the address of the candidate.

    Raises:
        UsageError: no image of the probe has a label.
    """
    index = candidate.index
    address = save_candidate(index)
    num_pairs = index.num_rows * open_index(probe).num_rows
    depth = None if num_pairs <= _MOST_PAIRS else min(_DEPTH, index.num_rows)
    ranking = _ranking_of(index)
    rank.run(probe, address, ranking, RankConfig(top_k=depth, metric=metric), site=site)
    ks = [k for k in (1, 3, 10) if k <= index.num_rows]
    figures = evaluate.run(ranking, probe, address, ks=[*ks, *([depth] if depth else [])])
    return {
        **{f"top_{k}": figures[f"top_{k}"] for k in ks},
        "map": figures[f"map_at_{depth}" if depth else "map"],
        "overlap": _overlap(candidate, probe, metric, config.overlap_k, site),
        "candidate": address,
    }


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


def judge(candidate: Candidate, figures: Mapping[str, Any], config: GateConfig) -> None:
    """Refuse a version whose figures are too low.

    The first version has none before it, and no overlap is asked of it.

    Raises:
        GateError: what was found, and what was needed; the version before stays.
    """
    is_first = candidate.seen_version is None
    faults = []
    for name, least in config.bounds().items():
        value = figures.get(name)
        if value is None and name == "overlap" and is_first:
            continue
        if value is not None and value >= least:
            continue
        found = f"{name} is unknown" if value is None else f"{name} {value:.4g}"
        option = f"--min-{name.replace('_', '-')}"
        faults.append(f"{found}, at least {least:g} is needed ({option})")
    if faults:
        index = candidate.index
        stays = "there is still no version" if is_first else f"version {index.version - 1} stays"
        raise GateError(
            f"{index.uri}: the new version is refused: {'; '.join(faults)}. Nothing was committed, "
            f"{stays}; look at the candidate {figures['candidate']}, and run again with other "
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
