"""Errors of a training: those that a restart may mend are restarted, others end it at once."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest
import ray
import torch
import torch.distributed as dist
from ray.train import ControllerError, WorkerGroupError

from pipelines.train import TrainConfig, Workers, run
from pipelines.train.decoding import PhotoLostError
from pipelines.train.failures import EndsAtOnce, meaning
from retrieval.errors import (
    ClusterError,
    ModelError,
    RetrievalError,
    StorageError,
    TrainingError,
    UsageError,
)
from tests.training import draw_photos

DDP = (
    "Expected to have finished reduction in the prior iteration before starting a new one. This "
    "error indicates that your module has parameters that were not used in producing loss. You can "
    "enable unused parameter detection by passing the keyword argument "
    "`find_unused_parameters=True`.\nParameter indices which did not receive grad for rank 0: 4"
)
LASTING = [
    ValueError("Expected more than 1 value per channel when training, got 1"),
    TypeError("forward() takes 1 positional argument"),
    RuntimeError(DDP),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    IndexError("index 4 is out of bounds"),
    KeyError("preprocessing"),
    ImportError("No module named 'mine'"),
    AssertionError(),
    ZeroDivisionError("division by zero"),
    FileNotFoundError(errno.ENOENT, "No such file", "classes.txt"),
    OSError(errno.ENOSPC, "No space left on device"),
    torch.OutOfMemoryError("CUDA out of memory"),
    UsageError("--backbone x: cannot be imported"),
    ModelError("w.pth: cannot be loaded safely"),
    PhotoLostError("red/1.jpg: could be read when training began, but no more"),
]
PASSING = [
    ray.exceptions.RayActorError(),
    ray.exceptions.WorkerCrashedError(),
    ray.exceptions.OutOfMemoryError("killed"),
    ray.exceptions.NodeDiedError("gone"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    TimeoutError("timed out"),
    OSError(errno.EIO, "Input/output error"),
    dist.DistBackendError("NCCL error: unhandled system error"),
    dist.DistNetworkError("The client socket has failed to connect"),
    RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by"),
    RuntimeError("CUDA error: unspecified launch failure"),
    StorageError("s3://b: the store does not answer"),
    ClusterError("no GPU was found"),
]


def wrapped(error):
    """As it comes from a decoding task, by way of Ray Data."""
    return ray.exceptions.RayTaskError("task", "traceback", error)


@pytest.mark.parametrize("wrap", [lambda error: error, wrapped])
@pytest.mark.parametrize("error", LASTING, ids=lambda error: type(error).__name__)
def test_what_no_restart_mends_ends_at_once_in_one_whole_line(error, wrap):
    with pytest.raises(RetrievalError) as caught:
        EndsAtOnce().after_exception(None, {1: wrap(error)})
    told = meaning(ControllerError(caught.value), "run")
    assert type(told) is type(caught.value)
    assert str(told) == str(caught.value)
    if isinstance(error, RetrievalError):
        assert (type(told), str(told)) == (type(error), str(error))
        return
    is_disk = isinstance(error, OSError) and error.errno == errno.ENOSPC
    assert type(told) is (StorageError if is_disk else TrainingError)
    text = " ".join(str(error).split())
    assert str(told).startswith(f"Training cannot go on: {type(error).__name__}")
    assert text.rstrip(".") in str(told)
    assert "\n" not in str(told)
    assert "run the same command again" not in str(told) or "Mend it" in str(told) or error.errno


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_what_a_restart_may_mend_is_restarted(error):
    EndsAtOnce().after_exception(None, {0: error})
    told = meaning(WorkerGroupError("lost", {0: error}), "run")
    assert isinstance(told, RetrievalError)
    assert "\n" not in str(told)


def test_the_cause_counts_and_not_what_it_did_to_others():
    broken = RuntimeError("gloo: Connection closed by peer")
    with pytest.raises(TrainingError, match="ValueError: wrong"):
        EndsAtOnce().after_exception(None, {0: broken, 1: ValueError("wrong")})
    EndsAtOnce().after_exception(None, {0: broken, 1: ray.exceptions.RayActorError()})


@pytest.mark.parametrize("kind", [PhotoLostError, ValueError])
def test_what_ray_data_adds_to_a_message_is_left_out(kind):
    error = kind("it is gone. Put it back.\nFailed to apply UDF transform after 1/1 attempts.")
    with pytest.raises(RetrievalError) as caught:
        EndsAtOnce().after_exception(None, {0: error})
    assert "it is gone. Put it back" in str(caught.value)
    assert "UDF" not in str(caught.value)


def test_a_long_message_ends_between_words():
    with pytest.raises(TrainingError) as caught:
        EndsAtOnce().after_exception(None, {0: ValueError("word " * 1000)})
    assert "word word .... Mend it" in str(caught.value)
    assert len(str(caught.value)) < 1000


SMALL = TrainConfig(
    backbone="tests.training:plain", weights="none", epochs=1, batch_size=6, image_size=32,
    learning_rate=0.01, dropout=0.0, validation=0.25, optimizer="sgd",
)  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("train") / "photos")


def test_an_error_of_own_code_ends_the_training_without_a_restart(photos, ray_session, tmp_path):
    config = replace(SMALL, backbone="tests.training:wrong")
    with pytest.raises(TrainingError) as caught:
        run(str(photos), str(tmp_path / "model"), config)
    assert str(caught.value).startswith(
        "Training cannot go on: IndexError: no such thing. Mend it, and run the same command again"
    )


def test_a_share_of_one_photo_is_refused_where_the_network_needs_two(photos, ray_session, tmp_path):
    config = replace(SMALL, backbone="tests.training:pooled", batch_size=2)
    with pytest.raises(UsageError, match="`batch_size`: a worker gets 1 photo of a batch, and"):
        run(str(photos), str(tmp_path / "model"), config, Workers(num_workers=2))
    assert not (tmp_path / "model" / "training").exists()
