"""Every error that a user can cause.

RetrievalError
├── UsageError           a setting that cannot be met (also a ValueError)
├── StorageError         a folder, file or object store that cannot be read or written
│   └── VacuumedError    work of a run that is gone before its commit
├── ImageError           one photo that cannot be read; carries a reason code
├── ModelError           weights or a model folder that cannot be used
├── TrainingError        a training that cannot go on: its loss is no number any more
├── IndexFormatError     an index, shard or ranking that is not what it should be
├── MismatchError        two inputs that must not be used together
├── GateError            a version of an index whose quality does not do
└── ClusterError         a Ray cluster that cannot be reached

A message names the thing, what was found, what is needed and what to do. It names a parameter in
backquotes, as `retrieval.parameters` says.
Each class is rebuilt from its arguments alone, so that errors survive worker processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrieval.parameters import named, names_in

__all__ = [
    "ClusterError",
    "GateError",
    "ImageError",
    "IndexFormatError",
    "MismatchError",
    "ModelError",
    "RetrievalError",
    "StorageError",
    "TrainingError",
    "UsageError",
    "VacuumedError",
]


class RetrievalError(Exception):
    """Base of all errors that the command line shows as one line.

    Its text is what it was made with, where parameters are called by their Python names; inside
    `retrieval.parameters.naming` they are called as that says.

    Attributes:
        record: What the run that failed says of itself, where it keeps records (`reindex`, and
            `embed`); None elsewhere, and in an error that comes from a worker process.
    """

    record: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return named(super().__str__())

    @property
    def parameters(self) -> tuple[str, ...]:
        """The parameters that the message names, by their Python names."""
        return names_in(super().__str__())


class UsageError(RetrievalError, ValueError):
    """A setting that cannot be met: k above the gallery's size, an unknown backbone."""


class StorageError(RetrievalError):
    """A folder, file or object store that cannot be listed, read or written."""


class VacuumedError(StorageError):
    """What a run was about to commit is gone, or a vacuum is about to remove it.

    Nothing was committed; the same run does what is missing once more.
    """


class ImageError(RetrievalError):
    """A photo that cannot be turned into pixels.

    Attributes:
        reason: Member of `retrieval.images.Reason`, as text.
        message: What the decoder said, in one line.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return named(f"{self.reason}: {self.message}")


class ModelError(RetrievalError):
    """Weights or a model folder that cannot be loaded into the network."""


class TrainingError(RetrievalError):
    """A training that cannot go on; what it had reached before is kept."""


class IndexFormatError(RetrievalError):
    """An index, a shard or a ranking whose content is not what it should be."""


class MismatchError(RetrievalError):
    """Two inputs that must not be used together, such as indexes of two models."""


class GateError(RetrievalError):
    """A version of an index whose quality is below what was asked for."""


class ClusterError(RetrievalError):
    """A Ray cluster that cannot be reached, or that lost too much to go on."""
