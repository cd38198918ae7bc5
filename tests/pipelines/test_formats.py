"""Files outside an index say the version of their form; older ones are read, newer ones refused."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import later_settings
from pipelines.augment.output import check_format, check_places
from pipelines.augment.worker import encode_table, read_part
from pipelines.experiment import row as row_module
from pipelines.experiment.config import ExperimentConfig
from pipelines.experiment.photos import GALLERY, QUERIES, Sides, copy_photos
from pipelines.experiment.row import RowRun
from pipelines.later_settings import TRAIN, comparable
from pipelines.ray_runtime.cluster_options import Site
from pipelines.train import publishing
from pipelines.train.config import TrainConfig
from pipelines.train.publishing import finished_model, resume_split, start_folder
from pipelines.train.split import SPLIT_SCHEMA, Split, share_photos
from retrieval.augmentations.manifest import MANIFEST_SCHEMA
from retrieval.drawn import draw_gallery
from retrieval.errors import IndexFormatError, StorageError, UsageError
from retrieval.experiments import ROWS
from retrieval.format_version import check_table_format, with_format
from retrieval.index.schema import REJECT_SCHEMA
from retrieval.training.checkpoints import Progress

KEY = b"retrieval.format_version"


def newer(where, version=2):
    text = f"{where}: written by a newer release: format_version {version}; this program reads 1. "
    return f"^{re.escape(text)}Upgrade retrieval-cli.$"


def rewrite_json(file, **values):
    """Change what a JSON file says; None removes a name."""
    found = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({name: found[name] for name in found if found[name] is not None}))


def rewrite_table(file, version):
    """Let a table say another version of its form; None for none, as the first release did."""
    table = pq.read_table(file)
    others = {key: text for key, text in (table.schema.metadata or {}).items() if key != KEY}
    mark = {} if version is None else {KEY: str(version)}
    pq.write_table(table.replace_schema_metadata({**others, **mark}), file)


# ------------------------------------------------------------------------------------- tables


def test_a_table_says_its_version_and_keeps_its_other_metadata(tmp_path):
    table = pa.table({"a": [1]}).replace_schema_metadata({"b": "c"})
    pq.write_table(with_format(table, 3), tmp_path / "t.parquet")
    schema = pq.read_table(tmp_path / "t.parquet", columns=["a"]).schema
    assert schema.metadata == {b"b": b"c", KEY: b"3"}
    assert check_table_format(schema, 3, "t", StorageError) == 3
    assert check_table_format(table.schema, 3, "t", StorageError) == 1
    with pytest.raises(IndexFormatError, match=r"^t: written by a newer release: format_version 3"):
        check_table_format(schema, 2, "t", IndexFormatError)


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "²", "1.0"])
def test_a_version_that_is_no_number_is_refused(text):
    schema = pa.schema([("a", pa.int64())], metadata={KEY: text})
    with pytest.raises(StorageError, match=r"^t: format_version .* is needed"):
        check_table_format(schema, 3, "t", StorageError)


# ------------------------------------------------------------------------------ later settings


def test_a_later_setting_at_its_first_value_is_as_if_it_was_not_there():
    later = {"mean": (0.5, 0.25), "decoder": 1, "roots": None}
    first = {"size": 3}
    assert comparable(first, later) == first
    assert comparable({**first, **later}, later) == first
    assert comparable({**first, "mean": [0.5, 0.25]}, later) == first
    changed = {**first, "mean": (0.5, 0.5), "decoder": 2, "roots": 0}
    assert comparable(changed, later) == {**changed, "mean": [0.5, 0.5]}


def test_every_later_setting_is_one_of_its_job():
    from pipelines.augment import AugmentConfig

    assert later_settings.TRAIN.keys() <= asdict(TrainConfig()).keys()
    assert later_settings.AUGMENT.keys() <= asdict(AugmentConfig()).keys()


# ------------------------------------------------------------------------------------ training

SETTINGS = {"photos": "/photos", "sizes": (1, 2), "seed": 0}


@pytest.fixture
def training(tmp_path):
    """An unfinished training in a folder."""
    photos = pa.Table.from_pylist(
        [{"image_id": "a", "uri": "/a", "label": "x", "side": "training", "size_bytes": 1}],
        schema=SPLIT_SCHEMA,
    )
    start_folder(str(tmp_path), Split(photos, REJECT_SCHEMA.empty_table()), SETTINGS)
    return tmp_path


def test_an_unfinished_training_is_gone_on_with_as_the_first_release_left_it(training):
    files = [training / "training" / "settings.json", training / "split.parquet",
             training / "rejects.parquet"]  # fmt: skip
    assert json.loads(files[0].read_text())["format_version"] == 1
    assert all(pq.read_schema(file).metadata[KEY] == b"1" for file in files[1:])
    found = resume_split(str(training), SETTINGS)
    rewrite_json(files[0], format_version=None)
    for file in files[1:]:
        rewrite_table(file, None)
    first = resume_split(str(training), SETTINGS)
    assert first.photos.equals(found.photos)
    assert first.photos.num_rows == 1


@pytest.mark.parametrize("name", ["training/settings.json", "split.parquet", "rejects.parquet"])
def test_a_training_that_a_newer_release_began_is_refused(training, name):
    file = training / name
    if name.endswith(".json"):
        rewrite_json(file, format_version=2)
    else:
        rewrite_table(file, 2)
    with pytest.raises(StorageError, match=newer(file)):
        resume_split(str(training), SETTINGS)


@pytest.mark.parametrize("name", ["training/settings.json", "split.parquet", "rejects.parquet"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_damaged_file_of_a_training_is_named_in_one_line(training, name, content):
    (training / name).write_bytes(content)
    with pytest.raises(StorageError) as caught:
        resume_split(str(training), SETTINGS)
    said = str(caught.value)
    assert said.startswith(f"{training / name}: cannot be read (")
    assert said.endswith(
        "), so that the training that was begun there cannot go on. Use another folder."
    )
    assert "\n" not in said


class Finished:
    def __init__(self, settings):
        self.training = {"settings": settings}


@pytest.fixture(params=["unfinished", "finished"])
def going_on(request, training, monkeypatch):
    """A function that goes on with a training of some settings by some others."""

    def go_on(before, now):
        if request.param == "finished":
            monkeypatch.setattr(publishing, "is_model", lambda uri: True)
            monkeypatch.setattr(publishing, "open_model", lambda uri: Finished(before))
            return finished_model(str(training), now)
        file = training / "training" / "settings.json"
        file.write_text(json.dumps(before))
        return resume_split(str(training), now)

    monkeypatch.setattr(publishing, "TRAIN", {"decoder": 1, "mean": None})
    return go_on


BEFORE = {"photos": "/photos", "sizes": [1, 2], "seed": 0}


@pytest.mark.parametrize("later", [{}, {"decoder": 1}, {"decoder": 1, "mean": None}])
def test_settings_that_a_file_does_not_name_are_as_they_were_then(going_on, later):
    assert going_on(BEFORE, {**SETTINGS, "decoder": 1, "mean": None})
    assert going_on({**BEFORE, **later}, {**SETTINGS, "decoder": 1})
    assert going_on({**BEFORE, "mean": [1, 2]}, {**SETTINGS, "mean": (1, 2)})


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({}, {"decoder": 2}, "decoder 1, now 2"),
        ({"decoder": 2}, {"decoder": 1}, "decoder 2, now 1"),
        ({}, {"mean": (1, 2)}, "mean None, now (1, 2)"),
        ({"mean": [1, 2]}, {"mean": (1, 3)}, "mean [1, 2], now (1, 3)"),
        ({"seed": 1}, {}, "seed 1, now 0"),
        ({"novelty": 5}, {}, "novelty 5, which this release does not know"),
    ],
)
def test_other_settings_are_refused_by_name(going_on, training, before, now, said):
    with pytest.raises(UsageError) as caught:
        going_on({**BEFORE, **before}, {**SETTINGS, **now})
    assert f"training with other settings ({said}). Use the same" in (
        str(caught.value).replace("finished model", "training")
    )


def test_a_checkpoint_of_the_first_release_is_read_and_a_newer_one_refused(tmp_path):
    import torch

    network = torch.nn.Linear(2, 2)
    Progress().save(tmp_path, network, torch.optim.SGD(network.parameters(), 0.1))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state.pop("format_version") == 1
    torch.save(state, tmp_path / "state.pt")
    assert Progress.load(tmp_path).history == []
    torch.save({**state, "format_version": 2}, tmp_path / "state.pt")
    with pytest.raises(StorageError, match=newer(tmp_path / "state.pt")):
        Progress.load(tmp_path)


# ---------------------------------------------------------------------------- augmented photos


def test_an_output_of_a_newer_release_is_not_augmented_into(tmp_path):
    (tmp_path / ".augmented").mkdir()
    file = tmp_path / ".augmented" / "settings.json"
    for content in ("{}", "[", "[1]", '{"format_version": 1}'):
        file.write_text(content)
        check_format(str(tmp_path))
    file.write_text('{"format_version": 2}')
    with pytest.raises(StorageError, match=newer(file)):
        check_format(str(tmp_path))
    file.write_text('{"format_version": 1, "photos": "/photos", "recipe": "none"}')
    copied = tmp_path / ".augmented" / "copied.parquet"
    table = pa.table({"image_id": ["a.jpg"]})
    (tmp_path / "a.jpg").write_bytes(b"")
    for version in (None, 1):  # the first one did not say it
        copied.write_bytes(encode_table(table))
        rewrite_table(copied, version)
        check_places("/photos", str(tmp_path))
    rewrite_table(copied, 2)
    with pytest.raises(StorageError, match=newer(copied)):
        check_places("/photos", str(tmp_path))


def test_a_part_of_a_newer_release_is_not_made_again(tmp_path):
    part = tmp_path / ".augmented" / "parts" / "u.parquet"
    part.parent.mkdir(parents=True)
    schema = MANIFEST_SCHEMA.append(pa.field("size_bytes", pa.int64()))
    notes = {"dropped": "{}", "data_bytes": "null"}
    part.write_bytes(encode_table(schema.empty_table().replace_schema_metadata(notes)))
    assert pq.read_schema(part).metadata[KEY] == b"1"
    assert read_part(str(tmp_path), "u").rows.schema == MANIFEST_SCHEMA
    rewrite_table(part, None)
    assert read_part(str(tmp_path), "u").files == {}
    rewrite_table(part, 2)
    with pytest.raises(StorageError, match=newer(part)):
        read_part(str(tmp_path), "u")


def test_photos_that_a_newer_release_augmented_are_not_trained_on(tmp_path):
    manifest = tmp_path / ".augmented" / "manifest.parquet"
    manifest.parent.mkdir()
    manifest.write_bytes(encode_table(MANIFEST_SCHEMA.empty_table()))
    rewrite_table(manifest, 2)
    scan = type("Scan", (), {"num_unlabelled": 0, "empty_classes": ()})()
    columns = ["image_id", "uri", "label", "content_sha256"]
    scan.photos = pa.table({name: pa.array([], pa.string()) for name in columns})
    scan.rejects = REJECT_SCHEMA.empty_table()
    with pytest.raises(IndexFormatError, match=newer(manifest)):
        share_photos(str(tmp_path), TrainConfig(), print, lambda folder: scan)


# --------------------------------------------------------------------------------- experiments


@pytest.fixture
def sides(tmp_path):
    names = ["x/a.jpg", "x/b.jpg"]
    for name in names:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(name.encode())
    import hashlib

    columns = {
        "image_id": names,
        "uri": [str(tmp_path / "photos" / name) for name in names],
        "content_sha256": [hashlib.sha256(name.encode()).hexdigest() for name in names],
        "label": ["x", "x"],
        "side": [QUERIES, GALLERY],
    }
    return Sides(pa.table(columns))


def test_copies_that_the_first_release_made_are_kept_and_those_of_a_newer_one_not_touched(
    tmp_path, sides
):
    folder = tmp_path / "copies"
    copy_photos(sides, str(folder))
    marker, copy = folder / "sides.json", folder / QUERIES / "x" / "a.jpg"
    assert json.loads(marker.read_text())["format_version"] == 1
    rewrite_json(marker, format_version=None)
    before = copy.stat().st_ino
    copy_photos(sides, str(folder))
    assert copy.stat().st_ino == before
    rewrite_json(marker, format_version=2)
    with pytest.raises(StorageError, match=newer(marker)):
        copy_photos(sides, str(folder))
    assert copy.stat().st_ino == before


@pytest.fixture
def row_run(tmp_path, sides):
    config = ExperimentConfig()
    return RowRun(ROWS[0], config, str(tmp_path / "copies"), sides, str(tmp_path / "row"), Site())


def write_result(row_run, **values):
    (folder := row_run_folder(row_run)).mkdir(exist_ok=True)
    names = ("top_1", "top_3", "top_10", "map", "epochs", "best_epoch", "training_s",
             "num_queries", "num_classes", "num_gallery")  # fmt: skip
    result = {"settings": row_run.settings(), "measured": dict.fromkeys(names, 1), **values}
    (folder / "result.json").write_text(json.dumps(result))


def row_run_folder(row_run):
    from pathlib import Path

    return Path(row_run.folder)


def test_a_row_that_is_done_stays_done_when_there_are_more_settings(row_run, monkeypatch):
    write_result(row_run)
    model = row_run.model()
    assert row_run.finished().top_1 == 1
    first = {name: value for name, value in row_run.settings()["train"].items() if name != "seed"}
    write_result(row_run, settings={**row_run.settings(), "train": first})
    assert row_run.finished() is None
    # As if the seed had come later, and all had been by this one before.
    seed = row_run.settings()["train"]["seed"]
    monkeypatch.setattr(row_module, "TRAIN", {**TRAIN, "seed": seed})
    assert row_run.finished().top_1 == 1
    without_seed = row_run.model()
    assert without_seed != model
    monkeypatch.setattr(row_module, "TRAIN", {**TRAIN, "seed": 12345})
    assert row_run.finished() is None
    assert row_run.model() == model


def test_a_result_of_a_newer_release_is_refused_and_damage_is_measured_anew(row_run):
    write_result(row_run, format_version=2)
    file = row_run_folder(row_run) / "result.json"
    with pytest.raises(StorageError, match=newer(file)):
        row_run.finished()
    for content in ("", "[]", "{}", '{"settings": 1}', '{"settings": {"augment": 1}}'):
        file.write_text(content)
        assert row_run.finished() is None


# --------------------------------------------------------------------------- the drawn gallery


def test_a_gallery_drawn_by_the_first_release_is_kept_and_one_by_a_newer_refused(tmp_path):
    def draw():
        draw_gallery(tmp_path, num_classes=1, num_gallery_per_class=1, num_queries_per_class=1,
                     num_distractors=0, with_odd_files=False)  # fmt: skip

    draw()
    file = tmp_path / "drawn.json"
    assert json.loads(file.read_text())["format_version"] == 1
    rewrite_json(file, format_version=None)
    before = file.stat().st_mtime_ns
    draw()
    assert file.stat().st_mtime_ns == before
    rewrite_json(file, format_version=2)
    with pytest.raises(StorageError, match=newer(file)):
        draw()
