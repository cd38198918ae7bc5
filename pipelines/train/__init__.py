"""`train`: fine-tune a backbone on labelled photos, on Ray Train.

job         the whole of it: start reading here
config      settings
network     the network that they describe, and what it takes
estimating  what a training would do, for --dry-run
split       the photos, examined once and shared out between training and validation
placement   how many workers, what they book, and what travels to them
contents    the content of what settings only name: files, own code
trainer     Ray Train, and what is shown meanwhile
failures    which errors a restart may mend, what each means
worker      what each worker does: epochs, validation, checkpoints
photos      the photos of a worker as streams of decoded batches, by Ray Data
prefetcher  these streams, each started before it is asked for
decoding    the tasks of these streams
places      what may lie in the model's folder, and what of it is the training's own
report      what a training has found
publishing  what an earlier run left in the folder, how its photos changed since; the model folder
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.lazily import lazily

if TYPE_CHECKING:
    from pipelines.train.config import TrainConfig, Workers
    from pipelines.train.estimating import estimate
    from pipelines.train.job import run

__all__ = ["TrainConfig", "Workers", "estimate", "run"]

__getattr__ = lazily(
    __name__,
    {"TrainConfig": "config", "Workers": "config", "estimate": "estimating", "run": "job"},
)
