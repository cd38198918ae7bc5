"""`train` under faults: killed workers and drivers, a loss that is no number, lost photos."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.train import TrainConfig, Workers, estimate, run
from pipelines.train.publishing import start_folder
from pipelines.train.split import SPLIT_SCHEMA, Split
from retrieval.errors import StorageError, TrainingError, UsageError
from retrieval.index.schema import REJECT_SCHEMA
from retrieval.models.folder import is_model, open_model
from tests.training import draw_photos

CLI = str(Path(sys.executable).with_name("retrieval-cli"))
ROOT = Path(__file__).parents[2]
# 18 photos to train on in batches of 6: three steps an epoch.
SMALL = TrainConfig(
    backbone="tests.training:small", weights="none", epochs=4, batch_size=6, image_size=32,
    learning_rate=0.01, dropout=0.1, validation=0.25,
)  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return draw_photos(tmp_path_factory.mktemp("train") / "photos")


@pytest.fixture(scope="module")
def undisturbed(photos, ray_session, tmp_path_factory):
    """What training gives when nothing happens to it."""
    model = tmp_path_factory.mktemp("undisturbed") / "model"
    run(str(photos), str(model), SMALL)
    return model


def command_of(photos, model, backbone, **faults):
    """The command line with SMALL's settings; its Ray's workers see the environment."""
    command = [CLI, "train", str(photos), str(model), "--backbone", backbone, "--weights", "none"]
    command += ["--epochs", "4", "--batch-size", "6", "--image-size", "32", "--dropout", "0.1"]
    command += ["--learning-rate", "0.01", "--validation", "0.25"]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return command, {**os.environ, "PYTHONPATH": path, **faults}


def train_apart(photos, model, backbone, **faults):
    command, environment = command_of(photos, model, backbone, **faults)
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def figures(model):
    """Of each epoch, without seconds."""
    lines = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.endswith("_s")} for line in lines]


def test_training_goes_on_exactly_after_its_driver_was_killed(photos, undisturbed, tmp_path):
    model = tmp_path / "model"
    command, environment = command_of(photos, model, SMALL.backbone)
    killed = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines = model / "metrics.jsonl"
    while killed.poll() is None and not (lines.exists() and lines.read_text().count("\n") >= 1):
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not is_model(str(model))
    num_done = lines.read_text().count("\n")
    assert 1 <= num_done < 4

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    going_on = f"{model}: going on with the training that was begun there"
    assert going_on in done.stderr.splitlines()
    again = [line for line in done.stderr.splitlines() if line.startswith("epoch ")]
    # Nothing that was finished is done again, but for an epoch whose checkpoint was under way.
    assert len(again) <= 4 - num_done
    assert figures(model) == figures(undisturbed)
    weights = "weights.safetensors"
    assert (model / weights).read_bytes() == (undisturbed / weights).read_bytes()


def test_training_goes_on_exactly_after_a_worker_was_killed_in_mid_epoch(
    photos, undisturbed, tmp_path
):
    # The second of the three steps of epoch 3; the count goes on over the restart.
    environment = {"STEPS_FILE": str(tmp_path / "steps"), "DIE_AT_STEP": "8"}
    done = train_apart(photos, tmp_path / "model", "tests.training:mortal", **environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "steps").stat().st_size == 4 * 3 + 2  # epoch 3 was begun twice
    assert figures(tmp_path / "model") == figures(undisturbed)
    weights = "weights.safetensors"
    assert (tmp_path / "model" / weights).read_bytes() == (undisturbed / weights).read_bytes()


def test_a_loss_that_is_no_number_keeps_the_best_epoch_before(photos, tmp_path):
    model = tmp_path / "model"
    steps = tmp_path / "steps"
    environment = {"STEPS_FILE": str(steps), "DIVERGE_AT_STEP": "8"}
    done = train_apart(photos, model, "tests.training:diverging", **environment)
    assert done.returncode == 1
    found = open_model(str(model))
    assert found.training["epochs_done"] == 2
    assert found.training["diverged"] == "in epoch 3 the loss is nan by step 3"
    best = found.metrics
    assert done.stderr.splitlines()[-1] == (
        f"Error: {model}: in epoch 3 the loss is nan by step 3. The best epoch before, "
        f"{best['epoch']} with retrieval top-1 {best['top_1']:.3f}, is kept there. Use a smaller "
        "--learning-rate and another folder to train on."
    )
    assert done.stdout == ""
    # Tried again, as by a scheduler, it ends the same way, at once and without Ray.
    config, before = replace(SMALL, backbone="tests.training:diverging"), steps.stat()
    for again in (run, estimate):
        with pytest.raises(TrainingError) as caught:
            again(str(photos), str(model), config)
        told = str(caught.value).replace("`learning_rate`", "--learning-rate")
        assert f"Error: {told}" == done.stderr.splitlines()[-1]
    assert steps.stat() == before


def test_a_loss_that_is_no_number_from_the_start_leaves_no_model(photos, ray_session, tmp_path):
    model = tmp_path / "model"
    with pytest.raises(TrainingError) as caught:
        run(str(photos), str(model), replace(SMALL, backbone="tests.training:hopeless"))
    assert str(caught.value) == (
        f"{model}: in epoch 1 the loss is nan by step 3, so there is no good epoch to keep. "
        f"Use a smaller `learning_rate`, or `warmup_epochs` 1."
    )
    assert not is_model(str(model))
    assert not (model / "training").exists()


def unfinished(photos, model, names):
    """A folder as a run leaves it that was killed in its first epoch."""
    rows = [
        {
            "image_id": name, "uri": f"{photos}/{name}", "label": name.split("/")[0],
            "side": "validation" if number % 4 == 3 else "training", "size_bytes": 1000,
        }
        for number, name in enumerate(names)
    ]  # fmt: skip
    split = Split(pa.Table.from_pylist(rows, SPLIT_SCHEMA), REJECT_SCHEMA.empty_table())
    start_folder(str(model), split, {"photos": str(photos), **asdict(SMALL)})


def test_a_photo_that_has_gone_since_is_named(photos, ray_session, tmp_path):
    names = [f"{label}/{number}.jpg" for label in ("red", "blue") for number in range(8)]
    unfinished(photos, tmp_path / "model", [*names, "red/gone.jpg"])
    with pytest.raises(StorageError) as caught:
        run(str(photos), str(tmp_path / "model"), SMALL)  # no restart would bring it back
    assert str(caught.value) == (
        "red/gone.jpg: could be read when training began, but no more (missing: gone since it was "
        "listed, a dangling link, or a name not in UTF-8). Put it back and run the same command "
        "again: training goes on after its last epoch."
    )


def test_an_unfinished_training_is_not_taken_for_another_one(photos, tmp_path):
    model = tmp_path / "model"
    unfinished(photos, model, ["red/1.jpg", "blue/1.jpg"])
    with pytest.raises(UsageError) as caught:
        run(str(photos), str(model), replace(SMALL, seed=7))
    assert str(caught.value) == (
        f"{model}: holds an unfinished training with other settings (seed 0, now 7). Use the same "
        f"settings, or another folder."
    )


def test_a_full_disk_is_one_line_and_training_goes_on_when_there_is_room(
    photos, ray_session, undisturbed, tmp_path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        with pytest.raises(StorageError) as caught:
            run(str(photos), str(disk / "model"), SMALL, Workers(max_failures=0))
        assert "No space left on device" in str(caught.value)
        assert "\n" not in str(caught.value)
        subprocess.run([*mount[:4], "remount,size=4m", *mount[5:]], check=True)
        run(str(photos), str(disk / "model"), SMALL)
        assert figures(disk / "model") == figures(undisturbed)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
