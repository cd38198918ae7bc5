"""What training needs to go on after an epoch, in one folder.

state.pt      weights and optimizer after the epoch, and the weights of the best epoch so far;
              and the version of the form of both files
history.json  the figures of every epoch

The best weights travel with the last ones: one checkpoint is enough to go on and to publish.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim

from retrieval.errors import StorageError
from retrieval.format_version import FORMAT_VERSION, check_format_version
from retrieval.storage import parse_json

__all__ = ["Progress", "is_better", "load_checkpoint"]

_FORMAT = 1
Record = dict[str, Any]  # the figures of an epoch; see `pipelines.train_worker`


class Progress:
    """Epochs done so far, and the best weights among them.

    Attributes:
        history: Figures of each epoch, in order.
        best: Record of the best epoch, by retrieval; None before the first.
        best_weights: State of the whole network after it, on the CPU.
    """

    def __init__(self) -> None:
        self.history: list[Record] = []
        self.best: Record | None = None
        self.best_weights: dict[str, Tensor] = {}

    def add(self, record: Record, network: nn.Module) -> None:
        """Note an epoch; its weights are kept if it is the best."""
        self.history.append(record)
        if self.best is None or is_better(record, self.best):
            self.best = record
            self.best_weights = {
                name: value.detach().to("cpu", copy=True)
                for name, value in network.state_dict().items()
            }

    def save(self, folder: Path, network: nn.Module, optimizer: optim.Optimizer) -> None:
        """Write a checkpoint into an empty folder."""
        state = {
            FORMAT_VERSION: _FORMAT,
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "best": self.best_weights,
        }
        torch.save(state, folder / "state.pt")
        (folder / "history.json").write_text(json.dumps(self.history), encoding="utf-8")

    @classmethod
    def load(
        cls,
        folder: Path,
        network: nn.Module | None = None,
        optimizer: optim.Optimizer | None = None,
    ) -> Progress:
        """Read a checkpoint, and put network and optimizer where they were.

        Nothing is unpickled but tensors and plain values. Of a damaged checkpoint whatever torch
        raises comes through; `load_checkpoint` says it in our words. Raises StorageError where a
        newer release has written it.
        """
        progress = cls()
        state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        check_format_version(state, _FORMAT, str(folder / "state.pt"), StorageError)
        progress.history = parse_json((folder / "history.json").read_bytes())
        progress.best_weights = state["best"]
        for record in progress.history:
            if progress.best is None or is_better(record, progress.best):
                progress.best = record
        if network is not None:
            network.load_state_dict(state["network"])
        if optimizer is not None:
            optimizer.load_state_dict(state["optimizer"])
        return progress


def load_checkpoint(
    folder: Path, network: nn.Module | None = None, optimizer: optim.Optimizer | None = None
) -> Progress:
    """As `Progress.load`, of a folder that may be somebody else's.

    Raises:
        StorageError: it is damaged, does not fit, or holds more than tensors and plain values.
    """
    try:
        return Progress.load(folder, network, optimizer)
    except Exception as error:  # torch raises a dozen types for broken bytes
        # Not what torch says: it recommends to load the file without its safeguard.
        raise StorageError(
            f"{folder}: this checkpoint of a training cannot be loaded safely "
            f"({type(error).__name__}): it is damaged, of another network, or holds more than "
            f"tensors. Remove the folder `training` of the model, and train anew."
        ) from error


def is_better(record: Mapping[str, Any], than: Mapping[str, Any]) -> bool:
    """Whether an epoch retrieves better: top-1, then top-3, top-10, then the smaller loss.

    Where retrieval could not be measured, in none of the epochs then, the loss alone decides.
    """
    return _merit(record) > _merit(than)


def _merit(record: Mapping[str, Any]) -> tuple[float, ...]:
    # Earlier releases wrote 0.0 for a figure that is not defined.
    figures = [record[name] or 0.0 for name in ("top_1", "top_3", "top_10")]
    return (*figures, -record["validation_loss"])
