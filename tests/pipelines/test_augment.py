"""`augment`: exact numbers, a manifest of exactly what is there, the same on any cluster."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.augment import plan, run
from retrieval.augmentations.multiplying import MAX_DRAWS, Method
from retrieval.augmentations.recipes import load_recipe
from retrieval.augmentations.registry import CATALOGUE
from retrieval.augmentations.shares import Share, share_out
from retrieval.errors import StorageError, UsageError
from retrieval.gallery.labels import assign_labels
from retrieval.gallery.listing import list_photos
from tests.pipelines.classes import (
    SHEET,
    augment,
    blank_bytes,
    building_bytes,
    files_of,
    manifest_of,
    write_classes,
)

pytestmark = pytest.mark.usefixtures("sheets_drawn_once")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes: of four photos, of one, and of more than are wanted."""
    root = write_classes(tmp_path_factory.mktemp("photos"), a=3, b=1, c=13)
    (root / "a" / "deep").mkdir()
    (root / "a" / "deep" / "é x.jpg").write_bytes(building_bytes(0, 9))
    return root


@pytest.fixture(scope="module")
def made(photos, tmp_path_factory, ray_session, sheets_drawn_once):
    """The output of a run with them, and the report."""
    output = tmp_path_factory.mktemp("augment") / "output"
    return output, augment(photos, output)


def line(text):
    return f"^{re.escape(text)}$"


def test_every_class_has_its_number_and_the_manifest_is_exactly_what_is_there(made):
    output, _ = made
    manifest = manifest_of(output)
    assert Counter(manifest["label"].to_pylist()) == {"a": 12, "b": 12, "c": 13}
    ids = manifest["image_id"].to_pylist()
    assert ids == sorted(files_of(output).keys() - {SHEET})
    assert ids == list_photos(str(output))["image_id"].to_pylist()
    assert assign_labels(ids, "folder").to_pylist() == manifest["label"].to_pylist()
    assert Image.open(io.BytesIO((output / SHEET).read_bytes())).format == "PNG"


def test_originals_are_there_byte_for_byte(made, photos):
    output, _ = made
    files = files_of(output)
    originals = [row for row in manifest_of(output).to_pylist() if row["technique"] is None]
    assert {row["image_id"]: files[row["image_id"]] for row in originals} == files_of(photos)
    assert all(row["image_id"] == row["source_id"] for row in originals)
    assert all(row["parameters"] is None for row in originals)


def test_each_result_is_named_by_its_source_and_technique_and_says_what_was_drawn(made, photos):
    output, _ = made
    for row in manifest_of(output).to_pylist():
        source = (photos / row["source_id"]).read_bytes()
        assert row["source_sha256"] == hashlib.sha256(source).hexdigest()
        assert row["label"] == row["source_id"].split("/")[0]
        if row["technique"]:
            pattern = re.escape(f"{row['source_id']}.{row['technique']}-") + r"[0-9]+\.jpg"
            assert re.fullmatch(pattern, row["image_id"])
            parameters = json.loads(row["parameters"])
            assert parameters.keys() == CATALOGUE[row["technique"]].parameters.keys()


def test_the_report_counts_everything(made):
    output, report = made
    report = dict(report)
    steps = {"start_ray", "scan", "plan", "augment", "stop_ray", "finish"}
    assert report.pop("seconds").keys() == steps
    assert report.pop("images_per_s") > 0
    dropped = report.pop("num_dropped")
    assert sum(dropped.pop("by_technique").values()) == sum(dropped.values())
    assert dropped.keys() == {"near_copy", "destroyed"}
    assert report == {
        "output": str(output),
        "recipe": "paper",
        "per_class": 12,
        "num_listed": 18,
        "num_rejected": 0,
        "reject_reasons": {},
        "rejects": None,
        "num_unlabelled": 0,
        "num_classes": 3,
        "empty_classes": [],
        "num_originals": 18,
        "num_augmented": 19,
        "num_reused": 0,
        "contact_sheet": str(output / SHEET),
        "manifest": str(output / ".augmented" / "manifest.parquet"),
    }


def test_the_files_are_those_of_the_library_s_plain_loop(made, photos):
    expected = files_of(photos)
    method = Method(load_recipe("paper"), 0, 64, 90)
    for label in "ab":
        ids = sorted(name for name in expected if name.startswith(label))
        shares = share_out(len(ids), 12, method.num_techniques)
        for image_id, share in zip(ids, shares, strict=True):
            for result in method.multiply(expected[image_id], image_id, share).results:
                expected[f"{image_id}.{result.technique}-{result.copy}.jpg"] = result.content
    files = files_of(made[0])
    del files[SHEET]
    assert files == expected


def test_however_the_work_is_cut_the_output_is_the_same(made, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "_UNIT_IMAGES", 1)  # a unit a photo
    augment(photos, tmp_path / "output")
    assert len(list((tmp_path / "output" / ".augmented" / "parts").iterdir())) == 18
    assert files_of(tmp_path / "output") == files_of(made[0])
    assert manifest_of(tmp_path / "output").equals(manifest_of(made[0]))


def test_parquet_holds_the_same_images_as_the_files(made, photos, tmp_path):
    output = tmp_path / "output"
    report = augment(photos, output, format="parquet")
    names = [path.name for path in output.iterdir() if path.name != ".augmented"]
    assert all(re.fullmatch(r"part-[0-9a-f]{24}-0-0\.parquet", name) for name in names)
    content = pq.read_table(output).sort_by("image_id")
    assert content.column_names == [
        "image_id", "label", "bytes", "source_id", "source_sha256", "technique", "parameters",
    ]  # fmt: skip
    ids, images = content["image_id"].to_pylist(), content["bytes"].to_pylist()
    files = files_of(made[0])
    sheet = files.pop(SHEET)
    assert dict(zip(ids, images, strict=True)) == files
    assert content.drop_columns("bytes").equals(manifest_of(output))
    assert manifest_of(output).equals(manifest_of(made[0]))
    # Hidden here: a folder of Parquet is read as one.
    assert report["contact_sheet"] == f"{output}/.augmented/augmentations.png"
    assert (output / ".augmented" / "augmentations.png").read_bytes() == sheet
    # With the other format it becomes the other folder, and nothing of this one remains.
    augment(photos, output)
    assert files_of(output) == files_of(made[0])
    assert not (output / ".augmented" / "augmentations.png").exists()


def test_photos_and_output_on_an_object_store(made, photos, s3):
    import boto3

    client, bucket = boto3.client("s3"), s3.removeprefix("s3://")
    for name, content in files_of(photos).items():
        client.put_object(Bucket=bucket, Key=f"few/{name}", Body=content)

    def stored(name):
        return client.get_object(Bucket=bucket, Key=f"many/{name}")["Body"].read()

    report = augment(f"{s3}/few", f"{s3}/many")
    manifest = manifest_of(made[0])
    assert list_photos(f"{s3}/many")["image_id"].equals(manifest["image_id"])
    assert all(stored(name) == content for name, content in files_of(made[0]).items())
    assert pq.read_table(io.BytesIO(stored(".augmented/manifest.parquet"))).equals(manifest)
    assert report["manifest"] == f"{s3}/many/.augmented/manifest.parquet"
    client.delete_object(Bucket=bucket, Key="few/b/0.jpg")
    assert augment(f"{s3}/few", f"{s3}/many")["num_reused"] == 25
    ids = [name for name in manifest["image_id"].to_pylist() if name[0] != "b"]
    assert list_photos(f"{s3}/many")["image_id"].to_pylist() == ids
    with pytest.raises(UsageError, match=rf"^{s3}/few/x: lies inside the photos' folder"):
        augment(f"{s3}/few", f"{s3}/few/x")


def test_what_cannot_be_read_is_a_reject_and_an_empty_class_is_named(tmp_path, ray_session):
    photos, output = write_classes(tmp_path / "photos", a=2, z=1), tmp_path / "output"
    (photos / "b").mkdir()
    (photos / "b" / "broken.jpg").write_bytes(building_bytes(0, 0)[:500])
    (photos / "c").mkdir()
    (photos / "loose.jpg").write_bytes(building_bytes(0, 0))
    lines = []
    report = augment(photos, output, lines.append)
    assert lines == [
        f"{photos}: class 'b' has no readable photo and is left out",
        f"{photos}: class 'c' has no readable photo and is left out",
    ]
    assert report["empty_classes"] == ["b", "c"]
    assert report["reject_reasons"] == {"truncated": 1}
    assert report["num_unlabelled"] == 1
    assert report["num_classes"] == 2
    rejects = pq.read_table(report["rejects"]).to_pylist()
    assert [row["image_id"] for row in rejects] == ["b/broken.jpg"]
    assert Counter(manifest_of(output)["label"].to_pylist()) == {"a": 12, "z": 12}


def test_what_one_photo_cannot_give_the_others_of_its_class_make_up_for(tmp_path, ray_session):
    photos, output = write_classes(tmp_path / "photos", a=3, b=2), tmp_path / "output"
    (photos / "a" / "blank.png").write_bytes(blank_bytes())
    recipe = tmp_path / "recipe.yaml"
    names = ("crop", "stretch", "channel_gain")
    recipe.write_text("apply: one\ntechniques:" + "".join(f"\n- technique: {n}" for n in names))
    report = augment(photos, output, per_class=24, recipe=str(recipe))
    manifest, files = manifest_of(output), files_of(output)
    rows = [row for row in manifest.to_pylist() if row["technique"]]
    assert Counter(row["source_id"] for row in rows) == {
        "a/0.jpg": 7, "a/1.jpg": 7, "a/2.jpg": 6, "b/0.jpg": 11, "b/1.jpg": 11,
    }  # fmt: skip
    assert sorted(files.keys() - {SHEET}) == manifest["image_id"].to_pylist()
    assert report["num_dropped"]["destroyed"] == 3 * MAX_DRAWS
    # One that made up for it gave what a single share of that size would have given.
    method = Method(load_recipe(str(recipe)), 0, 64, 90)
    whole = method.multiply(building_bytes(0, 1), "a/1.jpg", Share(5 % 3, 7))
    ids = [row["image_id"] for row in rows if row["source_id"] == "a/1.jpg"]
    assert {name: files[name] for name in ids} == {
        f"a/1.jpg.{result.technique}-{result.copy}.jpg": result.content for result in whole.results
    }
    assert augment(photos, output, per_class=24, recipe=str(recipe))["num_reused"] == 48


def test_a_recipe_that_cannot_reach_the_number_keeps_what_it_made_and_says_so(
    tmp_path, ray_session
):
    photos, output = write_classes(tmp_path / "photos", a=3, b=2), tmp_path / "output"
    recipe = tmp_path / "flips.yaml"
    recipe.write_text("apply: one\ntechniques:\n  - technique: flip_horizontal\n")
    expected = (
        f"`per_class` 6: class 'b' has only 4 images, since more by recipe '{recipe}' would be "
        f"near copies or destroyed; 1 of 2 classes falls short. All are kept and listed in "
        f"{output}/.augmented/manifest.parquet. Use `per_class` 4, add photos, or choose a recipe "
        f"that varies more."
    )
    for _ in range(2):  # the second time nothing is left to make
        with pytest.raises(UsageError, match=line(expected)):
            augment(photos, output, recipe=str(recipe), per_class=6)
        manifest = manifest_of(output)
        assert Counter(manifest["label"].to_pylist()) == {"a": 6, "b": 4}
        assert sorted(files_of(output).keys() - {SHEET}) == manifest["image_id"].to_pylist()


def test_labels_of_a_rule_become_the_folders_of_the_output(tmp_path, ray_session):
    photos, output = write_classes(tmp_path / "photos", all=3), tmp_path / "output"
    rows = ["image_id,label", "all/0.jpg,one", "all/1.jpg,one", "all/2.jpg,7"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    augment(photos, output, labels=str(tmp_path / "labels.csv"), per_class=5)
    manifest = manifest_of(output)
    assert Counter(manifest["label"].to_pylist()) == {"one": 5, "7": 5}
    originals = [row for row in manifest.to_pylist() if row["technique"] is None]
    assert {row["source_id"]: row["image_id"] for row in originals} == {
        "all/0.jpg": "one/all/0.jpg",
        "all/1.jpg": "one/all/1.jpg",
        "all/2.jpg": "7/all/2.jpg",
    }
    labels = assign_labels(list_photos(str(output))["image_id"].to_pylist(), "folder")
    assert labels.to_pylist() == manifest["label"].to_pylist()


def test_a_photo_that_changes_meanwhile_stops_the_job_and_there_is_no_manifest(
    tmp_path, monkeypatch, ray_session
):
    photos, output = write_classes(tmp_path / "photos", a=2), tmp_path / "output"
    (output / ".augmented").mkdir(parents=True)
    (output / ".augmented" / "manifest.parquet").write_text("of an earlier run")
    settings = {"photos": str(photos), "recipe": "none"}
    (output / ".augmented" / "settings.json").write_text(json.dumps(settings))
    scanning = run.__globals__["scan_photos"]

    def scan_and_change(*arguments, **settings):
        scan = scanning(*arguments, **settings)
        (photos / "a" / "0.jpg").write_bytes(building_bytes(0, 8))
        return scan

    monkeypatch.setitem(run.__globals__, "scan_photos", scan_and_change)
    message = (
        f"{photos}/a/0.jpg: has changed since this run began. Run the same command again: what "
        f"is finished is kept."
    )
    with pytest.raises(StorageError, match=line(message)):
        augment(photos, output)
    assert not (output / ".augmented" / "manifest.parquet").exists()
