"""Which errors of a training a restart may mend, and what each means to a person.

A restart mends what has befallen a machine: a worker or node that is gone or was killed for want of
memory, a connection that broke, a store that does not answer. It mends nothing in code, settings or
photos: the same step would fail alike, each time after minutes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.train import TrainingFailedError, UserCallback

from pipelines.train.decoding import PhotoLostError
from retrieval.errors import ClusterError, RetrievalError, StorageError, TrainingError
from retrieval.one_line import one_line

__all__ = ["EndsAtOnce", "meaning"]

# Of a disk or folder on which the checkpoint lies.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
# How torch's connections between workers fail that have no error class of their own.
_OF_CONNECTIONS = ("gloo", "nccl", "connection", "timed out", "timeout", "cuda error", "cudnn")
_MAX_CHARACTERS = 600
_LOGS = (
    "The whole story is in Ray's logs (/tmp/ray/session_latest/logs of the machine it happened on)."
)


class EndsAtOnce(UserCallback):
    """Has Ray Train's controller give up where a restart would fail alike."""

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:  # noqa: ANN401
        """Called by Ray Train after workers failed; what it raises ends the training.

        Raises:
            RetrievalError: what is wrong.
        """
        lasting = [error for error in worker_exceptions.values() if _is_lasting(error)]
        if lasting:
            raise _told(lasting) or _of_code(lasting[0])


def meaning(error: TrainingFailedError, run: str) -> RetrievalError:
    """What Ray Train raised in the end, in one line.

    Args:
        error: Of `fit`.
        run: Where the checkpoints are.
    """
    failures = getattr(error, "worker_failures", None) or {
        0: getattr(error, "controller_failure", error)
    }
    if told := _told(failures.values()):
        return told
    causes = [cause for failure in failures.values() for cause in _causes(failure)]
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in (*_NO_ROOM, errno.EACCES, errno.EPERM):
            return StorageError(
                f"{run}: the checkpoint cannot be written ({os.strerror(cause.errno)}). Make room "
                f"and run the same command again: training goes on after its last epoch."
            )
    return ClusterError(
        f"Training failed too often: {_described(causes[-1])}. Finished epochs are kept: run the "
        f"same command again. {_LOGS}"
    )


def _told(failures: Iterable[BaseException]) -> RetrievalError | None:
    """Our own error among what has failed."""
    for failure in failures:
        for cause in _causes(failure):
            if isinstance(cause, RetrievalError) and not isinstance(cause, ray.exceptions.RayError):
                return type(cause)(one_line(_own_text(cause)))
    return None


def _of_code(error: BaseException) -> RetrievalError:
    cause = _causes(error)[-1]
    advice = "Mend it, and run the same command again: training goes on after its last epoch."
    if isinstance(cause, torch.OutOfMemoryError):
        advice = "Use a smaller `batch_size` in another folder, or a GPU with more memory."
    elif "finished reduction" in str(cause):
        advice = (
            "Some weights take part in the loss in some steps only, which several workers cannot "
            "train. Use `num_workers` 1."
        )
    kind: type[RetrievalError] = TrainingError
    if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
        kind = StorageError
        advice = "Make room, and run the same command again: training goes on after its last epoch."
    return kind(f"Training cannot go on: {_described(cause)}. {advice} {_LOGS}")


def _own_text(error: BaseException) -> str:
    """What an error said before Ray Data told how often it was tried."""
    return str(error).partition("\nFailed to apply UDF")[0]


def _described(error: BaseException) -> str:
    """The kind of an error and all that it says, as one line without its last full stop."""
    text = " ".join(_own_text(error).split())
    if len(text) > _MAX_CHARACTERS:
        return f"{type(error).__name__}: {text[:_MAX_CHARACTERS].rpartition(' ')[0]} ..."
    return f"{type(error).__name__}: {text}".rstrip(".: ")


def _is_lasting(error: BaseException) -> bool:
    causes = _causes(error)
    if any(_is_of_ray(cause) for cause in causes):
        return False
    cause = causes[-1]
    if isinstance(cause, StorageError | ClusterError):
        return isinstance(cause, PhotoLostError)
    if isinstance(cause, OSError):
        kinds = FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError
        return isinstance(cause, kinds) or cause.errno in _NO_ROOM
    if isinstance(cause, dist.DistError | MemoryError | SystemExit | KeyboardInterrupt):
        return False
    if isinstance(cause, torch.OutOfMemoryError):
        return True
    is_connection = any(word in str(cause).lower() for word in _OF_CONNECTIONS)
    return not (isinstance(cause, RuntimeError) and is_connection)


def _is_of_ray(error: BaseException) -> bool:
    """Whether Ray lost something; an error of ours or of own code, which it passes on, is none."""
    passed_on = (ray.exceptions.RayTaskError, ray.exceptions.UserCodeException)
    return type(error).__module__.startswith("ray.") and not isinstance(error, passed_on)


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = getattr(error, "cause", None) or error.__cause__
    return found
