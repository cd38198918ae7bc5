"""`embed` once more: only what changed, whatever happens to the gallery or to a run meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.embed import EmbedConfig, executor, inputs, run
from retrieval.errors import MismatchError
from retrieval.index import open_index, read_index
from tests.conftest import draw_photos, make_index, photo_bytes
from tests.retrieval.ranks import commit

FAKE = EmbedConfig(backbone="tests.fakes:mean_colour", weights="none")
SLOW = EmbedConfig(backbone="tests.fakes:slow", weights="none", num_actors=1)

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def first(tmp_path_factory, ray_session):
    """Photos that are a day old, and an index of them."""
    root = tmp_path_factory.mktemp("first")
    photos = age(draw_photos(root / "photos"))
    run(str(photos), str(root / "index"), FAKE)
    return root


def age(folder):
    """Let the photos of a folder be of yesterday: younger ones are looked at once more."""
    yesterday = time.time() - 86_400
    for file in folder.rglob("*.*"):
        os.utime(file, (yesterday, yesterday))
    return folder


@pytest.fixture
def gallery(first, tmp_path):
    """A copy of both for a test that changes them; the addresses of the photos change."""
    shutil.copytree(first, tmp_path / "copy")
    return tmp_path / "copy" / "photos", tmp_path / "copy" / "index"


def counts(report):
    names = ("embedded", "unchanged", "moved", "removed", "resumed", "rejected", "rejected_now")
    return {name: report[f"num_{name}"] for name in names if report[f"num_{name}"]}


def check_like_scratch(photos, index, scratch, config=FAKE):
    """The index is the one that a first run makes of the gallery, bit by bit."""
    run(str(photos), str(scratch), config)
    ours, theirs = read_index(str(index)), read_index(str(scratch))
    assert (ours.ids, ours.labels) == (theirs.ids, theirs.labels)
    np.testing.assert_array_equal(ours.embeddings, theirs.embeddings)

    def rejects(where):
        folder = where / open_index(str(where)).run["rejects"]
        return pq.read_table(folder).select(["image_id", "reason"]).to_pylist()

    assert rejects(index) == rejects(scratch)


def test_without_a_change_nothing_is_read_or_committed_and_ray_is_not_needed(first, monkeypatch):
    monkeypatch.setattr(executor, "session", lambda site: pytest.fail("Ray was started"))
    report = run(str(first / "photos"), str(first / "index"), FAKE).to_json()
    assert counts(report) == {"unchanged": 10, "rejected": 2}
    assert (report["version_before"], report["version_after"]) == (0, 0)
    assert report["stages"] is None
    assert report["rejects"].startswith(str(first / "index" / "_rejects"))


def test_a_gallery_in_another_place_is_the_same_gallery(gallery, tmp_path):
    photos, index = gallery
    report = run(str(photos), str(index), FAKE).to_json()
    assert counts(report) == {"unchanged": 10, "rejected": 2}
    uris = pq.read_table(index / open_index(str(index)).shards[0].path)["uri"].to_pylist()
    assert all(uri.startswith(str(photos)) for uri in uris)
    check_like_scratch(photos, index, tmp_path / "scratch")


def test_new_changed_moved_and_deleted_photos(gallery, tmp_path):
    photos, index = gallery
    (photos / "green" / "new.jpg").write_bytes(photo_bytes((10, 90, 10)))
    (photos / "green" / "green-0.jpg").write_bytes(photo_bytes((1, 200, 100)))
    (photos / "blue").rename(photos / "azure")
    (photos / "red" / "red-1.jpg").unlink()
    report = run(str(photos), str(index), FAKE).to_json()
    assert counts(report) == {
        "embedded": 2, "moved": 3, "removed": 1, "unchanged": 5, "rejected": 2,
    }  # fmt: skip
    check_like_scratch(photos, index, tmp_path / "scratch")


def test_many_photos_are_hashed_by_ray_and_a_few_here_alike(first, monkeypatch):
    monkeypatch.setattr("pipelines.embed.executor._FEW_PHOTOS", 3)
    config = replace(FAKE, verify_content=True)
    report = run(str(first / "photos"), str(first / "index"), config).to_json()
    assert counts(report) == {"unchanged": 10, "rejected": 2, "rejected_now": 2}
    assert "hash" in report["seconds"]
    monkeypatch.undo()
    report = run(str(first / "photos"), str(first / "index"), config).to_json()
    assert counts(report) == {"unchanged": 10, "rejected": 2, "rejected_now": 2}
    assert "hash" not in report["seconds"]


def test_labels_change_without_embedding(first, tmp_path):
    index = shutil.copytree(first / "index", tmp_path / "index")
    photos, table = first / "photos", tmp_path / "labels.csv"
    table.write_text("image_id,label\ngrey.png,stone\nred/red-0.jpg,brick\n")
    report = run(str(photos), str(index), replace(FAKE, labels=str(table))).to_json()
    assert counts(report) == {"unchanged": 10, "rejected": 2}
    rows = read_index(str(index))
    labels = dict(zip(rows.ids, rows.labels, strict=True))
    assert (labels["grey.png"], labels["red/red-0.jpg"]) == ("stone", "brick")
    assert labels["red/red-1.jpg"] is None


def test_a_manifest_stands_for_a_folder(first, tmp_path):
    rows = pq.read_table(first / "index" / open_index(str(first / "index")).shards[0].path)
    manifest = tmp_path / "photos.parquet"
    pq.write_table(rows.select(["image_id", "uri", "size_bytes", "modified_at"])[:4], manifest)
    report = run(str(manifest), str(tmp_path / "index"), FAKE).to_json()
    assert counts(report) == {"embedded": 4}
    index = shutil.copytree(first / "index", tmp_path / "other")
    report = run(str(manifest), str(index), FAKE).to_json()
    assert counts(report) == {"unchanged": 4, "removed": 6}


def test_a_commit_by_another_run_meanwhile_wins_unless_rebased(gallery, monkeypatch):
    photos, index = gallery
    make_index(index.parent / "other", ["a"], np.ones((1, 3), np.float16))
    listing = inputs.list_batches
    times = []

    def list_while_another_run_commits(where, **options):
        if not times:
            commit(index, open_index(str(index)).shards, dim=3)
        times.append(where)
        return listing(where, **options)

    monkeypatch.setattr(inputs, "list_batches", list_while_another_run_commits)
    (photos / "green" / "new.jpg").write_bytes(photo_bytes((10, 90, 10)))
    with pytest.raises(MismatchError, match="another run has committed version 1 meanwhile"):
        run(str(photos), str(index), FAKE)
    assert open_index(str(index)).version == 1
    times.clear()
    # They committed embeddings of another model.
    report = run(str(photos), str(index), replace(FAKE, rebase=True, new_model=True)).to_json()
    assert (len(times), report["version_before"], report["version_after"]) == (2, 2, 3)
    assert "green/new.jpg" in read_index(str(index)).ids


def test_photos_that_come_change_and_go_while_a_run_lists_them(gallery, monkeypatch, tmp_path):
    photos, index = gallery
    (photos / "green" / "goes.jpg").write_bytes(photo_bytes((10, 90, 10)))
    (photos / "green" / "changes.jpg").write_bytes(photo_bytes((10, 91, 10)))
    listing = inputs.list_batches

    def list_then_change(where, **options):
        batches = list(listing(where, **options))
        (photos / "green" / "goes.jpg").unlink()
        (photos / "green" / "changes.jpg").write_bytes(photo_bytes((200, 91, 10)))
        (photos / "green" / "comes.jpg").write_bytes(photo_bytes((10, 92, 10)))
        return iter(batches)

    monkeypatch.setattr(inputs, "list_batches", list_then_change)
    report = run(str(photos), str(index), FAKE).to_json()
    assert counts(report) == {"embedded": 1, "unchanged": 10, "rejected": 3, "rejected_now": 1}
    assert report["reject_reasons"]["missing"] == 1
    monkeypatch.undo()
    report = run(str(photos), str(index), FAKE).to_json()
    assert counts(report)["embedded"] == 1  # the one that came; the changed one was read late
    check_like_scratch(photos, index, tmp_path / "scratch")


def networks():
    """Ids of the processes that hold a network: Ray names them so."""
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            if "MapWorker(MapBatches(EmbedPhotos))" in " ".join(process.cmdline()):
                found.add(process.pid)
    return found


def test_a_worker_that_is_killed_costs_nothing(tmp_path):
    photos, index = age(draw_photos(tmp_path / "photos")), tmp_path / "index"
    killed, before = [], networks()  # of earlier runs; they end when Ray comes to it

    def kill_one():
        while not killed:
            time.sleep(0.05)
            with suppress(psutil.NoSuchProcess):
                for pid in list(networks() - before)[:1]:
                    time.sleep(1)  # it has photos now
                    psutil.Process(pid).kill()
                    killed.append(pid)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    report = run(str(photos), str(index), SLOW).to_json()
    killer.join(30)
    assert killed
    assert counts(report) == {"embedded": 10, "rejected": 2, "rejected_now": 2}
    check_like_scratch(photos, index, tmp_path / "scratch")


_RUN = """
import sys
import pipelines.embed.inputs as inputs
import pipelines.embed.job as job
from pipelines.embed import EmbedConfig
inputs._SHARD_BYTES = 2 * 6  # two photos a shard
config = EmbedConfig(backbone="tests.fakes:mean_colour", weights="none")
print(job.run(sys.argv[1], sys.argv[2], config).counts.num_resumed)
"""


@pytest.mark.parametrize(
    "place",
    [
        "embedded",
        pytest.param("before commit", marks=pytest.mark.soak),
        pytest.param("entry written", marks=pytest.mark.soak),
        pytest.param("after commit", marks=pytest.mark.soak),
        pytest.param("published", marks=pytest.mark.soak),
    ],
)
def test_a_driver_that_is_killed_loses_nothing(tmp_path, place):
    photos, index = age(draw_photos(tmp_path / "photos")), tmp_path / "index"
    command = [sys.executable, "-c", _RUN, str(photos), str(index)]
    environment = {**os.environ, "RETRIEVAL_BREAKPOINT": place}
    committed = ("after commit", "published")
    killed = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert (index / "_delta_log" / f"{0:020d}.json").exists() == (place in committed)
    report = run(str(photos), str(index), FAKE).to_json()
    expected = {"unchanged": 10} if place in committed else {"resumed": 10}
    assert counts(report) == {**expected, "rejected": 2}
    assert not list((index / "_staging").glob("*"))
    check_like_scratch(photos, index, tmp_path / "scratch")


def test_the_same_on_an_object_store(first, s3):
    import boto3

    client, bucket = boto3.client("s3"), s3.removeprefix("s3://")
    photos = first / "photos"
    for file in photos.rglob("*.*"):
        client.upload_file(str(file), bucket, f"again/{file.relative_to(photos)}")
    index = f"{s3}/index-again"
    time.sleep(2.1)  # so that no photo is as young as the listing
    assert counts(run(f"{s3}/again", index, FAKE).to_json())["embedded"] == 10
    source = {"Bucket": bucket, "Key": "again/blue/blue-0.jpg"}
    client.copy_object(Bucket=bucket, Key="again/azure/blue-0.jpg", CopySource=source)
    client.delete_object(**source)
    client.delete_object(Bucket=bucket, Key="again/grey.png")
    report = run(f"{s3}/again", index, FAKE).to_json()
    assert counts(report) == {"moved": 1, "removed": 1, "unchanged": 8, "rejected": 2}
    report = run(f"{s3}/again", index, FAKE).to_json()
    assert report["version_after"] == 1
    ids = read_index(index).ids
    assert "azure/blue-0.jpg" in ids
    assert "grey.png" not in ids


def test_columns_of_a_manifest_that_are_missing_are_named(tmp_path):
    from retrieval.errors import IndexFormatError

    pq.write_table(pa.table({"image_id": ["a"], "uri": ["a.jpg"]}), tmp_path / "m.parquet")
    with pytest.raises(IndexFormatError, match=r"has no column modified_at, size_bytes; a man"):
        run(str(tmp_path / "m.parquet"), str(tmp_path / "index"), FAKE)
