"""The gate: a version is measured before anybody sees it, on a probe and by what it lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines import rank
from pipelines.rank import RankConfig
from pipelines.ray_runtime.cluster_options import Site
from pipelines.reindex.config import GateConfig
from pipelines.reindex.places import PROBE_RANKINGS
from retrieval.errors import GateError, MismatchError, StorageError
from retrieval.evaluation import evaluate
from retrieval.evaluation.overlap import compare_rankings
from retrieval.index import Candidate, Index, open_index, save_candidate
from retrieval.maintenance.version_diff import compare_versions
from retrieval.ranking.files import open_ranking, remove_ranking
from retrieval.storage import entries, entry_at, join, remove_written

__all__ = ["count_removed", "forget_older", "judge", "measure"]

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
        top_1, top_3, top_10 and map as `evaluate` has them, of a large gallery map_at_1000 in
        place of map; overlap (None where there is no version before to compare with); and
        candidate, the address at which the version is kept aside.

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
    found = evaluate(ranking, probe, address, [*ks, *([depth] if depth else [])]).to_json()
    map_name = f"map_at_{depth}" if depth else "map"
    return {
        **{name: found[name] for name in (*(f"top_{k}" for k in ks), map_name)},
        "overlap": _overlap(candidate, probe, metric, config.overlap_k, site),
        "candidate": address,
    }


def count_removed(candidate: Candidate) -> dict[str, Any]:
    """How much of the version before a new one lacks.

    Returns:
        `num_removed`, images whose id is gone and whose content has no new one: they left the
        gallery, or can no longer be read; `first_removed`, one of them; `removed`, their share,
        None where there is no version before.

    Cost: reads ids and hashes of the shards that are in one of the two versions alone.
    """
    if candidate.seen_version is None:
        return {"num_removed": 0, "first_removed": None, "removed": None}
    before = open_index(candidate.index.uri, candidate.seen_version)
    changes = compare_versions(before, candidate.index, num_examples=1)
    num_removed = changes.counts["removed"]
    return {
        "num_removed": num_removed,
        "first_removed": next(iter(changes.examples["removed"]), None),
        "removed": num_removed / before.num_rows if before.num_rows else None,
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
    """Refuse a version whose figures are too low, or that lacks too much.

    The first version has none before it: neither overlap nor a share removed is asked of it.

    Args:
        candidate: The version.
        figures: Of `measure` and `count_removed`, and `candidate`, its address.
        config: The bounds.

    Raises:
        GateError: what was found, and what was needed; the version before stays.
    """
    is_first = candidate.seen_version is None
    faults = []
    for name, least in config.bounds().items():
        shown = next((key for key in figures if name == "map" and key.startswith("map")), name)
        value = figures.get(shown)
        if value is None and name == "overlap" and is_first:
            continue
        if value is not None and value >= least:
            continue
        found = f"{shown} is unknown" if value is None else f"{shown} {value:.4g}"
        faults.append(f"{found}, at least {least:g} is needed (`min_{name}`)")
    removed = figures.get("removed")
    if config.max_removed is not None and removed is not None and removed > config.max_removed:
        faults.append(
            f"{removed:.4g} of the images are gone ({figures['num_removed']}, such as "
            f"{figures['first_removed']!r}), at most {config.max_removed:g} may be (`max_removed`)"
        )
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
