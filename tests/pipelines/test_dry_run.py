"""`--dry-run`: it says what a run would do, writes nothing and starts nothing."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import ray
from click.testing import CliRunner

from pipelines import dry_run as forecast
from pipelines.augment import AugmentConfig
from pipelines.augment import estimate as estimate_augment
from pipelines.augment import run as augment
from pipelines.cli import main
from pipelines.embed import EmbedConfig, estimate, run
from pipelines.ray_runtime.cluster_options import Site
from tests.conftest import COLOURS, draw_photos, make_index, photo_bytes
from tests.pipelines.test_embed_again import age

FAKE = EmbedConfig(backbone="tests.fakes:mean_colour", weights="none")
EMBED = ["--backbone", FAKE.backbone, "--weights", "none"]


def content_of(folder):
    """All that is in a folder, to the byte, and when it was written; of folders, too."""
    return {
        path: (path.read_bytes() if path.is_file() else None, path.stat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.fixture
def alone(monkeypatch):
    """No cluster is named or connected, and Ray must not start."""
    monkeypatch.setattr(Site, "has_cluster", False)
    monkeypatch.setattr(ray, "init", None)


@pytest.fixture(scope="module")
def world(tmp_path_factory, ray_session):
    """Photos, an index of them, and what embedding said."""
    root = tmp_path_factory.mktemp("world")
    report = run(str(draw_photos(root / "photos")), str(root / "index"), FAKE).to_json()
    return root, report


def dry(*arguments):
    done = CliRunner().invoke(main, [*map(str, arguments), "--dry-run"])
    return done.exit_code, json.loads(done.stdout) if done.stdout else done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["embed", "{}/photos", "{}/new", *EMBED],
        ["embed", "{}/photos", "{}/index", *EMBED, "--verify-content"],
        ["retry-rejects", "{}/photos", "{}/index", *EMBED],
        ["augment", "{}/photos", "{}/new"],
        ["train", "{}/photos", "{}/new", "--weights", "none"],
        ["experiment", "{}/photos", "{}/new", "--queries-per-class", "1"],
        ["reindex", "{}/photos", "{}/index", *EMBED, "--probe", "{}/photos", "--min-map", "0.5"],
        ["reindex", "{}/photos", "{}/new", *EMBED, "--queries", "{}/index", "--rankings", "{}/r"],
    ],
    ids=lambda command: command[0],
)
def test_it_writes_nothing_and_starts_nothing(world, alone, command):
    root, _ = world
    before = content_of(root)
    code, report = dry(*(part.format(root) for part in command))
    assert content_of(root) == before
    assert code == 0, report
    assert report["dry_run"] is True
    assert (report["planned_for"], report["are_enough"]) == ("this machine", True)
    assert [node["num_nodes"] for node in report["nodes"]] == [1]


@pytest.mark.parametrize(
    "command",
    [
        ["embed", "{}/nothing", "{}/new", *EMBED],
        ["embed", "{}/photos", "{}/photos/index", *EMBED],
        ["embed", "{}/photos", "{}/new", "--backbone", "tests.fakes:nothing", "--weights", "none"],
        ["embed", "{}/photos", "{}/new", *EMBED, "--labels", "pattern:nothing-([0-9]+)"],
        ["augment", "{}/photos/red", "{}/new"],
        ["augment", "{}/photos", "{}/index"],
        ["augment", "{}/photos", "{}/new", "--recipe", "nothing"],
        ["train", "{}/photos/red", "{}/new", "--weights", "none"],
        ["train", "{}/photos", "{}/new", "--weights", "{}/nothing.safetensors"],
        ["experiment", "{}/photos", "{}/photos/new"],
        ["reindex", "{}/photos", "{}/new", *EMBED, "--probe", "{}/other"],
    ],
)
def test_what_is_wrong_is_told_in_the_words_of_the_run(world, command):
    root, _ = world
    if not (root / "other").exists():
        make_index(root / "other", ["a"], np.ones((1, 3), np.float16))
    arguments = [part.format(root) for part in command]
    code, said = dry(*arguments)
    done = CliRunner().invoke(main, arguments)
    assert (code, said) == (done.exit_code, done.stderr)
    assert (code, said.count("\n")) == (1, 1)


def test_it_counts_what_the_listing_tells_and_a_run_does_so(tmp_path, ray_session):
    photos, index = age(draw_photos(tmp_path / "photos")), str(tmp_path / "index")
    said = estimate(str(photos), index, FAKE).to_json()
    assert said["num_to_embed"] == {"at_least": 12, "at_most": 12}
    first = run(str(photos), index, FAKE).to_json()
    assert (first["num_embedded"], first["num_rejected"]) == (10, 2)

    (photos / "green" / "new.jpg").write_bytes(photo_bytes((10, 90, 10), size=(90, 60)))
    changed, touched = photos / "red" / "red-0.jpg", photos / "red" / "red-1.jpg"
    changed.write_bytes(photo_bytes((10, 90, 99), size=(91, 60)))
    os.utime(touched, (1_700_000_000, 1_700_000_000))
    (photos / "blue" / "blue-0.jpg").rename(photos / "blue" / "moved.jpg")
    (photos / "blue" / "blue-1.jpg").unlink()
    said = estimate(str(photos), index, FAKE).to_json()
    names = ("listed", "unchanged", "new", "changed", "touched", "perhaps_moved", "removed")
    assert {name: said[f"num_{name}"] for name in names} == {
        "listed": 12, "unchanged": 6, "new": 2, "changed": 1, "touched": 1,
        "perhaps_moved": 1, "removed": 2,
    }  # fmt: skip
    assert said["num_refused_before"] == 2
    assert said["num_to_hash"] == 2
    assert said["num_to_embed"] == {"at_least": 2, "at_most": 4}
    new, moved = photos / "green" / "new.jpg", photos / "blue" / "moved.jpg"
    assert said["read_bytes"]["to_hash"] == sum(p.stat().st_size for p in (touched, moved))
    assert said["read_bytes"]["to_embed"] == {
        "at_least": sum(path.stat().st_size for path in (new, changed)),
        "at_most": sum(path.stat().st_size for path in (new, changed, touched, moved)),
    }
    assert said["num_rewritten_shards"] == 1
    # Its seconds are those of a rate that was measured, by the run that is named.
    expected = said["expected_seconds"]
    assert (expected["photos_per_s"], expected["measured_by"]) == (
        first["photos_per_s"],
        first["run_id"],
    )
    assert expected["at_most"] == round(4 / first["photos_per_s"], 1)
    done = run(str(photos), index, FAKE).to_json()
    assert (done["num_embedded"], done["num_moved"], done["num_removed"]) == (2, 1, 1)


def test_without_a_measured_rate_no_time_is_promised(world, alone):
    root, _ = world
    assert estimate(f"{root}/photos", f"{root}/new", FAKE).to_json()["expected_seconds"] is None


def test_another_network_embeds_all_anew(world, alone):
    root, _ = world
    config = EmbedConfig(backbone="tests.fakes:one_weight", weights="none", new_model=True)
    said = estimate(f"{root}/photos", f"{root}/index", config).to_json()
    assert said["is_embedded_anew"]
    assert said["num_to_embed"] == {"at_least": 12, "at_most": 12}


def test_augment_says_how_many_images_there_will_be(world, tmp_path):
    root, _ = world
    config = AugmentConfig(per_class=5, size=32)
    said = estimate_augment(f"{root}/photos", str(tmp_path / "out"), config).to_json()
    done = augment(f"{root}/photos", str(tmp_path / "out"), config, print).to_json()
    # The broken photo counts as a good one until it is opened.
    assert (said["num_originals"], done["num_originals"]) == (10, 9)
    assert said["num_originals"] + said["num_augmented"] == 5 * len(COLOURS)
    assert done["num_originals"] + done["num_augmented"] == 5 * len(COLOURS)
    assert said["write_bytes"]["copies"] == sum(
        path.stat().st_size for path in (root / "photos").glob("*/*")
    )


def test_train_says_how_photos_are_shared_out(world, alone):
    root, _ = world
    code, said = dry("train", f"{root}/photos", f"{root}/new", "--weights", "none", "--epochs", 3)
    assert code == 0
    # Of red's four and the others' three: two and one are held out.
    assert (said["num_training"], said["num_validation"]) == (6, 4)
    assert said["num_steps_an_epoch"] == 1
    assert said["read_bytes"]["an_epoch"] == sum(
        path.stat().st_size for path in (root / "photos").glob("*/*")
    )
    assert said["write_bytes"]["weights"] > 40_000_000  # resnet18


def test_reindex_plans_its_queries_and_its_ranking_too(world, alone):
    root, _ = world
    code, said = dry(
        "reindex", f"{root}/photos", f"{root}/index", *EMBED,
        "--queries", f"{root}/photos/red", "--rankings", f"{root}/ranking", "--top-k", 5,
    )  # fmt: skip
    assert code == 0
    assert said["queries"]["num_to_embed"] == {"at_least": 4, "at_most": 4}
    assert said["ranking"]["num_rows_at_most"] == 4 * 5
    assert not said["ranking"]["is_incremental"]


def test_on_a_cluster_it_looks_at_the_nodes_that_are_there(world):
    root, _ = world
    said = estimate(f"{root}/photos", f"{root}/new", FAKE).to_json()
    assert said["planned_for"] == "the cluster"
    (node,) = said["nodes"]
    assert node["num_cpus"] == ray.cluster_resources()["CPU"]
    assert node["memory_bytes"] == int(ray.cluster_resources()["memory"])


def test_on_a_cluster_without_nodes_it_plans_for_what_is_asked_for(world, monkeypatch):
    root, _ = world
    monkeypatch.setattr(forecast, "present", list)
    site = Site(min_cpus=16, min_gpus=2)
    said = estimate(f"{root}/photos", f"{root}/new", FAKE, site=site).to_json()
    assert (said["planned_for"], said["are_enough"]) == ("what is asked for", False)
    assert [(node["num_cpus"], node["num_gpus"]) for node in said["nodes"]] == [(16, 2)]
