"""The job: list → compare → embed → gate → commit → rank → report; its record in INDEX/_runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipelines import embed
from pipelines.embed import EmbedReport
from pipelines.metrics import Laps
from pipelines.progress import announce
from pipelines.ray_runtime.cluster_options import Site
from pipelines.reindex.config import ReindexConfig
from pipelines.reindex.gate import GateFigures, forget_older, pass_gate
from pipelines.reindex.ranking import NightRanking, rank_version
from pipelines.reindex.sides import check_places, embed_sides
from retrieval.errors import RetrievalError, StorageError
from retrieval.index import RecordStamp, failures_recorded, open_index, write_record
from retrieval.storage import absolute_uri, remove_written

__all__ = ["NightRecord", "run"]


def run(photos: str, index: str, config: ReindexConfig, *, site: Site = Site()) -> NightRecord:
    """Bring an index up to date with its gallery, and the rankings with the index.

    Args:
        photos: Folder or address of the gallery, or a manifest of it.
        index: Folder or address of the index.
        config: Settings.
        site: Where all of it runs.

    Returns:
        The record of the night, which is also in INDEX/_runs.

    Raises:
        GateError: the version was refused.
        RetrievalError: see the head of the package. Of each error the attribute `record` is the
            night's record, which is written too if there is an index to keep it in.
    """
    start, laps = time.monotonic(), Laps()
    photos, index = absolute_uri(photos), absolute_uri(index)
    check_places(photos, index, config)
    facts = {"photos": photos, "settings": config.embed.recorded()}
    with embed.RayExecutor(site, laps) as executor:
        with failures_recorded(index, facts, announce):
            for attempt in embed.Attempts(embed.start(photos, index, config.embed)):
                with attempt as update:
                    prepared = embed.prepare(update, executor)
                    sides = embed_sides(config, prepared, executor)
                    gate = pass_gate(prepared.candidate, sides.probe, config, site)
                    update.laps.end("gate")
                    done = embed.publish(prepared)
        laps.end("index")
        night = NightRecord(update=done, config=config, gate=gate, seconds=done.seconds).written()
        if sides.queries is not None:
            with _failure_noted(night):
                found = rank_version(sides.queries, index, done.version, config, laps, site)
            night = replace(night, ranking=found)
    _tidy_up(night)
    if gate is not None:
        night = replace(night, gate=replace(gate, candidate=None))
    seconds = {**done.seconds, **laps.seconds, "total": round(time.monotonic() - start, 3)}
    return replace(night, seconds=seconds).written()


@contextmanager
def _failure_noted(night: NightRecord) -> Iterator[None]:
    """A version that was committed without its ranking says so in its record."""
    try:
        yield
    except RetrievalError as error:
        error.record = replace(night, failed=str(error)).written().to_json()
        raise


def _tidy_up(night: NightRecord) -> None:
    """Remove what the gate has kept of this version and those before."""
    index = night.update.index
    with suppress(StorageError):  # the night has succeeded, and `vacuum` comes by
        if night.gate is not None and night.gate.candidate is not None:
            # It is a version now.
            remove_written(index, [night.gate.candidate.removeprefix(f"{index}/")])
        if night.config.gate.probe is not None:
            forget_older(open_index(index))


@dataclass(frozen=True, kw_only=True)
class NightRecord:
    """A night, as far as it has come.

    Attributes:
        update: What became of the gallery.
        config: Settings of the night.
        gate: Figures of the version; None where none was asked for.
        ranking: The queries' ranking; None where there is none.
        failed: Why there is none, where it was asked for.
        seconds: Of each step.
        stamp: When and by what the record was written.
    """

    update: EmbedReport
    config: ReindexConfig
    gate: GateFigures | None
    ranking: NightRanking | None = None
    failed: str | None = None
    seconds: Mapping[str, float]
    stamp: RecordStamp | None = None

    def to_json(self) -> dict[str, Any]:
        """The record as it is printed and stored."""
        record = self.update.to_json()
        own = {"rank": asdict(self.config.rank), "gate": asdict(self.config.gate)}
        record |= {"settings": {**record["settings"], **own}, "seconds": dict(self.seconds)}
        if self.gate is not None:
            record["gate"] = self.gate.to_json()
        if self.ranking is not None:
            record["ranking"] = self.ranking.to_json()
        elif self.failed is not None:
            record["ranking"] = {"failed": self.failed}
        return {**record, **(asdict(self.stamp) if self.stamp else {})}

    def written(self) -> NightRecord:
        """Write it, in place of what the run wrote before; gives it with its stamp."""
        record = replace(self, stamp=None).to_json()
        stamp = write_record(self.update.index, self.update.run_id, record, announce)
        return replace(self, stamp=stamp)
