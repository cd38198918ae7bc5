"""What jobs remove at their end or on their way: their own files, by name; all else stays."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import uuid
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.augment.output import check_places as check_augmented
from pipelines.augment.output import remove_others
from pipelines.experiment.photos import Sides, copy_photos
from pipelines.experiment.places import check_places as check_experiment
from pipelines.reindex.gate import forget_older
from pipelines.train.places import remove_checkpoints
from retrieval.errors import StorageError
from retrieval.ranking.files import RankingWriter
from retrieval.storage import absolute_uri, entries, join, write_bytes
from tests.pipelines.test_places import PART, UNIT, begin_training, put, snapshot

CHECKPOINT = "training/run/checkpoint_2026-11-30_14-58-15.010065"
OF_RAY = [
    "training/run/.validate_storage_marker",
    "training/run/checkpoint_manager_snapshot.json",
    f"{CHECKPOINT}/state.pt",
    f"{CHECKPOINT}/history.json",
]


def files_of(folder):
    return sorted(entry.path for entry in entries(str(folder)) if entry.kind == "file")


@pytest.fixture(params=["disk", "store"])
def place(request, tmp_path):
    if request.param == "disk":
        return str(tmp_path / "place")
    return f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}"


@pytest.fixture
def precious(tmp_path):
    """Somebody's folder, with names that the jobs use, too."""
    names = ("state.pt", "settings.json", "_ranking.json", PART, "red/1.jpg", f"{UNIT}.parquet")
    for name in names:
        put(tmp_path / "precious" / name)
    return tmp_path / "precious"


def test_a_training_removes_its_checkpoints_and_nothing_else(place):
    begin_training(place)
    for name in OF_RAY:
        write_bytes(join(place, name), b"{}")
    remove_checkpoints(place)
    assert files_of(place) == ["rejects.parquet", "split.parquet"]

    begin_training(place)
    meanwhile = [f"{CHECKPOINT}/mine.jpg", "training/red/1.jpg", "training/run/checkpoint_1/x"]
    for name in [*OF_RAY, *meanwhile]:
        write_bytes(join(place, name), b"{}")
    remove_checkpoints(place)
    assert files_of(place) == sorted([*meanwhile, "rejects.parquet", "split.parquet"])


def test_a_training_leaves_no_empty_folder_and_follows_no_link(tmp_path, precious):
    before = snapshot(precious)
    begin_training(tmp_path / "model")
    for name in OF_RAY:
        put(tmp_path / "model" / name)
    remove_checkpoints(str(tmp_path / "model"))
    assert not (tmp_path / "model/training").exists()
    for name in ("training", "training/run", CHECKPOINT):
        path = tmp_path / "linked" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(precious)
        with contextlib.suppress(StorageError):
            remove_checkpoints(str(tmp_path / "linked"))
        assert path.is_symlink()
        path.unlink()
    assert snapshot(precious) == before


def test_augmenting_leaves_folders_of_others_and_what_has_another_name(tmp_path, precious):
    output = tmp_path / "output"
    remove_others(str(output), {}, {"red/1.jpg", "blue/1.jpg"}, "jpeg")
    put(output / ".augmented/settings.json", b'{"photos": "x", "recipe": "none"}')
    ours = [
        "red/1.jpg",
        "red/1.jpg.invert-1.jpg",
        "red/1.jpg.chain-600.jpg",
        f"part-{UNIT}.parquet",
    ]
    ours += [f"red/.1.jpg.{'0' * 32}.tmp", f".augmented/parts/{UNIT}.parquet"]
    for name in ours:
        put(output / name)
    for folder in (".git/refs", "mine/deep", "blue"):
        (output / folder).mkdir(parents=True)
    check_augmented(str(tmp_path / "photos"), str(output))
    others = ["red/1.jpg.edited-1.jpg", "red/2.jpg", "red/notes-1.jpg", f"red/.x.{'0' * 32}.tmp"]
    others += [".augmented/parts/mine.parquet", ".git/config", f"{UNIT}.parquet"]
    for name in others:
        put(output / name)
    (output / "red/link.jpg.invert-1.jpg").symlink_to(precious / "red/1.jpg")
    (output / ".augmented/linked").symlink_to(precious)
    before = snapshot(precious)

    remove_others(str(output), {}, {"green/1.jpg"}, "jpeg")

    kept = [".augmented/settings.json", ".augmented/copied.parquet", *others]
    assert files_of(output) == sorted(kept)
    assert (output / "mine/deep").is_dir()
    assert (output / ".git/refs").is_dir()
    assert not (output / "blue").exists()  # an empty class folder of an earlier run
    assert (output / "red/link.jpg.invert-1.jpg").is_symlink()
    assert snapshot(precious) == before


def test_a_list_of_copies_that_was_changed_leads_nowhere(tmp_path, precious):
    output, before = tmp_path / "output", snapshot(precious)
    (tmp_path / "empty").mkdir()
    names = ["../precious/red/1.jpg", str(precious / "state.pt"), "../empty/x", "a/../../empty/x"]
    put(output / ".augmented/copied.parquet")
    pq.write_table(pa.table({"image_id": names}), output / ".augmented/copied.parquet")
    remove_others(str(output), {}, {"red/1.jpg"}, "jpeg")
    assert (tmp_path / "empty").is_dir()
    assert snapshot(precious) == before


def sides_of(photos, queries, gallery):
    rows = [
        {
            "image_id": name, "uri": str(photos / name), "label": "x", "side": side,
            "content_sha256": hashlib.sha256((photos / name).read_bytes()).hexdigest(),
        }
        for side, names in (("queries", queries), ("gallery", gallery))
        for name in names
    ]  # fmt: skip
    return Sides(pa.Table.from_pylist(sorted(rows, key=lambda row: row["image_id"])))


@pytest.fixture
def photos(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"):
        put(tmp_path / "photos" / name, name.encode())
    return tmp_path / "photos"


def test_an_experiment_removes_the_copies_that_it_has_listed(photos, place):
    copies = join(place, "photos")
    copy_photos(sides_of(photos, ["a/1.jpg"], ["a/2.jpg", "b/1.jpg"]), copies)
    write_bytes(join(copies, "gallery/a/.DS_Store"), b"x")
    check_experiment(str(photos), place)
    write_bytes(join(copies, "gallery/mine/x.jpg"), b"x")
    write_bytes(join(copies, "mine.txt"), b"x")
    with pytest.raises(StorageError, match="such as photos/gallery/mine"):
        check_experiment(str(photos), place)
    copy_photos(sides_of(photos, ["b/1.jpg"], ["b/2.jpg"]), copies)
    copied = ["gallery/b/2.jpg", "queries/b/1.jpg", "sides.json"]
    others = ["gallery/a/.DS_Store", "gallery/mine/x.jpg", "mine.txt"]
    assert files_of(copies) == sorted([*copied, *others])


@pytest.mark.parametrize("name", ["../mine", "/mine", "a/../../mine"])
def test_a_list_of_an_experiment_that_was_changed_removes_nothing(photos, tmp_path, name):
    copies = tmp_path / "output/photos"
    copy_photos(sides_of(photos, ["a/1.jpg"], ["a/2.jpg"]), str(copies))
    marker = json.loads((copies / "sides.json").read_text())
    (copies / "sides.json").write_text(json.dumps({**marker, "files": [*marker["files"], name]}))
    before = snapshot(tmp_path)
    with pytest.raises(StorageError, match="is no path of a file below it"):
        copy_photos(sides_of(photos, ["b/1.jpg"], ["b/2.jpg"]), str(copies))
    assert snapshot(tmp_path) == before


def test_an_experiment_of_the_first_release_goes_on(photos, tmp_path):
    """It kept no list: copies are what has the content of a photo."""
    output = tmp_path / "output"
    sides = sides_of(photos, ["a/1.jpg"], ["a/2.jpg", "b/1.jpg"])
    copy_photos(sides, str(output / "photos"))
    marker = output / "photos/sides.json"
    old = json.dumps({"sha256": sides.fingerprint()})
    marker.write_text(old)
    check_experiment(str(photos), str(output))
    copy_photos(sides, str(output / "photos"))
    assert marker.read_text() == old  # nothing to do
    both = sides_of(photos, ["b/1.jpg"], ["a/1.jpg", "a/2.jpg"])
    copy_photos(both, str(output / "photos"))
    copied = ["gallery/a/1.jpg", "gallery/a/2.jpg", "queries/b/1.jpg"]
    assert files_of(output / "photos") == [*copied, "sides.json"]
    assert json.loads(marker.read_text())["files"] == copied

    marker.write_text(old)
    put(output / "photos/gallery/b/2.jpg", b"another picture")
    before = snapshot(tmp_path)
    with pytest.raises(StorageError, match=r"such as gallery/b/2.jpg\. Choose a new folder"):
        copy_photos(sides, str(output / "photos"))
    assert snapshot(tmp_path) == before


def rank_into(folder, *names):
    writer = RankingWriter(join(str(folder)))
    writer.finish({})
    for name in names:
        write_bytes(join(str(folder), name), b"x")


def test_rankings_of_a_probe_go_but_for_the_last_and_what_is_no_ranking(place):
    rankings = join(place, "_probe_rankings")
    rank_into(join(rankings, "one"), PART)
    rank_into(join(rankings, "two"), PART, "mine.txt", "deep/_ranking.json")
    rank_into(join(rankings, "last"), PART)
    write_bytes(join(rankings, "mine.txt"), b"x")
    forget_older(SimpleNamespace(uri=absolute_uri(place), run={"run_id": "last"}))
    assert files_of(rankings) == [
        "last/_ranking.json", f"last/{PART}", "mine.txt", "two/deep/_ranking.json", "two/mine.txt",
    ]  # fmt: skip


def test_rankings_of_a_probe_are_not_looked_for_behind_links(tmp_path, precious):
    index, before = tmp_path / "index", snapshot(precious)
    (index / "_probe_rankings").mkdir(parents=True)
    (index / "_probe_rankings/one").symlink_to(precious)
    gone = SimpleNamespace(uri=str(index), run={"run_id": "last"})
    forget_older(gone)
    assert (index / "_probe_rankings/one").is_symlink()
    shutil.rmtree(index)
    index.mkdir()
    (index / "_probe_rankings").symlink_to(tmp_path)
    forget_older(gone)
    assert snapshot(precious) == before
