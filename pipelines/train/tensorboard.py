"""The figures of the epochs as TensorBoard's event files, written where the driver runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from pipelines.train.config import TrainConfig
from pipelines.train.places import checkpoints_of
from retrieval.storage import check_apart

__all__ = ["check_folder", "event_writer"]

_TAGS = {
    "loss": "loss/training",
    "validation_loss": "loss/validation",
    "accuracy": "accuracy/training",
    "validation_accuracy": "accuracy/validation",
    "top_1": "retrieval/top_1",
    "top_3": "retrieval/top_3",
    "top_10": "retrieval/top_10",
    "learning_rate": "learning_rate",
}


def check_folder(folder: str | None, photos: str, model: str, config: TrainConfig) -> None:
    """Refuse a folder of event files among photos or checkpoints; UsageError."""
    inputs = {
        "the photos' folder": photos,
        "the validation photos' folder": config.validation_folder,
        "the checkpoints' folder": checkpoints_of(model),
    }
    check_apart(inputs, {"the event files": folder})


@contextmanager
def event_writer(folder: str | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Write into a folder of event files, which is made with the first record.

    Args:
        folder: Local folder; None for nothing.

    Yields:
        Call it with the record of each epoch.
    """
    if folder is None:
        yield lambda record: None
        return
    from tensorboardX import SummaryWriter

    with ExitStack() as stack:
        writers: list[SummaryWriter] = []

        def write(record: Mapping[str, Any]) -> None:
            if not writers:
                writers.append(stack.enter_context(SummaryWriter(folder)))
            for name, tag in _TAGS.items():
                if record[name] is not None:
                    writers[0].add_scalar(tag, record[name], record["epoch"])
            writers[0].flush()

        yield write
