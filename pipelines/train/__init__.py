"""`train`: fine-tune a backbone on labelled photos, on Ray Train.

job         the whole of it: start reading here
config      settings, and what of them travels to the workers
split       the photos, examined once and shared out between training and validation
trainer     Ray Train: where workers go, what is shown meanwhile, what its errors mean
worker      what each worker does: epochs, validation, checkpoints
photos      the photos of a worker as streams of decoded batches, by Ray Data
publishing  what an earlier run left in the folder; the model folder
"""

from pipelines.train.config import TrainConfig, Workers
from pipelines.train.job import run

__all__ = ["TrainConfig", "Workers", "run"]
