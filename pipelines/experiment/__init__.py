"""`experiment`: the paper's table of configurations, trained and measured here.

job         the whole of it: start reading here
config      settings, and what they mean for a row
estimating  what a run would do, for --dry-run
places      what may lie in OUTPUT before
photos      the protocol: which photos are queries; both sides copied
row         one row: train, embed, rank, evaluate, and the result that says so
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.lazily import lazily

if TYPE_CHECKING:
    from pipelines.experiment.config import SCALES, ExperimentConfig
    from pipelines.experiment.estimating import estimate
    from pipelines.experiment.job import run

__all__ = ["SCALES", "ExperimentConfig", "estimate", "run"]

__getattr__ = lazily(
    __name__,
    {"SCALES": "config", "ExperimentConfig": "config", "estimate": "estimating", "run": "job"},
)
