"""A night: the gallery as it is now → index → quality gate → commit → ranking → report.

Reads       what `embed` reads; the queries and, for the gate, a labelled probe set: indexes, or
            folders of photos, which are embedded with the same model.
Writes      the index's next version; with queries, their ranking and its report; a record of
            the night in INDEX/_runs.
Resources   those of `embed` and `rank`.
Resume      run again: finished work of a killed night is kept, step by step, and a version
            that was committed without its ranking gets it.
Fails when  `embed` or `rank` do, or the gate refuses the version: then the one before stays.

config      settings
sides       queries and probe, as indexes; where a night writes, looked at before it begins
gate        figures of a version before it is committed, and whether they will do
ranking     the queries, ranked against the version that was committed
job         all of it, read from top to bottom, and its record
estimating  what a night would do, for --dry-run
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.lazily import lazily

if TYPE_CHECKING:
    from pipelines.reindex.config import GateConfig, ReindexConfig
    from pipelines.reindex.estimating import NightEstimate, estimate
    from pipelines.reindex.job import NightRecord, run

__all__ = [
    "GateConfig",
    "NightEstimate",
    "NightRecord",
    "ReindexConfig",
    "estimate",
    "run",
]

__getattr__ = lazily(
    __name__,
    {
        "GateConfig": "config",
        "ReindexConfig": "config",
        "NightEstimate": "estimating",
        "estimate": "estimating",
        "run": "job",
        "NightRecord": "job",
    },
)
