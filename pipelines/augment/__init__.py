"""`augment`: multiply the photos of each class, on Ray Data.

job         the whole of it: start reading here
config      settings
estimating  what a run would do, for --dry-run
plan        classes, the shares of their photos, units of work
output      the output folder: what may be one, what of it is kept, what a run has found
worker      how a unit is made, and the part that says that it is
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.lazily import lazily

if TYPE_CHECKING:
    from pipelines.augment.config import AugmentConfig
    from pipelines.augment.estimating import estimate
    from pipelines.augment.job import run

__all__ = ["AugmentConfig", "estimate", "run"]

__getattr__ = lazily(
    __name__,
    {"AugmentConfig": "config", "estimate": "estimating", "run": "job"},
)
