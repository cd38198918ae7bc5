"""Which photos `train` trains on and which it measures: nothing measured is ever trained on."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.ray_runtime.cluster_options import Site
from pipelines.train import TrainConfig
from pipelines.train.split import split_photos
from retrieval.errors import IndexFormatError, StorageError, UsageError
from retrieval.training.splitting import LEFT_OUT, TRAINING, VALIDATION
from tests.training import draw_photos, encode

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def photos(tmp_path):
    return draw_photos(tmp_path / "photos")


def sides_of(photos, said=None, **settings):
    split = split_photos(
        str(photos),
        TrainConfig(image_size=32, **settings),
        [].append if said is None else said.append,
        Site(),
    )
    return {(row["uri"]): row["side"] for row in split.photos.to_pylist()}


def copy_each(photos, number):
    """As `augment` writes them: copies beside their originals, and the list of both."""
    rows = []
    for file in sorted(photos.rglob("*.jpg")):
        image_id = str(file.relative_to(photos))
        source = hashlib.sha256(file.read_bytes()).hexdigest()
        rows.append({"image_id": image_id, "source_sha256": source, "technique": None})
        for index in range(number):
            name = f"{image_id}.invert-{index}.jpg"
            shade = (sum(file.read_bytes()) + index) % 200
            (photos / name).write_bytes(encode([[[shade, index, 9]] * 40] * 40))
            rows.append({"image_id": name, "source_sha256": source, "technique": "invert"})
    (photos / ".augmented").mkdir()
    (photos / ".augmented" / "settings.json").write_text(json.dumps({}))
    pq.write_table(pa.Table.from_pylist(rows), photos / ".augmented" / "manifest.parquet")


def test_no_copy_of_a_validation_photo_is_trained_on_and_none_is_measured(photos):
    copy_each(photos, 3)
    sides = sides_of(photos, validation=0.25)
    originals = {uri: side for uri, side in sides.items() if ".invert-" not in uri}
    assert sorted(originals.values()) == [TRAINING] * 18 + [VALIDATION] * 6
    for uri, side in originals.items():
        copies = [sides[f"{uri}.invert-{index}.jpg"] for index in range(3)]
        assert copies == [TRAINING if side == TRAINING else LEFT_OUT] * 3


def test_fewer_photos_of_a_class_take_their_copies_with_them(photos):
    copy_each(photos, 2)
    sides = sides_of(photos, validation=0.25, photos_per_class=2)
    trained = [uri for uri, side in sides.items() if side == TRAINING]
    assert len(trained) == 3 * 2 * (1 + 2)
    assert len({uri.split(".invert-")[0] for uri in trained}) == 3 * 2


def test_an_augmentation_that_is_not_finished_or_cannot_be_read_is_refused(photos):
    copy_each(photos, 1)
    manifest = photos / ".augmented" / "manifest.parquet"
    manifest.write_bytes(manifest.read_bytes()[:50])
    with pytest.raises(IndexFormatError, match=r"^.*manifest\.parquet: cannot be read \(.*\), so"):
        sides_of(photos)
    manifest.unlink()
    with pytest.raises(UsageError) as caught:
        sides_of(photos)
    assert str(caught.value) == (
        f"{photos}: augment has not finished there, so that copies of validation photos cannot be "
        f"told. Run augment again."
    )


def test_a_validation_folder_is_measured_and_what_it_holds_is_not_trained_on(photos, tmp_path):
    copy_each(photos, 2)
    others = tmp_path / "others"
    (others / "red").mkdir(parents=True)
    shutil.copy(photos / "red" / "3.jpg", others / "red" / "the-same.jpg")
    (others / "red" / "new.jpg").write_bytes(encode([[[222, 22, 22]] * 40] * 40))
    sides = sides_of(photos, validation=str(others))
    measured = {uri for uri, side in sides.items() if side == VALIDATION}
    assert measured == {f"{others}/red/the-same.jpg", f"{others}/red/new.jpg"}
    left_out = {uri for uri, side in sides.items() if side == LEFT_OUT}
    same = f"{photos}/red/3.jpg"
    assert left_out == {same, f"{same}.invert-0.jpg", f"{same}.invert-1.jpg"}
    assert len(sides) == 24 * 3 + 2


def test_a_validation_folder_with_a_class_of_its_own_is_refused(photos, tmp_path):
    others = draw_photos(tmp_path / "others")
    (others / "red").rename(others / "violet")
    (others / "blue").rename(others / "yellow")
    with pytest.raises(UsageError) as caught:
        sides_of(photos, validation=str(others))
    assert str(caught.value) == (
        f"`validation` {others}: has the class 'violet', which is not trained on (2 such classes). "
        f"Remove it there, or add photos of it."
    )


def test_a_class_of_which_all_is_measured_is_refused(photos, tmp_path):
    others = tmp_path / "others"
    shutil.copytree(photos / "red", others / "red")
    with pytest.raises(UsageError, match="class 'red' has no photo left to train on: all of them"):
        sides_of(photos, validation=str(others))


def test_too_few_classes_or_photos_are_each_a_clear_line(photos, tmp_path):
    for name in ("red", "blue"):
        shutil.rmtree(photos / name)
    with pytest.raises(UsageError) as caught:
        sides_of(photos)
    assert str(caught.value) == (
        f"{photos}: 1 class with photos to train on; at least two are needed, one folder each."
    )
    for number in range(1, 8):
        (photos / "green" / f"{number}.jpg").unlink()
    (photos / "red").mkdir()
    (photos / "red" / "1.jpg").write_bytes(encode([[[222, 22, 22]] * 40] * 40))
    with pytest.raises(UsageError) as caught:
        sides_of(photos)
    assert str(caught.value) == (
        f"{photos}: no class has a second photo, so that nothing can be held out to measure. Add "
        f"photos, or name a folder: `validation` FOLDER."
    )
    for file in photos.rglob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        sides_of(photos)
    assert str(caught.value) == (
        f"{photos}: none of the 2 labelled files is a readable photo (such as green/0.jpg: the "
        f"file has 0 bytes). A folder that holds photos is needed."
    )


def test_photos_without_folders_are_refused_and_other_labels_taken(photos, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in photos.rglob("*.jpg"):
        shutil.copy(file, flat / f"{file.parent.name}_{file.name}")
    with pytest.raises(UsageError) as caught:
        sides_of(flat)
    assert str(caught.value) == (
        f"{flat}: none of its 24 files lies in a class folder, such as 'blue_0.jpg'. One folder a "
        f"class is needed, or `labels`."
    )
    sides = sides_of(flat, labels="pattern:^([a-z]+)_", validation=0.25)
    assert sorted(sides.values()) == [TRAINING] * 18 + [VALIDATION] * 6


def invoke(*arguments):
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


@pytest.mark.parametrize(
    "options",
    [
        ["--mode", "half"],
        ["--num-workers", "0"],
        ["--num-workers", "4-2"],
        ["--validation", "1.5"],
        ["--dropout", "1"],
        ["--learning-rate", "0"],
        ["--epochs", "0"],
        ["--lr-decay", "2"],
    ],
)
def test_wrong_options_are_exit_code_2(photos, tmp_path, options):
    assert invoke(photos, tmp_path / "model", *options).exit_code == 2
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--weights", "no.pth"], "--weights no.pth: cannot be read (No such file or directory)."),
        (["--backbone", "vgg16"], "--backbone vgg16: unknown. Use one of resnet18,"),
        (
            ["--recipe", "wild"],
            f"{Path.cwd()}/wild: no such file. Use paper, light, none, or name a file of YAML.",
        ),
        (
            ["--mode", "from-scratch", "--weights", "imagenet"],
            "--weights imagenet: --mode from-scratch starts from random weights. Leave --weights",
        ),
        (
            ["--weights", "none", "--num-workers", "20"],
            "--num-workers 20: the smallest of batch (32), training photos (18) and validation",
        ),
        (
            ["--weights", "none", "--mode", "last-layer", "--loss", "multi-similarity"],
            "--loss multi-similarity: judges the features, which --mode last-layer does not train.",
        ),
        (
            ["--weights", "none", "--loss", "arcface", "--label-smoothing", "0.1"],
            "--label-smoothing 0.1: has no effect with --loss arcface. Leave it out, or use",
        ),
        (
            ["--weights", "none", "--sampler", "balanced", "--batch-size", "30"],
            "--batch-size 30: with --sampler balanced a batch holds 4 photos of each of its",
        ),
    ],
)
def test_settings_that_cannot_be_met_are_one_line_and_leave_nothing(
    photos, tmp_path, options, line
):
    result = invoke(photos, tmp_path / "model", "--validation", "0.25", *options)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith(f"Error: {line}"), result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not (tmp_path / "model").exists()


def test_decoding_tasks_do_not_load_torch():
    code = "import sys, pipelines.train.decoding, pipelines.scan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
