"""No command replaces or removes what it has not written, or mixes up what it reads and writes.

PLACES names for each command where it writes: in each of these places, one after the other, lies
something of somebody else. Then the command ends in one line, and nothing has changed.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.train import TrainConfig
from pipelines.train.publishing import start_folder
from pipelines.train.split import SPLIT_SCHEMA, Split
from retrieval.index.schema import REJECT_SCHEMA
from retrieval.ranking.files import RankingWriter
from tests.conftest import make_index
from tests.retrieval.test_report_ranking import write_ranking
from tests.training import draw_photos

PART = "part-00000-0123456789ab.parquet"
UNIT = f"{'0' * 24}-0-0"
NETWORK = ["--backbone", "tests.training:small", "--weights", "none", "--image-size", "32"]
TRAIN = TrainConfig(backbone="tests.training:small", weights="none", image_size=32, epochs=1)
WRITES_NOTHING = {"diff", "evaluate", "status", "submit", "verify"}
IN_AN_INDEX = {"restore", "vacuum"}  # they name no other place; see tests/retrieval/test_index_*.py
# What each command is given, with "out" for the folder that it writes.
COMMANDS = {
    "augment": ["photos", "out", "--per-class", "9"],
    "train": ["photos", "out", *NETWORK, "--epochs", "1"],
    "embed": ["photos", "out", *NETWORK],
    "retry-rejects": ["photos", "out", *NETWORK],
    "reindex": ["photos", "index", "--queries", "index", "--rankings", "out", *NETWORK],
    "rank": ["index", "index", "out", "--top-k", "1"],
    "report": ["ranking", "out/page.html"],
    "experiment": ["photos", "out", "--scale", "small"],
    "demo": ["--output", "out"],
}
# A file of somebody else at each of these paths is refused: none of them is written over, and
# none is taken for the job's own.
PLACES = {
    "augment": [
        "a.txt", "red/1.jpg", "red/deep/x.jpg", "augmentations.png", f"part-{UNIT}.parquet",
        ".augmented/settings.json", ".augmented/manifest.parquet", ".augmented/mine/x",
        ".augmented/parts/mine.parquet", f".augmented/parts/{UNIT}.parquet",
    ],
    "train": [
        "model.json", "weights.safetensors", "metrics.jsonl", "learning-curve.png",
        "split.parquet", "rejects.parquet", "training", "training/red/1.jpg",
        "training/settings.json", "training/run/x", "training/run/checkpoint_1/state.pt",
    ],
    "embed": ["a.txt", "red/1.jpg", "x.parquet"],
    "retry-rejects": ["a.txt", "red/1.jpg", "x.parquet"],
    "reindex": ["a.txt", "_ranking.json", "ranking.json", "deep/ranking.json", f"{PART}/x"],
    "rank": [
        "a.txt", "_ranking.json", "ranking.json", "deep/ranking.json", f"{PART}/x",
        "part-0.parquet",
    ],
    "report": ["page.html", "page.html/x"],
    "experiment": [
        "experiment.md", "experiment.csv", "experiment.json", "photos/mine.jpg",
        "photos/sides.json", "photos/queries/red/1.jpg", "photos/gallery/x", "photos/augmented-0/x",
        "rows", "rows/mine", "rows/ResNet18/result.json",
    ],
    "demo": [
        "photos/mine.jpg", "photos/queries/1.jpg", "augmented/x.jpg", "model/model.json",
        "model/metrics.jsonl", "model/training/x", "before/queries/x", "after/ranking/x",
        "report.html", "metrics.json", "before", "model",
    ],
}  # fmt: skip
# Where a link to a folder or a file is refused, too; a folder that is empty is nobody's loss.
LINKED = {
    "augment": ["red", ".augmented", ".augmented/parts", ".augmented/settings.json"],
    "train": ["training", "training/run", "training/settings.json", "metrics.jsonl", "model.json"],
    "embed": ["red"],
    "retry-rejects": ["red"],
    "reindex": [PART, "_ranking.json", "deep"],
    "rank": [PART, "_ranking.json", "deep"],
    "report": ["page.html"],
    "experiment": ["photos", "photos/gallery", "rows", "experiment.md", "photos/augmented-0"],
    "demo": ["photos", "augmented", "model", "before", "after/ranking", "report.html"],
}


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    """All is told before a cluster is asked for."""

    def fail(*args, **settings):
        raise AssertionError("Ray was started")

    monkeypatch.setattr("ray.init", fail)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """photos/, an index and a ranking, and precious/ with somebody's photos, out of the way."""
    draw_photos(tmp_path / "photos")
    draw_photos(tmp_path / "precious/training")
    make_index(tmp_path / "index", ["a", "b"], np.eye(2, dtype=np.float16))
    write_ranking(tmp_path / "ranking", (tmp_path / "index",) * 2, {"a": ["b", "a"]})
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def snapshot(folder):
    """Content of each file, target of each link, and the folders."""
    return {
        str(path.relative_to(folder)): path.readlink()
        if path.is_symlink()
        else path.is_dir() or path.read_bytes()
        for path in folder.rglob("*")
    }


def refused(here, command, *arguments):
    """The line of a command that changes nothing."""
    before = snapshot(here)
    done = CliRunner().invoke(main, [command, *(arguments or COMMANDS[command])])
    assert done.exit_code == 1, (done.output, done.exception)
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("Error: ")
    assert snapshot(here) == before
    return done.stderr


def put(path, content=b"precious"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_each_command_is_known():
    assert main.commands.keys() == COMMANDS.keys() | WRITES_NOTHING | IN_AN_INDEX
    assert COMMANDS.keys() == PLACES.keys() == LINKED.keys()


@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command in PLACES for name in PLACES[command]]
)
def test_what_somebody_else_has_written_stays(here, command, name):
    put(here / "out" / name)
    assert "out" in refused(here, command)


@pytest.mark.parametrize(
    ("command", "name", "target"),
    [
        (command, name, target)
        for command in LINKED
        for name in LINKED[command]
        for target in ("precious/training", "precious/training/red/1.jpg", "empty")
        # Beside a link to an empty folder an index may lie: it writes nothing there.
        if (name, target) != ("red", "empty") or command == "augment"
    ],
)
def test_a_link_is_never_followed(here, command, name, target):
    path = here / "out" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(here / target)
    assert "out" in refused(here, command)


@pytest.mark.parametrize(
    "target", ["photos", "photos/new", "photos/../photos/red", "link/new", "."]
)
@pytest.mark.parametrize("command", ["augment", "train", "embed", "retry-rejects", "experiment"])
def test_what_is_read_and_what_is_written_lie_apart(here, command, target):
    (here / "link").symlink_to("photos")
    arguments = [target if name == "out" else name for name in COMMANDS[command]]
    line = refused(here, command, *arguments)
    assert "so that photos and results would be mixed up. Choose a folder elsewhere." in line
    if command != "experiment":
        assert refused(here, command, *arguments, "--dry-run") == line


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("train", ["photos", "out", "--validation", "out/held"]),
        (
            "train",
            ["photos", "out", "--validation", "precious", "--tensorboard", "precious/events"],
        ),
        ("train", ["photos", "out", "--tensorboard", "photos/events"]),
        ("train", ["photos", "out", "--tensorboard", "out/training/events"]),
        ("train", ["photos", "out", "--weights", "out/weights.safetensors"]),
        ("embed", ["photos", "out", "--model", "out/model"]),
        ("embed", ["photos", "model/out", "--model", "model"]),
        ("embed", ["photos", "out", "--weights", "out/weights.pth"]),
        ("rank", ["index", "photos", "index"]),
        ("rank", ["index", "photos", "index/ranking"]),
        ("rank", ["photos", "index@0", "index/_queries/ranking"]),
        ("rank", ["out/queries", "index", "out"]),
        ("rank", ["index/*.parquet", "index", "index"]),
        ("rank", ["index", "photos", "ranking/next", "--previous", "ranking"]),
        ("report", ["ranking", "ranking/page.html"]),
        ("report", ["ranking", "index/page.html"]),
        ("report", ["ranking", "photos/page.html", "--queries", "photos"]),
        ("reindex", ["photos", "photos/index"]),
        ("reindex", ["photos", "out", "--probe", "out/probe"]),
        ("reindex", ["photos", "out", "--queries", "out/queries", "--rankings", "ranking"]),
        ("reindex", ["photos", "out", "--queries", "empty", "--rankings", "out/ranking"]),
        ("reindex", ["photos", "out", "--queries", "empty", "--rankings", "empty/ranking"]),
        ("reindex", ["photos", "out", "--queries", "empty", "--rankings", "photos/ranking"]),
        (
            "reindex",
            ["photos", "out", "--queries", "empty", "--rankings", "r", "--report", "r/page.html"],
        ),
    ],
)
def test_every_input_is_looked_at(here, command, arguments):
    assert "results would be mixed up" in refused(here, command, *arguments)


def test_a_night_looks_at_all_its_places_before_it_begins(here):
    sides = ["--queries", "photos/red", "--probe", "photos/blue"]
    arguments = ["photos", "out", *sides, "--rankings", "ranked", *NETWORK]
    for name in (
        "ranked/x",
        "ranked.html",
        "out/_queries/x",
        "out/_probe/x",
        "out/_probe_rankings",
    ):
        put(here / name)
        assert name.partition("/")[0] in refused(here, "reindex", *arguments)
        refused(here, "reindex", *arguments, "--dry-run")
        shutil.rmtree(here / "out", ignore_errors=True)
        shutil.rmtree(here / "ranked", ignore_errors=True)
        (here / "ranked.html").unlink(missing_ok=True)
    for name in ("_queries", "_probe", "_probe_rankings"):
        (here / "out").mkdir()
        (here / "out" / name).symlink_to(here / "precious")
        assert f"out/{name}: is a link or a file" in refused(here, "reindex", *arguments)
        shutil.rmtree(here / "out")


def begin_training(model):
    row = {"image_id": "red/1.jpg", "uri": "x", "label": "red", "side": "training", "size_bytes": 1}
    split = Split(pa.Table.from_pylist([row], SPLIT_SCHEMA), REJECT_SCHEMA.empty_table())
    start_folder(str(model), split, {"photos": "elsewhere", **asdict(TRAIN)})


@pytest.mark.parametrize(
    "name", ["training/red/1.jpg", "training/run/mine", "training/run/checkpoint_1/mine.jpg"]
)
def test_an_unfinished_training_does_not_vouch_for_what_lies_beside_it(here, name):
    begin_training(here / "out")
    put(here / "out" / name)
    assert (
        f"has not written, such as {'training/run/checkpoint_1' if 0 else 'training'}"
        in refused(here, "train")
    )


def test_an_unfinished_training_is_known_by_its_files(here):
    """As of the first release: the line is of its settings, not of its folder."""
    begin_training(here / "out")
    for name in (
        "training/run/.validate_storage_marker",
        "training/run/checkpoint_manager_snapshot.json",
        "training/run/checkpoint_2026-11-30_14-58-15.010065/state.pt",
        "training/run/checkpoint_2026-11-30_14-58-15.010065/history.json",
        f"training/.settings.json.{'0' * 32}.tmp",
        "training/.DS_Store",
        "metrics.jsonl",
        "learning-curve.png",
    ):
        put(here / "out" / name, b"{}")
    assert "holds an unfinished training with other settings" in refused(here, "train")


def test_the_snapshot_of_a_training_names_checkpoints_of_its_own_alone(here):
    """Ray Train removes the folders of the older ones that it names."""
    begin_training(here / "out")
    good = "checkpoint_2026-11-30_14-58-15.010065"
    for name in ("../../../precious", "/precious", "..", "checkpoint_1/../../../../precious", 7):
        results = [{"checkpoint_dir_name": name}, {"checkpoint_dir_name": good}]
        snapshot_of_ray = {"checkpoint_results": results, "latest_checkpoint_result": results[1]}
        path = here / "out/training/run/checkpoint_manager_snapshot.json"
        put(path, json.dumps(snapshot_of_ray).encode())
        assert "which is no checkpoint of that folder" in refused(here, "train")


def test_pages_and_rankings_of_ours_are_replaced(here):
    def succeed(command, *arguments):
        done = CliRunner().invoke(main, [command, *arguments])
        assert done.exit_code == 0, done.output

    for _ in range(2):
        succeed("rank", "index", "index", "ranked", "--top-k", "1")
        succeed("report", "ranked", "page.html")
        succeed("rank", "index", "index", "out", "--top-k", "1")
        succeed("rank", "index/*.parquet", "index", "index-ranking", "--top-k", "1")
        succeed("rank", "index", "index", "out", "--top-k", "1", "--previous", "out")
    put(here / "out/_ranking.json", b'{"parts": [')  # damaged, with its parts beside it
    succeed("rank", "index", "index", "out", "--top-k", "1")


@pytest.mark.parametrize("name", ["../precious/x", "/precious/x", "precious", "a/../part"])
def test_a_ranking_that_names_other_files_is_refused(here, name):
    writer = RankingWriter(str(here / "ranked"))
    writer.finish({})
    (here / "ranked/_ranking.json").write_text(json.dumps({"parts": [name]}))
    assert "which is no part of a ranking. Rank again." in refused(
        here, "report", "ranked", "page.html"
    )


def test_photos_below_the_names_of_the_job_stay_where_they_are(here):
    """The case that was reported: the model shall lie beside the folder of its photos."""
    line = refused(here, "train", "precious/training", "precious", *NETWORK)
    assert f"{Path.cwd()}/precious: holds the photos' folder" in line
    assert len(list((here / "precious").rglob("*.jpg"))) == 24
    assert not os.path.lexists(here / "out")
