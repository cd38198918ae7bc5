"""`experiment`: rows of the table trained and measured, run again, failing, lacking weights."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.experiment import ExperimentConfig, run
from pipelines.experiment.photos import copy_photos, find_sides
from pipelines.ray_runtime.cluster_options import Site
from pipelines.scan import scan_photos
from retrieval.errors import StorageError, UsageError
from retrieval.experiments import ROWS, Row, choose_rows
from retrieval.models.folder import open_model
from retrieval.ranking.files import open_ranking
from retrieval.storage import list_files
from tests.training import draw_photos, encode

pytestmark = pytest.mark.usefixtures("ray_session")

PAPER = (0.5, 0.6, 0.7)
(RESNET50,) = choose_rows(ROWS, ["Resnet50-full_layer"])
TABLE = (
    Row("Fragile", "tests.fakes:fragile", "full", PAPER, weights="none"),  # NaN for the rare photos
    RESNET50,
    Row("Small", "tests.training:small", "full", PAPER, photos_per_class=3, weights="none"),
    Row("Unasked", "tests.training:small", "full", (0.7, 0.6, 0.8), data_set=1, weights="none"),
)
CONFIG = ExperimentConfig(
    rows=("Fragile", "Resnet50-full_layer", "Small"), scale="small", epochs=1, image_size=32,
    per_class=8, queries_per_class=2, batch_size=6,
)  # fmt: skip
WEIGHTS = "resnet50-0676ba61.pth"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """torchvision's cache, empty, on a machine without network."""

    def refuse(connection):
        raise OSError("no network in tests")

    home = tmp_path_factory.mktemp("torch-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("http.client.HTTPSConnection.connect", refuse)
        patch.setenv("TORCH_HOME", str(home))
        yield home / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of eight photos; one of two and a copy of one of them; a file of no class."""
    root = draw_photos(tmp_path_factory.mktemp("experiment") / "photos")
    for name, shade in (("1", 250), ("2", 90), ("copy-of-2", 90)):
        (root / "rare").mkdir(exist_ok=True)
        (root / "rare" / f"{name}.jpg").write_bytes(encode([[[shade, shade, 9]] * 9] * 9))
    (root / "outside.jpg").write_bytes(encode([[[9, 9, 9]]]))
    return root


@pytest.fixture(scope="module")
def first(photos, tmp_path_factory):
    """A run, for the tests that only look."""
    output, said = tmp_path_factory.mktemp("output") / "results", []
    report = run(str(photos), str(output), CONFIG, said.append, table=TABLE)
    return output, report, said


def ids_of(folder):
    return {str(Path(file).relative_to(folder)) for file in list_files(str(folder))}


def written_at(folder):
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in files}


def test_photos_become_queries_and_gallery_to_the_byte(photos, first):
    output, report, _ = first
    queries = ids_of(output / "photos" / "queries")
    gallery = ids_of(output / "photos" / "gallery")
    assert sorted(map(os.path.dirname, queries)) == ["blue"] * 2 + ["green"] * 2 + ["red"] * 2
    everything = ids_of(photos) - {"outside.jpg", "rare/copy-of-2.jpg"}
    assert queries | gallery == everything
    assert not queries & gallery
    for side, ids in (("queries", queries), ("gallery", gallery)):
        for image_id in ids:
            copied = (output / "photos" / side / image_id).read_bytes()
            assert copied == (photos / image_id).read_bytes()
    assert (output / "photos" / "augmented-0" / "rare").is_dir()
    assert not (output / "photos" / "augmented-1").exists()  # of a row that nobody asked for
    assert report["run"]["num_queries"] == 6
    assert report["run"]["num_gallery"] == 20
    assert (report["run"]["num_query_classes"], report["run"]["num_classes"]) == (3, 4)


def test_a_row_is_trained_measured_and_kept(first):
    output, report, _ = first
    small = report["rows"][2]
    assert small["status"] == "done"
    assert 0 <= small["top_1"] <= small["top_3"] <= small["top_10"] <= 1
    assert small["difference_top_1"] == pytest.approx(small["top_1"] - 0.5)
    assert (small["num_queries"], small["num_classes"], small["num_gallery"]) == (6, 3, 20)
    assert (small["epochs"], small["best_epoch"]) == (1, 1)
    assert small["training_s"] > 0
    folder = output / "rows" / "Small"
    result = json.loads((folder / "result.json").read_text())
    assert result["measured"]["top_1"] == pytest.approx(small["top_1"], abs=1e-4)
    model = open_model(result["paths"]["model"])
    assert model.training["settings"]["photos_per_class"] == 3
    assert model.preprocessing.size == 32
    ranking = open_ranking(str(folder / "ranking"))
    assert ranking.facts["is_complete"]
    assert ranking.facts["gallery"]["spec"]["fingerprint"] == model.fingerprint


def test_rows_that_fail_or_lack_their_weights_are_listed_and_stop_no_other(first, cache):
    output, report, said = first
    fragile, lacking, small, unasked = report["rows"]
    assert fragile["status"].startswith(f"failed: {output}/rows/Fragile/model-")
    assert "loss is nan" in fragile["status"]
    assert lacking["status"] == f"weights missing: {cache / WEIGHTS}"
    assert (small["status"], unasked["status"]) == ("done", "not run")
    assert report["failed"] == ["Fragile"]
    assert report["statuses"] == {"failed": 1, "weights missing": 1, "done": 1, "not run": 1}
    assert not (output / "rows" / "Resnet50-full_layer").exists()
    assert not (output / "rows" / "Unasked").exists()
    assert said[-1].startswith("3/3 Small: top-1 ")
    assert f"2/3 Resnet50-full_layer: weights missing: {cache / WEIGHTS}" in said


def test_what_is_said_is_a_line_a_step(photos, first):
    said = first[2]
    assert said[:5] == [
        f"{photos}: 1 files lie in no class and are left out",
        f"{photos}: 1 files are copies of others to the byte and are left out",
        f"{photos}: class 'rare' has 2 photos and gives no queries",
        "6 queries and 20 gallery photos",
        "weights of resnet50 are neither on this machine nor can they be downloaded (<urlopen "
        "error no network in tests>)",
    ]
    steps = [line.removeprefix("3/3 Small: ") for line in said if line.startswith("3/3")]
    assert steps[0] == "training ..."
    assert any(step.startswith("epoch 1/1: loss ") for step in steps)
    assert steps[-2] == "embedding queries and gallery, ranking ..."
    assert not any("\n" in line for line in said)


def test_the_three_outputs_hold_the_same(first):
    output, report, _ = first
    written = json.loads((output / "experiment.json").read_text())
    only_returned = {name: report[name] for name in ("failed", "seconds")}
    assert {**written, **only_returned} == json.loads(json.dumps(report))
    with (output / "experiment.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["status"] for row in rows] == [entry["status"] for entry in report["rows"]]
    page = (output / "experiment.md").read_text()
    assert "1 of 4 rows are done, at scale small: 1 epoch, images of 32 × 32 pixels" in page
    assert "| Unasked † | not run |" in page


def test_run_again_it_keeps_what_is_done_and_redoes_what_has_other_settings(
    photos, first, tmp_path_factory
):
    output, report, _ = first
    before, said = written_at(output / "rows" / "Small"), []
    again = run(
        str(photos), str(output), replace(CONFIG, rows=("Small",)), said.append, table=TABLE
    )
    assert written_at(output / "rows" / "Small") == before
    assert again["rows"][2] == report["rows"][2]
    assert said[-1].startswith("1/1 Small: done before: top-1 ")
    # What a row that is not asked for failed of is not known to this run.
    assert [entry["status"] for entry in again["rows"]] == ["not run", "not run", "done", "not run"]

    other = replace(CONFIG, rows=("Small",), epochs=2)
    redone = run(str(photos), str(output), other, said.append, table=TABLE)
    assert redone["rows"][2]["status"] == "done"
    assert redone["rows"][2]["epochs"] == 2
    result = json.loads((output / "rows" / "Small" / "result.json").read_text())
    assert result["settings"]["train"]["epochs"] == 2
    models = [path for path in before if path.name == "model.json"]
    assert written_at(models[0].parent) == {
        path: at for path, at in before.items() if path.parent == models[0].parent
    }  # another training is in another folder, and this one is not lost


def test_copies_follow_the_photos_also_on_an_object_store(tmp_path, s3):
    photos = draw_photos(tmp_path / "photos")
    target = f"{s3}/experiment/photos"

    def sides_of(per_class):
        scan = scan_photos(str(photos), "folder", size=256, site=Site())
        sides = find_sides(str(photos), scan, per_class=per_class, seed=1, say=lambda line: None)
        copy_photos(sides, target)
        return (
            sides.fingerprint(),
            len(list_files(f"{target}/queries")),
            len(list_files(f"{target}/gallery")),
        )

    first = sides_of(per_class=2)
    assert first[1:] == (6, 18)
    (photos / "red" / "0.jpg").write_bytes((photos / "red" / "1.jpg").read_bytes() + b"\0")
    second = sides_of(per_class=1)
    assert second[1:] == (3, 21)
    assert second[0] != first[0]
    assert sides_of(per_class=1) == second


def test_places_and_photos_that_do_not_do_are_refused(photos, tmp_path):
    def failure(source, output, kind=UsageError, **settings):
        with pytest.raises(kind) as caught:
            run(str(source), str(output), replace(CONFIG, **settings), print, table=TABLE)
        return str(caught.value)

    mixed = "so that photos and results would be mixed up. Choose a folder elsewhere."
    assert failure(photos, photos) == f"{photos}: is the photos' folder {photos}, {mixed}"
    assert failure(photos, photos / "results").endswith(f"folder {photos}, {mixed}")
    inside = tmp_path / "photos"
    inside.symlink_to(photos)
    assert "has not written, such as photos." in failure(inside, tmp_path, StorageError)
    assert failure(photos, tmp_path / "a", queries_per_class=7) == (
        f"`queries_per_class` 7: no class of {photos} has 9 different photos, the largest has 8; "
        f"two must remain in the gallery. Use fewer queries, or add photos."
    )
    (tmp_path / "b" / "photos" / "queries").mkdir(parents=True)
    (tmp_path / "b" / "photos" / "queries" / "mine.jpg").write_bytes(b"mine")
    assert "that experiment has not written, such as" in failure(
        photos, tmp_path / "b", StorageError
    )
    (tmp_path / "made" / ".augmented").mkdir(parents=True)
    (tmp_path / "made" / ".augmented" / "settings.json").write_text("{}")
    assert "has been written by augment" in failure(tmp_path / "made", tmp_path / "c")
    assert not (tmp_path / "a").exists() or not list_files(str(tmp_path / "a"))


def invoke(*arguments):
    return CliRunner().invoke(main, ["experiment", *map(str, arguments)])


def test_the_command_tells_its_exit_code(photos, tmp_path, cache):
    arguments = [photos, tmp_path, "--scale", "small", "--per-class", "6", "--rows"]
    missing = invoke(*arguments, "Resnet50-full_layer")
    assert missing.exit_code == 0, missing.stderr
    report = json.loads(missing.stdout)
    assert report["statuses"] == {"not run": 16, "weights missing": 1}
    assert report["run"]["epochs"] == 2
    (cache / WEIGHTS).write_bytes(b"damaged")
    try:
        failed = invoke(*arguments, "Resnet50-full_layer")
    finally:
        (cache / WEIGHTS).unlink()
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["statuses"] == {"not run": 16, "failed": 1}
    assert failed.stderr.splitlines()[-1] == (
        f"Error: Failed rows: Resnet50-full_layer. Mend what {tmp_path}/experiment.md says of "
        f"them, and run the same command again: rows that are done are kept."
    )


def test_the_help_has_an_example_and_the_names_of_all_rows():
    text = invoke("--help").stdout
    assert "retrieval-cli experiment photos" in text.split("Example:")[1]
    assert text.split("Rows:\n")[1].split() == [row.name for row in ROWS]


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--rows", "Resnet50-fulllayer", "Near to it: Resnet50-full_layer, "),
        ("--scale", "tiny", "'full', 'small'"),
        ("--epochs", "0", "not a whole number from 1 "),
        ("--image-size", "31", "not a whole number from 32 "),
    ],
)
def test_wrong_usage_is_exit_code_2(option, value, complaint):
    result = invoke("photos", "output", option, value)
    assert result.exit_code == 2
    assert complaint in result.stderr.splitlines()[-1]
