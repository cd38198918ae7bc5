"""The job: list → compare → embed → gate → commit → rank → report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from pipelines import embed
from pipelines.progress import announce
from pipelines.ray_runtime.cluster_options import Site
from pipelines.reindex.config import ReindexConfig
from pipelines.reindex.gate import forget_older, pass_gate
from pipelines.reindex.places import check_places
from pipelines.reindex.ranking import rank_version
from pipelines.reindex.record import NightRecord
from pipelines.reindex.sides import embed_sides
from pipelines.step_timer import Laps
from retrieval.errors import RetrievalError, StorageError
from retrieval.index import failures_recorded, open_index
from retrieval.storage import absolute_uri, remove_written

__all__ = ["run"]


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
