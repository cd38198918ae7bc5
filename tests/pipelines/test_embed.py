"""`embed`: every listed photo is in the index or among the rejects, in one commit."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipelines.embed import EmbedConfig, run
from retrieval.errors import ClusterError, MismatchError, ModelError, StorageError, UsageError
from retrieval.images import Preprocessing, decode_image
from retrieval.index import open_index, read_index
from retrieval.models.backbones import BackboneSpec
from retrieval.models.embedder import Embedder
from tests.conftest import COLOURS, draw_photos, make_index, photo_bytes
from tests.fakes import one_weight

FAKE = EmbedConfig(backbone="tests.fakes:mean_colour", weights="none")

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, ray_session):
    """Photos, an index of them, and the report of the run, for the tests that only look."""
    root = tmp_path_factory.mktemp("embedded")
    report = run(str(draw_photos(root / "photos")), str(root / "index"), FAKE).to_json()
    return root / "photos", root / "index", report


def rejects_of(index, run_id):
    return pq.read_table(index / "_rejects" / run_id).to_pylist()


def test_every_photo_is_in_the_index_or_among_the_rejects(embedded):
    photos, index, report = embedded
    rows = read_index(str(index))
    colours = [f"{name}/{name}-{number}.jpg" for name in COLOURS for number in range(3)]
    assert rows.ids == sorted([*colours, "grey.png"])
    assert rows.labels == [None if "/" not in row else row.split("/")[0] for row in rows.ids]
    rejects = {row["image_id"]: row for row in rejects_of(index, report["run_id"])}
    assert {name: row["reason"] for name, row in rejects.items()} == {
        "notes.txt": "unknown_format",
        "red/broken.jpg": "truncated",
    }
    assert rejects["notes.txt"]["uri"] == str(photos / "notes.txt")
    assert report["rejects"] == str(index / "_rejects" / report["run_id"])
    assert report["num_listed"] == 12
    assert report["num_embedded"] == 10
    assert report["num_rejected"] == 2
    assert report["reject_reasons"] == {"truncated": 1, "unknown_format": 1}
    assert report["num_unlabelled"] == 2  # grey.png and notes.txt lie in no folder


def test_embeddings_are_those_of_the_library_s_plain_loop(embedded):
    photos, index, _ = embedded
    rows = read_index(str(index))
    embedder = Embedder(BackboneSpec(name=FAKE.backbone, weights="none"), Preprocessing())
    assert rows.index.spec == embedder.spec
    for image_id, embedding in zip(rows.ids, rows.embeddings, strict=True):
        image = decode_image((photos / image_id).read_bytes(), Preprocessing())
        assert embedding.tobytes() == embedder.embed(image.pixels[None])[0].tobytes()


def test_rows_describe_their_files(embedded):
    photos, folder, _ = embedded
    index = open_index(str(folder))
    table = pq.read_table([f"{index.uri}/{shard.path}" for shard in index.shards])
    row = next(row for row in table.to_pylist() if row["image_id"] == "grey.png")
    file = photos / "grey.png"
    assert (row["width"], row["height"]) == (32, 24)
    assert row["size_bytes"] == file.stat().st_size
    assert row["modified_at"].timestamp() == pytest.approx(file.stat().st_mtime, abs=1e-5)
    assert row["uri"] == str(file)
    assert row["label"] is None
    assert index.run["photos"] == str(photos)
    assert index.run["num_rejected"] == 2


def test_the_content_follows_the_gallery_and_readers_keep_their_version(embedded, photos, tmp_path):
    assert embedded[2]["version"] == 0
    index = str(shutil.copytree(embedded[1], tmp_path / "index"))
    before = open_index(index)
    shutil.rmtree(photos / "blue")
    (photos / "green" / "new.jpg").write_bytes(photo_bytes((10, 90, 10)))
    assert run(str(photos), index, FAKE).to_json()["version"] == 1
    ids = read_index(index).ids
    assert "green/new.jpg" in ids
    assert not any(row.startswith("blue/") for row in ids)
    assert len(ids) == 8
    assert len(read_index(index, version=before.version).ids) == 10


def test_another_model_replaces_the_index_as_a_whole(photos, tmp_path):
    make_index(tmp_path / "index", ["a"], np.ones((1, 4), np.float16))
    run(str(photos), str(tmp_path / "index"), replace(FAKE, new_model=True))
    rows = read_index(str(tmp_path / "index"))
    assert rows.index.version == 1
    assert rows.index.spec.dim == 3
    assert len(rows.ids) == 10


def test_labels_come_from_the_rule_and_what_a_killed_first_run_left_is_no_obstacle(
    photos, tmp_path
):
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "shard-0123.parquet").write_bytes(b"half")
    config = EmbedConfig(
        backbone=FAKE.backbone, weights="none", labels=r"pattern:-([0-9]+)\.jpg$", dtype="float32"
    )
    run(str(photos), str(tmp_path / "index"), config)
    rows = read_index(str(tmp_path / "index"))
    assert len(rows.ids) == 10
    assert dict(zip(rows.ids, rows.labels, strict=True))["green/green-2.jpg"] == "2"
    assert rows.embeddings.dtype == np.float32


def test_a_photo_that_the_network_answers_with_zeros_is_a_reject(tmp_path):
    # All weights zero but the bias of -1 before a ReLU: nothing but zeros comes out.
    network = one_weight()
    state = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    state["conv.weight"][0, 0] = 1.0  # the first feature is the sum of red
    torch.save(state, tmp_path / "weights.pth")
    (tmp_path / "photos").mkdir()
    for name, colour in (("black", (0, 0, 0)), ("white", (255, 255, 255))):
        Image.new("RGB", (50, 50), colour).save(tmp_path / "photos" / f"{name}.png")
    config = EmbedConfig(
        backbone="tests.fakes:one_weight", weights=str(tmp_path / "weights.pth"), labels="none"
    )
    report = run(str(tmp_path / "photos"), str(tmp_path / "index"), config).to_json()
    assert read_index(str(tmp_path / "index")).ids == ["white.png"]
    assert report["reject_reasons"] == {"no_embedding": 1}
    assert rejects_of(tmp_path / "index", report["run_id"])[0]["image_id"] == "black.png"


def test_more_photos_than_a_block_and_several_actors_give_the_same_index(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(300):
        colour = (number % 250, 30, 250 - number % 250)
        (folder / f"{number}.jpg").write_bytes(photo_bytes(colour, size=(9, 9)))
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    run(str(folder), one, FAKE)
    several = EmbedConfig(backbone=FAKE.backbone, weights="none", num_actors=2, batch_size=7)
    report = run(str(folder), two, several).to_json()
    assert report["num_embedded"] == 300
    assert read_index(one).ids == read_index(two).ids
    assert read_index(one).embeddings.tobytes() == read_index(two).embeddings.tobytes()


def test_no_photo_at_all_is_an_error_and_commits_nothing(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.txt").write_text("a")
    (tmp_path / "photos" / "b.txt").write_text("")
    with pytest.raises(StorageError) as caught:
        run(str(tmp_path / "photos"), str(tmp_path / "index"), FAKE)
    assert re.fullmatch(
        rf"{tmp_path}/photos: none of the 2 files can be embedded "
        r"\(1 [a-z_]+, 1 [a-z_]+; such as [ab]\.txt: .*\)\. "
        r"A folder that holds photos is needed; nothing was committed\.",
        str(caught.value),
    )
    assert not (tmp_path / "index" / "_delta_log").exists()


def test_an_index_inside_the_photos_is_refused(photos):
    with pytest.raises(UsageError, match="lies inside the photos' folder"):
        run(str(photos), str(photos / "index"), FAKE)


def test_a_folder_of_something_else_is_no_place_for_an_index(photos, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"holds files that are no index, such as .*"):
        run(str(photos), str(tmp_path / "mine"), FAKE)


def test_only_the_names_inside_a_folder_tell_whether_it_may_become_an_index(photos, tmp_path):
    folder = tmp_path / "shard-1" / "mine"  # not the name of the folder above it
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"holds files that are no index, such as .*mine\.txt"):
        run(str(photos), str(folder), FAKE)


def test_an_error_in_a_worker_arrives_as_if_it_had_been_raised_here(photos, tmp_path):
    drifting = EmbedConfig(backbone="tests.fakes:drifting", weights="none")
    with pytest.raises(MismatchError, match=r"this worker has weights [0-9a-f]{12}, the job began"):
        run(str(photos), str(tmp_path / "index"), drifting)
    fragile = EmbedConfig(backbone="tests.fakes:fragile", weights="none")
    with pytest.raises(ModelError) as caught:
        run(str(photos), str(tmp_path / "index"), fragile)
    assert str(caught.value) == (
        "tests.fakes:fragile: gives features that are not finite. The weights are damaged or "
        "diverged in training; use others."
    )
    assert not (tmp_path / "index" / "_delta_log").exists()


def test_an_error_of_somebody_s_network_is_one_line_too(photos, tmp_path):
    faulty = EmbedConfig(backbone="tests.fakes:faulty", weights="none")
    with pytest.raises(ClusterError) as caught:
        run(str(photos), str(tmp_path / "index"), faulty)
    assert str(caught.value) == (
        "Ray gave up: ValueError: shapes differ. Nothing was published; the whole story is in "
        "Ray's logs (/tmp/ray/session_latest/logs of the machine it happened on)."
    )


def test_photos_and_index_on_an_object_store(photos, s3):
    import boto3

    client = boto3.client("s3")
    bucket = s3.removeprefix("s3://")
    for file in photos.rglob("*.*"):
        client.upload_file(str(file), bucket, f"gallery/{file.relative_to(photos)}")
    report = run(f"{s3}/gallery", f"{s3}/index", FAKE).to_json()
    assert report["num_embedded"] == 10
    rows = read_index(f"{s3}/index")
    assert "blue/blue-1.jpg" in rows.ids
    assert rows.labels[rows.ids.index("blue/blue-1.jpg")] == "blue"
