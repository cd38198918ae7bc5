"""The figures of the epochs as TensorBoard's event files, written where the driver runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["event_writer"]

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


@contextmanager
def event_writer(folder: str | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Open a folder of event files.

    Args:
        folder: Local folder; None for nothing.

    Yields:
        Call it with the record of each epoch.
    """
    if folder is None:
        yield lambda record: None
        return
    from tensorboardX import SummaryWriter

    with SummaryWriter(folder) as writer:

        def write(record: Mapping[str, Any]) -> None:
            for name, tag in _TAGS.items():
                writer.add_scalar(tag, record[name], record["epoch"])
            writer.flush()

        yield write
