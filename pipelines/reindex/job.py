"""The job: embed → gate → commit → rank → report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any

from pipelines import embed, rank
from pipelines.progress import STDERR, announce
from pipelines.ray_runtime.cluster_options import Site
from pipelines.reindex.config import ReindexConfig
from pipelines.reindex.gate import count_removed, forget_older, judge, measure
from pipelines.reindex.places import check_places
from pipelines.reindex.sides import as_index
from pipelines.step_timer import Laps
from retrieval.errors import GateError, RetrievalError, StorageError, UsageError
from retrieval.evaluation import evaluate
from retrieval.index import Candidate, open_index, save_candidate, write_record
from retrieval.ranking.files import Ranking, open_ranking
from retrieval.ranking.sides import holds_ranked
from retrieval.report import write_report
from retrieval.search import score_rule
from retrieval.storage import absolute_uri, file_exists, remove_written

__all__ = ["run"]


def run(photos: str, index: str, config: ReindexConfig, *, site: Site = Site()) -> dict[str, Any]:
    """Bring an index up to date with its gallery, and the rankings with the index.

    Args:
        photos: Folder or address of the gallery, or a manifest of it.
        index: Folder or address of the index.
        config: Settings.
        site: Where all of it runs.

    Returns:
        The record of the night, which is also in INDEX/_runs: that of `embed`, and `status`
        ("committed" or "unchanged"), `gate`, `ranking`, `seconds`.

    Raises:
        GateError: the version was refused.
        RetrievalError: see the head of this module. Of each error the attribute `record` is the
            night's record, which is written too if there is an index to keep it in.
    """
    start, laps = time.monotonic(), Laps()
    photos, index = absolute_uri(photos), absolute_uri(index)
    check_places(photos, index, config)
    night = _Night(index, config, site)
    record = embed.run(photos, index, config.embed, site=site, gate=night.check)
    laps.end("index")
    record["settings"] |= {"rank": asdict(config.rank), "gate": asdict(config.gate)}
    if config.queries is not None:
        with _failure_noted(night.index, record):
            record["ranking"] = night.rank(record["version_after"], laps)
    with suppress(StorageError):  # tidying up: the night has succeeded, and `vacuum` comes by
        if "gate" in record:
            kept = record["gate"].pop("candidate").removeprefix(f"{night.index}/")
            remove_written(night.index, [kept])  # is a version now
        if config.gate.probe is not None:
            forget_older(open_index(night.index))
    seconds = {**record["seconds"], **laps.seconds, "total": round(time.monotonic() - start, 3)}
    record["seconds"] = seconds
    return write_record(night.index, record["run_id"], record, announce)


@contextmanager
def _failure_noted(index: str, record: Mapping[str, Any]) -> Iterator[None]:
    """A version that was committed without its ranking says so in its record."""
    try:
        yield
    except RetrievalError as error:
        failed = {**record, "ranking": {"failed": str(error)}}
        error.record = write_record(index, record["run_id"], failed, announce)
        raise


class _Night:
    """What the steps of one night share."""

    def __init__(self, index: str, config: ReindexConfig, site: Site) -> None:
        self.index = index
        self._config = config
        self._site = site

    def check(self, candidate: Candidate) -> dict[str, Any] | None:
        """All that may still refuse a version: sides of another model, and the gate."""
        if self._config.queries is not None:
            self._side(self._config.queries, "queries", candidate)
        gate = self._config.gate
        if gate.probe is None and gate.max_removed is None:
            return None
        figures: dict[str, Any] = {} if gate.max_removed is None else count_removed(candidate)
        if gate.probe is not None:
            probe = self._side(gate.probe, "probe", candidate)
            figures |= measure(candidate, probe, gate, self._config.rank.metric, self._site)
        else:
            figures["candidate"] = save_candidate(candidate.index)
        try:
            judge(candidate, figures, gate)
        except GateError as error:
            run = {**candidate.index.run, **candidate.counts}
            record = {**run, "status": "refused", "gate": figures, "message": str(error)}
            error.record = write_record(self.index, run["run_id"], record, announce)
            raise
        return figures

    def _side(self, side: str, name: str, candidate: Candidate) -> str:
        return as_index(side, name, candidate.index, self._config.embed, self._site)

    def rank(self, version: int, laps: Laps) -> dict[str, Any]:
        """Bring the ranking and its page up to date; says how."""
        config = self._config
        index = open_index(self.index, version)
        queries = as_index(str(config.queries), "queries", index, config.embed, self._site)
        rankings = absolute_uri(str(config.rankings))
        try:
            ranked = self._rank(queries, version, rankings)
            laps.end("rank")
            if ranked or not file_exists(config.page):
                write_report(rankings, config.page, progress=STDERR)
            laps.end("report")
            figures = _figures(rankings, queries, self.index)
        except RetrievalError as error:
            raise type(error)(
                f"{error} Version {version} of {self.index} is committed; the same command again "
                f"goes on with its ranking."
            ) from error
        facts = open_ranking(rankings).facts
        return {
            "ranking": rankings,
            "report": absolute_uri(config.page),
            "num_queries": facts["num_queries"],
            "num_gallery": facts["num_gallery"],
            "num_spared_queries": facts.get("num_spared_queries"),
            "is_anew": ranked,
            **figures,
        }

    def _rank(self, queries: str, version: int, rankings: str) -> bool:
        """Rank what has changed; false if the ranking is of these very versions."""
        settings = _fitting(self._config.rank, open_index(self.index, version).num_rows)
        before = _finished(rankings)
        if before is not None:
            if _is_current(before, queries, self.index, version, settings):
                return False
            try:
                incremental = replace(settings, previous=rankings)
                rank.run(queries, self.index, rankings, incremental, site=self._site)
                return True
            except UsageError as error:
                announce(f"Ranking all anew: {error}")
        rank.run(queries, self.index, rankings, settings, site=self._site)
        return True


def _fitting(settings: rank.RankConfig, num_rows: int) -> rank.RankConfig:
    """The settings; a gallery smaller than top_k is ranked whole."""
    if settings.top_k is not None and settings.top_k > num_rows:
        return replace(settings, top_k=num_rows)
    return settings


def _finished(rankings: str) -> Ranking | None:
    try:
        return open_ranking(rankings)
    except StorageError:
        return None


def _is_current(
    ranking: Ranking, queries: str, gallery: str, version: int, settings: rank.RankConfig
) -> bool:
    """Whether a ranking is of what these versions hold, by these settings."""
    facts = ranking.facts
    top_k = facts.get("num_gallery") if settings.top_k is None else settings.top_k
    is_alike = (
        facts.get("metric"),
        ranking.score_rule,
        facts.get("top_k"),
        facts.get("exclude_self"),
    ) == (settings.metric, score_rule(settings.metric), top_k, settings.exclude_self)
    sides = {"queries": open_index(queries), "gallery": open_index(gallery, version)}
    return is_alike and all(
        holds_ranked(facts.get(name) or {}, index) for name, index in sides.items()
    )


def _figures(rankings: str, queries: str, gallery: str) -> dict[str, Any]:
    """Accuracy, where the queries have labels."""
    try:
        found = evaluate(rankings, queries, gallery).to_json()
    except UsageError:
        return {}
    shown: dict[str, Any] = {
        name: found[name] for name in ("top_1", "top_3", "top_10") if name in found
    }
    # Of a ranking that stops early it is cut, which `evaluate` says beside it: see docs/metrics.md.
    return {
        **shown,
        f"map_cut_{found['depth']}" if found["map_is_lower_bound"] else "map": found["map"],
    }
