"""`augment`: multiply the photos of each class, on Ray Data.

job         the whole of it: start reading here
estimating  what a run would do, for --dry-run
plan        classes, the shares of their photos, units of work
output      the output folder: what may be one, what of it is kept
worker      how a unit is made, and the part that says that it is
report      what a run has found
"""

from pipelines.augment.estimating import estimate
from pipelines.augment.job import AugmentConfig, run

__all__ = ["AugmentConfig", "estimate", "run"]
