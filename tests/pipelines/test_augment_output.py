"""What `augment` refuses before it begins, its units of work, its forms, its command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipelines import augment as job
from pipelines.augment import AugmentConfig, estimate, run
from pipelines.augment.plan import check_names, plan_classes
from pipelines.augment.worker import UNIT_SCHEMA
from pipelines.cli import main
from retrieval.augmentations.multiplying import Method
from retrieval.augmentations.recipes import load_recipe
from retrieval.errors import StorageError, UsageError
from tests.pipelines.classes import SHEET, augment, building_bytes, files_of, write_classes

pytestmark = pytest.mark.usefixtures("sheets_drawn_once")

PAPER = Method(load_recipe("paper"), 0, 64, 90)


def line(text):
    return f"^{re.escape(text)}$"


def plans_of(ids, labels=None, rule="folder", **settings):
    labels = labels or [name.split("/")[0] for name in ids]
    columns = {
        "image_id": ids,
        "uri": [f"/photos/{name}" for name in ids],
        "size_bytes": [1] * len(ids),
        "label": labels,
        "content_sha256": [name * 3 for name in ids],
    }
    settings = {"per_class": 600, "kind": "jpeg", **settings}
    return plan_classes(pa.table(columns), rule, settings.pop("method", PAPER), **settings)


@pytest.mark.parametrize(("num_photos", "per_class"), [(15, 600), (100, 50), (1, 600), (40, 900)])
def test_units_hold_each_photo_of_a_class_once_and_are_of_one_size(num_photos, per_class):
    ids = [f"a/{number:03}.jpg" for number in range(num_photos)]
    (plan,) = plans_of(ids, per_class=per_class)
    units = plan.units()
    assert all(unit.schema.equals(UNIT_SCHEMA) for unit in units.values())
    whole = pa.concat_tables(units.values())
    assert whole["source_id"].to_pylist() == ids
    assert sum(whole["count"].to_pylist()) == max(0, per_class - num_photos)
    assert list(units) == [f"{plan.key}-0-{number}" for number in range(len(units))]
    largest = 1 + max(whole["count"].to_pylist())
    for unit in units.values():
        assert unit.num_rows <= 16
        assert unit.num_rows + sum(unit["count"].to_pylist()) < 150 + largest


def test_a_class_is_known_by_all_that_its_images_hang_on():
    ids = ["a/0.jpg", "a/1.jpg", "b/0.jpg"]
    plans = plans_of(ids)
    assert [plan.label for plan in plans] == ["a", "b"]
    others = [
        plans_of(ids[:1] + ids[2:]),
        plans_of(ids, per_class=599),
        plans_of(ids, kind="parquet"),
        plans_of(ids, method=Method(load_recipe("paper"), 1, 64, 90)),
        plans_of(ids, method=Method(load_recipe("light"), 0, 64, 90)),
        plans_of(ids, ["a", "a", "b"], rule="labels.csv"),
    ]
    keys = [plan.key for other in [plans, *others] for plan in other if plan.label == "a"]
    assert len(set(keys)) == 7
    assert plans_of(ids[:2])[0].key == plans[0].key  # other classes are nothing to it


def test_a_photo_with_the_name_of_a_result_is_refused():
    message = (
        "/photos/a/0.jpg.gaussian_blur-12.jpg: has the name of a result of a/0.jpg, as if "
        "augmented before. Give the original photos alone, or rename it."
    )
    with pytest.raises(UsageError, match=line(message)):
        plans_of(["a/0.jpg", "a/0.jpg.gaussian_blur-12.jpg"])
    plans_of(
        ["a/0.jpg", "a/1.jpg.gaussian_blur-12.jpg", "a/0.jpg.Blur-1.jpg", "b/0.jpg.crop-1.jpg"]
    )


def test_a_name_without_room_for_those_of_its_results_is_refused():
    plans_of(["a/" + "é" * 95 + "n"])
    message = r"^/photos/a/é+: has a name of more than 191 bytes, which leaves no room for those "
    with pytest.raises(UsageError, match=message):
        plans_of(["a/" + "é" * 96])


@pytest.mark.parametrize("name", ["é" * 127 + "ab", "x" * 256, "x" * 70_000])
@pytest.mark.parametrize("as_label", [True, False])
def test_a_name_that_no_file_system_takes_is_told_before_any_photo_is_opened(name, as_label):
    photos = pa.table({
        "image_id": ["x.jpg" if as_label else f"{name}/x.jpg"],
        "uri": ["s3://bucket/x.jpg"],
        "label": [name],
    })  # fmt: skip
    message = "cannot be the name of a class folder, .* in 255 bytes at most. Change it in `labels`"
    if not as_label:
        message = "lies in a folder with a name of more than 255 bytes"
    with pytest.raises(UsageError, match=message) as caught:
        check_names(photos, "labels.csv" if as_label else "folder")
    assert len(str(caught.value)) < 300
    fits = photos.set_column(2, "label", pa.array([name.encode()[:254].decode()]))
    if as_label:
        check_names(fits, "labels.csv")


@pytest.mark.parametrize("is_dry", [True, False])
@pytest.mark.parametrize("fault", ["label", "photo"])
def test_a_run_tells_such_a_name_before_it_starts_ray(tmp_path, monkeypatch, is_dry, fault):
    name = "x" * 240 + ".jpg" if fault == "photo" else "x.jpg"
    (tmp_path / "photos" / "a").mkdir(parents=True)
    (tmp_path / "photos" / "a" / name).touch()
    label = "l" * 300 if fault == "label" else "a"
    (tmp_path / "labels.csv").write_text(f"image_id,label\na/{name},{label}\n")
    monkeypatch.setitem(run.__globals__, "session", None)
    config = AugmentConfig(labels=str(tmp_path / "labels.csv"))
    folders = (str(tmp_path / "photos"), str(tmp_path / "output"))
    with pytest.raises(UsageError, match=f"{fault}|name of more than 191 bytes"):
        estimate(*folders, config) if is_dry else run(*folders, config, print)


@pytest.mark.parametrize("label", ["a/b", "..", ".", ".hidden", "a\0", "Thumbs.db", "@eaDir", "/"])
def test_a_label_that_cannot_be_a_folder_is_refused(label):
    message = (
        f"label {label!r} (of x.jpg): cannot be the name of a class folder, which has no slash "
        f"and does not begin with a dot. Change it in `labels`."
    )
    with pytest.raises(UsageError, match=line(message)):
        plans_of(["x.jpg"], [label], rule="labels.csv")


def test_folders_that_would_be_mixed_up_or_overwritten_are_refused(tmp_path):
    photos, mine = write_classes(tmp_path / "photos", a=2), tmp_path / "mine"
    write_classes(mine, _a=1)
    write_classes(tmp_path / "made", a=1)
    (tmp_path / "made" / ".augmented").mkdir()
    (tmp_path / "made" / ".augmented" / "settings.json").write_text("{}")
    (tmp_path / "link").symlink_to(photos)
    (tmp_path / "sheet").mkdir()
    (tmp_path / "sheet" / "augmentations.png").write_text("somebody's picture of that name")
    elsewhere = "so that photos and results would be mixed up. Choose a folder elsewhere."
    cases = [
        (photos, photos, UsageError, f"{photos}: is the photos' folder {photos}, {elsewhere}"),
        (photos, photos / "a" / "x", UsageError,
         f"{photos}/a/x: lies inside the photos' folder {photos}, {elsewhere}"),
        (photos, tmp_path, UsageError,
         f"{tmp_path}: holds the photos' folder {photos}, {elsewhere}"),
        (photos, tmp_path / "link" / "x", UsageError,
         f"{tmp_path}/link/x: lies inside the photos' folder {photos}, {elsewhere}"),
        (photos, mine, StorageError,
         f"{mine}: holds files that augment has not written, such as _a/0.jpg. Choose a new "
         f"folder, or move them elsewhere."),
        (photos, tmp_path / "sheet", StorageError,
         f"{tmp_path}/sheet: holds files that augment has not written, such as augmentations.png. "
         f"Choose a new folder, or move them elsewhere."),
        (tmp_path / "made", tmp_path / "new", UsageError,
         f"{tmp_path}/made: has been written by augment, and copies of copies are not made. Give "
         f"the folder of the original photos."),
    ]  # fmt: skip
    before = files_of(tmp_path)
    for source, target, kind, message in cases:
        with pytest.raises(kind, match=line(message)):
            augment(source, target)
    assert files_of(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_recipes_of_a_chain_and_of_nothing(tmp_path, ray_session):
    photos, output = write_classes(tmp_path / "photos", a=2), tmp_path / "output"
    augment(photos, output, recipe="light", per_class=6)
    assert sorted(files_of(output)) == [
        "a/0.jpg", "a/0.jpg.chain-1.jpg", "a/0.jpg.chain-2.jpg",
        "a/1.jpg", "a/1.jpg.chain-1.jpg", "a/1.jpg.chain-2.jpg", SHEET,
    ]  # fmt: skip
    assert augment(photos, output, recipe="none")["num_augmented"] == 0
    assert sorted(files_of(output)) == ["a/0.jpg", "a/1.jpg", SHEET]


def test_tables_have_small_row_groups(tmp_path, ray_session):
    photos = write_classes(tmp_path / "photos", a=2)
    augment(photos, tmp_path / "tables", format="parquet", per_class=70)
    (path,) = (tmp_path / "tables").glob("*.parquet")
    groups = pq.ParquetFile(path).metadata
    assert [groups.row_group(number).num_rows for number in range(3)] == [32, 32, 6]


def invoke(*arguments):
    return CliRunner().invoke(main, ["augment", *map(str, arguments)])


def test_the_command_prints_its_report_and_what_a_person_should_know(tmp_path, ray_session):
    photos = write_classes(tmp_path / "photos", a=2, b=1)
    (photos / "c").mkdir()
    done = invoke(photos, tmp_path / "output", "--per-class", "4", "--size", "48", "--seed", "5")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["num_augmented"] == 5
    assert done.stderr == f"{photos}: class 'c' has no readable photo and is left out\n"
    settings = json.loads((tmp_path / "output" / ".augmented" / "settings.json").read_text())
    assert (settings["seed"], settings["size"], settings["per_class"]) == (5, 48, 4)


def test_errors_of_the_command_are_one_line_and_exit_code_1(tmp_path, ray_session):
    photos = write_classes(tmp_path / "photos", a=1)
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "x.jpg").write_bytes(building_bytes(0, 0))
    output = tmp_path / "output"
    cases = [
        ([tmp_path / "none", output], f"{tmp_path}/none: missing."),
        ([tmp_path / "flat", output], f"{tmp_path}/flat: none of its 1 files lies in a class"),
        ([photos, photos / "o"], f"{photos}/o: lies inside the photos' folder {photos},"),
        ([photos, tmp_path / "flat"], f"{tmp_path}/flat: holds files that augment has not written"),
        ([photos, "/proc/o"], "/proc/o: cannot be written"),
        ([photos, output, "--recipe", "heavy"], f"{Path.cwd()}/heavy: no such file"),
        ([photos, output, "--labels", "no.csv"], "--labels no.csv: cannot be read"),
    ]
    for arguments, message in cases:
        result = invoke(*arguments)
        assert result.exit_code == 1, (arguments, result.output)
        assert result.stderr.startswith(f"Error: {message}"), (arguments, result.stderr)
        assert result.stderr.count("\n") == 1, result.stderr
        assert result.stdout == ""
    assert not output.exists()


@pytest.mark.parametrize(
    "options",
    [["--per-class", "0"], ["--per-class", "-5"], ["--size", "8"], ["--quality", "101"],
     ["--format", "png"], ["--seed", "-1"]],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(options):
    assert invoke("photos", "output", *options).exit_code == 2


def test_an_interrupted_command_says_that_it_goes_on(monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "run", interrupted)
    result = invoke("photos", "output")
    assert result.exit_code == 130
    assert result.stderr == (
        "Error: Interrupted. What is done of output is kept. Run the same command again: it goes "
        "on from there.\n"
    )
