"""Which photos are on which side, by what their folder tells; no Ray, no picture is opened."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from pipelines.experiment.photos import find_sides
from pipelines.scan import Scan, presume_photos
from pipelines.train import TrainConfig, estimate
from pipelines.train.decoding import PhotoLostError, _check_same
from pipelines.train.job import _describe_epoch
from pipelines.train.publishing import say_changes, start_folder
from pipelines.train.split import share_photos
from pipelines.train.tensorboard import event_writer
from retrieval.errors import UsageError
from retrieval.index.schema import REJECT_SCHEMA
from retrieval.training.checkpoints import is_better
from retrieval.training.curves import draw_curves
from retrieval.training.sampling import epoch_batches, num_steps
from retrieval.training.splitting import LEFT_OUT, TRAINING, VALIDATION

CLASSES = ("a", "b", "c")


def scan_of(contents):
    """What examining a folder would find, of image id → content."""
    ids = sorted(contents)
    hashes = [hashlib.sha256(contents[name]).hexdigest() for name in ids]
    table = pa.table(
        {
            "image_id": ids,
            "uri": [f"/photos/{name}" for name in ids],
            "size_bytes": pa.array([len(contents[name]) for name in ids], pa.int64()),
            "label": [name.split("/")[0] for name in ids],
            "content_sha256": hashes,
        }
    )
    return Scan(table, REJECT_SCHEMA.empty_table(), len(ids), 0, ())


def share(folders, tmp_path, said=None, **settings):
    """Sides by image id; `folders`: contents by the name of a folder, `photos` the first."""
    places = {str(tmp_path / name): scan_of(contents) for name, contents in folders.items()}
    if "held" in folders:
        settings["validation"] = str(tmp_path / "held")
    config = TrainConfig(**{"validation": 0.25, **settings})
    split = share_photos(
        str(tmp_path / "photos"), config, [].append if said is None else said.append,
        places.__getitem__,
    )  # fmt: skip
    return [(row["image_id"], row["side"]) for row in split.photos.to_pylist()]


def originals(num=8):
    return {f"{label}/{n}.jpg": f"{label}{n}".encode() for label in CLASSES for n in range(num)}


def copies_of(photos, name=lambda photo, number: f"{photo}.chain-{number}.jpg", num=2):
    return {name(photo, n): f"{photo} {n}".encode() for photo in photos for n in range(num)}


def capitals(photo, number):
    folder, file = photo.split("/")
    return f"{folder}/{file.upper()}.CHAIN-{number}.JPG"


NAMES = {
    "as augment gives them": lambda photo, number: f"{photo}.chain-{number}.jpg",
    "in capitals": capitals,
    "in another format": lambda photo, number: f"{photo}.crop-{number}.png",
    "in a folder below": lambda photo, n: f"{photo[:2]}copies/{photo[2:]}.hue-{n}.jpg",
}


@pytest.mark.parametrize("name", NAMES)
def test_copies_without_their_list_follow_their_photo(tmp_path, name):
    photos, said = originals(), []
    contents = {**photos, **copies_of(photos, NAMES[name])}
    sides = dict(share({"photos": contents}, tmp_path, said))
    assert sorted(sides[photo] for photo in photos) == [TRAINING] * 18 + [VALIDATION] * 6
    for photo in photos:
        found = {sides[NAMES[name](photo, number)] for number in range(2)}
        assert found == {TRAINING if sides[photo] == TRAINING else LEFT_OUT}
    (line,) = said
    assert line.startswith(
        f"{tmp_path / 'photos'}: 48 files have names of results of augment but stand in no list of "
        f"it, and are taken for copies of the photos in their names, such as "
    )


def test_copies_of_photos_that_are_not_there_stay_together_and_are_never_measured(tmp_path):
    photos = originals(16)
    lost = {f"{label}/{number}.jpg" for label in CLASSES for number in range(8)}
    contents = {**photos, **copies_of(photos)}
    for photo in lost:
        del contents[photo]
    sides = dict(share({"photos": contents}, tmp_path))
    for photo in lost:
        first, second = (sides[f"{photo}.chain-{number}.jpg"] for number in range(2))
        assert first == second != VALIDATION


def test_copies_of_a_photo_in_the_validation_folder_are_not_trained_on(tmp_path):
    photos = originals()
    held = {f"{label}/{number}.jpg" for label in CLASSES for number in range(2)}
    contents = {**photos, **copies_of(photos)}
    measured = {photo: contents.pop(photo) for photo in held}
    sides = share({"photos": contents, "held": measured}, tmp_path)
    assert {name for name, side in sides if side == VALIDATION} == held
    of_held = {name for name, side in sides if side == LEFT_OUT}
    assert of_held == {*copies_of(held)}


def test_one_photo_in_two_classes_and_a_class_that_vanishes_are_said(tmp_path):
    shared = [b"one", b"two"]
    contents = {f"a/{n}.jpg": f"a{n}".encode() for n in range(8)}
    contents |= {f"c/{n}.jpg": f"c{n}".encode() for n in range(8)}
    contents |= {f"{label}/x{n}.jpg": shared[n] for label in "ab" for n in range(2)}
    vanished = []
    for seed in range(40):
        said = []
        sides = dict(share({"photos": contents}, tmp_path, said, validation=0.4, seed=seed))
        assert said[0] == (
            f"{tmp_path / 'photos'}: 2 photos lie in more than one class, such as a/x0.jpg = "
            f"b/x0.jpg; none of them is trained on and measured at once"
        )
        of_b = {sides[f"b/x{n}.jpg"] for n in range(2)}
        line = (
            f"{tmp_path / 'photos'}: class 'b' is left out: all its photos are held out as other "
            f"classes'"
        )
        assert (of_b == {LEFT_OUT}) == (line in said)
        vanished.append(line in said)
    assert {True, False} == set(vanished)


def test_that_retrieval_cannot_be_measured_is_said(tmp_path):
    said = []
    share({"photos": originals(3)}, tmp_path, said)
    assert said == [
        f"{tmp_path / 'photos'}: retrieval cannot be measured, since no class holds out two "
        f"photos; of the epochs the one with the smallest validation loss is kept"
    ]
    said = []
    share({"photos": originals(4)}, tmp_path, said)
    assert said == []


def test_the_folder_of_a_model_is_no_class(tmp_path):
    for name in ("a/1.jpg", "b/1.jpg", "old/learning-curve.png", "old/model.json",
                 "old/weights.safetensors", "c/model.json", "c/2.jpg", "old/x/3.jpg"):  # fmt: skip
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    scan = presume_photos(str(tmp_path / "photos"), "folder")
    found = scan.photos["image_id"].to_pylist()
    assert found == ["a/1.jpg", "b/1.jpg", "c/2.jpg", "c/model.json", "old/x/3.jpg"]


def test_an_experiment_refuses_copies_whose_list_stayed_behind():
    photos = originals()
    for copies in (copies_of(photos), copies_of(photos, capitals)):
        with pytest.raises(UsageError, match="has the name of a result of a/0"):
            find_sides("p", scan_of({**photos, **copies}), per_class=1, seed=0, say=[].append)


@pytest.mark.parametrize(
    ("num_photos", "batch_size", "expected"), [(11, 4, 2), (8, 4, 2), (5, 32, 1), (4, 4, 1)]
)
def test_a_dry_run_counts_the_steps_that_are_trained(tmp_path, num_photos, batch_size, expected):
    codes = np.zeros(num_photos, np.int64)
    settings = {"batch_size": batch_size, "sampler": "shuffled", "seed": 0, "epoch": 0}
    assert len(epoch_batches(codes, **settings)) == expected == num_steps(num_photos, batch_size)
    for number in range(num_photos + 2):
        for label in "ab":
            file = tmp_path / f"photos/{label}/{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")
    config = TrainConfig(
        backbone="tests.training:plain", weights="none", image_size=32, batch_size=batch_size
    )
    report = estimate(str(tmp_path / "photos"), str(tmp_path / "model"), config).to_json()
    found = report["num_training"]
    assert report["num_steps_an_epoch"] == num_steps(found, batch_size)
    assert report["num_steps_an_epoch"] * min(batch_size, found) <= found


def test_that_photos_have_changed_since_is_said(tmp_path):
    photos = tmp_path / "photos"
    for number in range(4):
        for label in "ab":
            (photos / label).mkdir(parents=True, exist_ok=True)
            (photos / label / f"{number}.jpg").write_bytes(b"x")
    config = TrainConfig(validation=0.25)
    split = share_photos(
        str(photos), config, [].append, lambda folder: presume_photos(folder, "folder")
    )
    start_folder(str(tmp_path / "model"), split, {})
    said = []
    say_changes(str(photos), str(tmp_path / "model"), config, said.append)
    assert said == []
    (photos / "a" / "new.jpg").write_bytes(b"x")
    (photos / "b" / "3.jpg").unlink()
    (photos / "b" / "2.jpg").write_bytes(b"longer")
    say_changes(str(photos), str(tmp_path / "model"), config, said.append)
    assert said == [
        f"{tmp_path / 'model'}: is a model of the photos as they were (1 added, 1 gone, 1 changed "
        f"since). For one of those of now, train in another folder"
    ]
    said.clear()
    photos.rename(tmp_path / "elsewhere")
    say_changes(str(photos), str(tmp_path / "model"), config, said.append)
    assert said == []


@pytest.mark.parametrize("sha256", [None, hashlib.sha256(b"as it was").hexdigest()])
def test_a_photo_that_has_changed_since_training_began_is_named(sha256):
    _check_same("a/1.jpg", b"as it was", sha256)
    if sha256 is None:
        _check_same("a/1.jpg", b"other", sha256)
        return
    with pytest.raises(PhotoLostError) as caught:
        _check_same("a/1.jpg", b"other", sha256)
    assert str(caught.value) == (
        "a/1.jpg: has changed since training began. Put the photo back and run the same command "
        "again, or train in another folder."
    )


RECORD = {
    "epoch": 1, "loss": 1.5, "accuracy": 0.5, "validation_loss": 2.0, "validation_accuracy": 0.25,
    "top_1": None, "top_3": None, "top_10": None, "learning_rate": 0.1, "train_s": 1.0,
    "validate_s": 0.5, "is_best": True,
}  # fmt: skip


def test_an_undefined_figure_is_told_as_such(tmp_path):
    assert _describe_epoch(RECORD, 3) == (
        "epoch 1/3: loss 1.500, accuracy 0.500; validation: loss 2.000, accuracy 0.250, retrieval "
        "not measured (1.5 s, best so far)"
    )
    assert is_better({**RECORD, "validation_loss": 1.0}, than=RECORD)
    assert not is_better(RECORD, than={**RECORD, "top_1": 0.0, "top_3": 0.0, "top_10": 0.0})
    assert draw_curves([RECORD], "x")[1:4] == b"PNG"
    with event_writer(str(tmp_path / "events")) as write:
        write(RECORD)
    (events,) = (tmp_path / "events").iterdir()
    assert b"loss/validation" in events.read_bytes()
    assert b"retrieval/" not in events.read_bytes()


def test_the_tables_of_augment_are_refused_by_their_name(tmp_path):
    settings = tmp_path / "photos" / ".augmented" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"photos": "x", "recipe": "light", "format": "parquet"}')
    with pytest.raises(UsageError) as caught:
        share({"photos": originals()}, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'photos'}: holds the tables of augment --format parquet, which are for other "
        f"tools. Train on class folders: augment --format jpeg, into another folder."
    )
