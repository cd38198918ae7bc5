"""What its jobs have not written they neither remove nor read: other names, links, paths out."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from retrieval.errors import IndexFormatError, StorageError, UsageError
from retrieval.index import commit_index, open_index, read_index, save_candidate
from retrieval.index.staging import discard, read_receipts, read_rejects
from retrieval.index.torn_entry import set_torn_entry_aside
from retrieval.maintenance.check import check_index
from retrieval.maintenance.restore import restore_index
from retrieval.maintenance.vacuum import vacuum_index
from tests.conftest import make_spec
from tests.retrieval.night_cases import gallery_of, killed_night
from tests.retrieval.nights import SPEC, check, one_night
from tests.versions import DAY_S, PRESENT_S, add_shard, commit, entry, old_index

HEX = "0" * 32
# A name that a job gives, in each folder, and one of an index's own.
OWN = [
    f"_staging/run-{HEX}.json",
    f"_staging/run-{HEX}.rejects.parquet",
    "_rejects/20260101T000000-0123abcd/part-0.parquet",
    "_candidates/20260101T000000-0123abcd.json",
    f"_runs/.x.json.{HEX}.tmp",
    f"_vacuum/.x.json.{HEX}.tmp",
    f"_delta_log/.x.json.{HEX}.tmp",
    f"shard-{HEX}.parquet",
    f".checkpoint.{HEX}.tmp/_delta_log/{0:020d}.json",
]
FOLDERS = ["_staging", "_rejects", "_candidates", "_runs", "_vacuum"]
ANYWHERE = [
    "notes.txt", "precious.json", "a/b/photo.jpg", "photo.parquet", ".hidden.tmp", "part-0.parquet"
]  # fmt: skip
FOREIGN = [
    *(f"{folder}/{name}" for folder in FOLDERS for name in ANYWHERE),
    "_rejects/run0/precious.parquet",
    "_rejects/run0/notes.txt",
    "_rejects/run0/deep/part-0.parquet",
    f"_staging/deep/run-{HEX}.json",
    "_candidates/precious-0123abcd.json",
    f"_vacuum/deep/{HEX}.json",
    f"deep/shard-{HEX}.parquet",
    "shard-1.parquet",
    "photo.jpg",
    f".checkpoint.{HEX}.tmp/photo.jpg",
    f".checkpoint.{HEX}.tmp/_delta_log/photo.jpg",
    ".checkpoint.old.tmp/photo.jpg",
]


def age(path):
    for each in [path, *path.rglob("*")]:
        when_s = PRESENT_S - 100 * DAY_S
        os.utime(each, (when_s, when_s), follow_symlinks=False)


def clean(path, **settings):
    age(path)
    return vacuum_index(str(path), 7, now_s=PRESENT_S, **settings).to_json()


def put(path, content=b"mine"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def index(tmp_path):
    path = tmp_path / "index"
    path.mkdir()
    old_index(path, [30, 20])
    return path


@pytest.fixture
def elsewhere(tmp_path):
    """A folder of somebody else."""
    folder = tmp_path / "elsewhere"
    for name in OWN:
        put(folder / name)
    put(folder / "precious.txt")
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_of_other_names_stay_in_every_folder(index):
    kept = [put(index / name) for name in FOREIGN]
    assert clean(index)["removed"]["shards"]["files"] == 1
    assert {path for path in kept if path.read_bytes() == b"mine"} == set(kept)


def test_files_of_our_names_go(index):
    ours = [put(index / name) for name in OWN]
    clean(index)
    assert not [path for path in ours if path.exists()]
    assert not (index / f".checkpoint.{HEX}.tmp").exists()


@pytest.mark.parametrize("name", OWN)
def test_a_linked_file_is_left_alone_and_not_followed(index, elsewhere, name):
    before = contents(elsewhere)
    (index / name).parent.mkdir(parents=True, exist_ok=True)
    (index / name).symlink_to(elsewhere / name)
    clean(index)
    assert (index / name).is_symlink()
    assert contents(elsewhere) == before


LINKED = sorted(
    {
        ("/".join(name.split("/")[:depth]), name)
        for name in OWN
        for depth in range(1, name.count("/") + 1)
        if not name.startswith("_delta_log")
    }
)


@pytest.mark.parametrize(("folder", "name"), LINKED)
def test_a_linked_folder_is_left_alone_and_not_followed(index, elsewhere, folder, name):
    before = contents(elsewhere)
    if (index / folder).exists():
        (index / folder).rename(index / "away")
    (index / folder).parent.mkdir(parents=True, exist_ok=True)
    (index / folder).symlink_to(elsewhere / folder, target_is_directory=True)
    if folder == "_vacuum":
        with pytest.raises(StorageError, match="_vacuum: is a link, which no job has made"):
            clean(index)
        assert open_index(str(index)).version == 1
    else:
        clean(index)
    assert contents(elsewhere) == before
    assert (index / folder).is_symlink()


def test_an_index_that_is_itself_reached_by_a_link_is_vacuumed(index, tmp_path):
    (tmp_path / "link").symlink_to(index, target_is_directory=True)
    age(index)
    report = vacuum_index(str(tmp_path / "link"), 7, now_s=PRESENT_S)
    assert report.removed["shards"].files == 1


OUTSIDE = ["../elsewhere/precious.txt", "{elsewhere}/precious.txt", "_staging/../precious.txt", 7]


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("field", ["rejects", "path", "shard"])
def test_a_receipt_that_names_something_else_is_none(tmp_path, elsewhere, field, outside):
    uri, gallery = str(tmp_path / "index"), gallery_of(5)
    one_night(uri, gallery)
    gallery.put("a/new", b"new")
    killed_night(uri, gallery)
    (path,) = (tmp_path / "index" / "_staging").glob("*.json")
    found = json.loads(path.read_bytes())
    if isinstance(outside, str):
        outside = outside.format(elsewhere=elsewhere)
    if field == "shard":
        found["shard"]["path"] = outside
    else:
        found[field] = outside
    path.write_text(json.dumps(found))
    precious = put(tmp_path / "index" / "precious.txt")
    before = contents(elsewhere)
    assert read_receipts(uri, SPEC) == ([], [])
    executor, _ = one_night(uri, gallery)
    assert executor.embedded == ["a/new"]
    check(uri, gallery)
    assert contents(elsewhere) == before
    assert precious.read_bytes() == b"mine"


def test_a_receipt_with_rejects_of_another_one_is_none(tmp_path):
    uri, gallery = str(tmp_path / "index"), gallery_of(5)
    one_night(uri, gallery)
    gallery.put("a/new", b"new")
    killed_night(uri, gallery)
    (path,) = (tmp_path / "index" / "_staging").glob("*.json")
    precious = put(path.with_name(f"other-{HEX}.rejects.parquet"))
    rejects = f"_staging/{precious.name}"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "rejects": rejects}))
    one_night(uri, gallery)
    assert precious.read_bytes() == b"mine"


def test_a_staged_shard_that_is_a_link_is_not_taken_up(tmp_path):
    uri, gallery = str(tmp_path / "index"), gallery_of(5)
    one_night(uri, gallery)
    gallery.put("a/new", b"new")
    killed_night(uri, gallery)
    (receipt,), _ = read_receipts(uri, SPEC)
    shard = tmp_path / "index" / receipt.shard.path
    shard.rename(tmp_path / "moved")
    shard.symlink_to(tmp_path / "moved")
    assert read_receipts(uri, SPEC)[0] == []
    executor, _ = one_night(uri, gallery)
    assert executor.embedded == ["a/new"]


@pytest.mark.parametrize("folder", ["_staging", "_rejects"])
def test_a_night_writes_nothing_behind_a_link(tmp_path, folder):
    uri, gallery = str(tmp_path / "index"), gallery_of(5)
    one_night(uri, gallery)
    gallery.put("a/new", b"new")
    (tmp_path / "moved").mkdir()
    if (tmp_path / "index" / folder).exists():
        (tmp_path / "index" / folder).rmdir()
    (tmp_path / "index" / folder).symlink_to(tmp_path / "moved", target_is_directory=True)
    with pytest.raises(StorageError, match=rf"^{uri}/{folder}: is a link, .* folder itself there"):
        one_night(uri, gallery)
    assert contents(tmp_path / "moved") == {}


def test_receipts_behind_a_link_are_none_and_what_is_one_is_not_discarded(tmp_path):
    uri, gallery = str(tmp_path / "index"), gallery_of(5)
    one_night(uri, gallery)
    gallery.put("a/new", b"new")
    killed_night(uri, gallery)
    (receipt,), _ = read_receipts(uri, SPEC)
    staging = tmp_path / "index" / "_staging"
    staging.rename(tmp_path / "moved")
    staging.symlink_to(tmp_path / "moved", target_is_directory=True)
    before = contents(tmp_path / "moved")
    assert read_receipts(uri, SPEC) == ([], [])
    with pytest.raises(StorageError, match="_staging: is a link"):
        discard(uri, [receipt])
    assert contents(tmp_path / "moved") == before


@pytest.mark.parametrize("rejects", ["../elsewhere", "/etc", "_rejects/..", "_rejects/a/b", "x", 7])
def test_rejects_that_a_record_names_elsewhere_are_one_line(tmp_path, elsewhere, rejects):
    path = tmp_path / "index"
    shards = [add_shard(path, {"a": "1"}), add_shard(path, {"b": "2"})]
    commit(path, shards[:1], run_id="first", rejects=rejects)
    commit(path, shards[1:], run_id="second", rejects=None)
    commit(path, shards, run_id="third", rejects=rejects)
    before = contents(elsewhere)
    line = rf"^{re.escape(str(path))}: its log names the rejects {re.escape(repr(rejects))}; .*$"
    for use in (
        lambda: restore_index(str(path), 0),
        lambda: clean(path),
        lambda: one_night(str(path), gallery_of(2), make_spec(2)),
    ):
        with pytest.raises(IndexFormatError, match=line):
            use()
    assert re.match(line, check_index(open_index(str(path))).faults[0])
    assert contents(elsewhere) == before


def test_rejects_behind_a_link_are_not_read(index, elsewhere):
    folder = index / "_rejects" / "run1"
    folder.rename(elsewhere / "run1")
    folder.symlink_to(elsewhere / "run1", target_is_directory=True)
    assert read_rejects(str(index), ["_rejects/run1"]).num_rows == 0
    (fault,) = check_index(open_index(str(index))).faults[:1]
    assert "no rejects there" in fault
    commit(index, open_index(str(index), 0).shards, rejects=None)
    with pytest.raises(UsageError, match="cannot be restored"):
        restore_index(str(index), 1)


@pytest.mark.parametrize("path", ["../shard.parquet", "/etc/passwd", "a/../../b", "", "a\0b", 7])
def test_a_candidate_that_names_a_shard_elsewhere_is_one_line(index, path):
    opened = open_index(str(index))
    strange = replace(opened, shards=(replace(opened.shards[0], path=path),))
    address = save_candidate(replace(strange, run={"run_id": "x"}))
    with pytest.raises(IndexFormatError, match=rf"^{address}: names a file .*$"):
        open_index(address)


def test_a_candidate_is_read_where_it_lies(index, tmp_path):
    opened = open_index(str(index))
    save_candidate(replace(opened, run={"run_id": "x"}))
    index.rename(tmp_path / "moved")
    found = open_index(str(tmp_path / "moved" / "_candidates" / "x.json"))
    assert (found.uri, found.shards) == (str(tmp_path / "moved"), opened.shards)


def test_a_log_that_names_a_shard_elsewhere_is_one_line(index, elsewhere):
    text = entry(index, 1).read_text()
    (shard,) = open_index(str(index)).shards
    os.link(index / shard.path, elsewhere / shard.path)
    entry(index, 1).write_text(text.replace(shard.path, f"../elsewhere/{shard.path}"))
    for use in (open_index, read_index, clean):
        with pytest.raises(IndexFormatError, match=r"^.*index.*: names a file '\.\./elsewhere"):
            use(str(index) if use is not clean else index)
    assert (elsewhere / shard.path).exists()


@pytest.mark.parametrize(
    "name", ["../elsewhere/precious.txt", "photo.jpg", "_rejects/run0/a.txt", 7]
)
def test_a_list_that_names_what_no_vacuum_removes_is_one_line(index, elsewhere, name):
    put(index / "photo.jpg")
    listed = put(index / "_vacuum" / f"{HEX}.json")
    listed.write_text(json.dumps({"version": 0, "names": [name]}))
    before = contents(elsewhere), contents(index)
    with pytest.raises(IndexFormatError, match=rf"^{listed}: this list of a vacuum cannot be read"):
        clean(index)
    assert (contents(elsewhere), contents(index)) == before


def test_a_list_in_force_removes_nothing_that_is_live_and_follows_no_link(index, elsewhere):
    """Such as somebody may write by hand, or an older release bring about."""
    opened = open_index(str(index))
    link = index / f"shard-{HEX}.parquet"
    link.symlink_to(elsewhere / "precious.txt")
    names = [opened.shards[0].path, "_rejects/run1/part-0.parquet"]
    run = {**opened.run, "run_id": "v", "vacuum": HEX}
    commit_index(opened.uri, opened.spec, opened.shards, run=run, seen_version=1)
    listed = put(index / "_vacuum" / f"{HEX}.json")
    listed.write_text(json.dumps({"version": 1, "names": names}))
    clean(index)
    assert not listed.exists()
    assert check_index(open_index(str(index))).faults == []
    assert (elsewhere / "precious.txt").read_bytes() == b"mine"


def test_a_torn_entry_behind_a_link_is_left_alone(index, elsewhere):
    log = index / "_delta_log"
    log.rename(elsewhere / "log")
    log.symlink_to(elsewhere / "log", target_is_directory=True)
    entry(index, 1).write_bytes(b"")
    before = contents(elsewhere)
    with pytest.raises(StorageError, match=r"_delta_log/0+1\.json: leads through a link"):
        set_torn_entry_aside(str(index))
    assert contents(elsewhere) == before


def test_a_checkpoint_is_made_beside_a_link_and_foreign_files_of_such_a_name(tmp_path, elsewhere):
    index = tmp_path / "index"
    kept = put(index / f".checkpoint.{HEX}.tmp" / "_delta_log" / "photo.jpg")
    stale = put(index / f".checkpoint.{HEX}.tmp" / "_delta_log" / f"{0:020d}.json")
    old = put(index / ".checkpoint.old.tmp" / "photo.jpg")
    link = index / f".checkpoint.{'1' * 32}.tmp"
    link.symlink_to(elsewhere, target_is_directory=True)
    before = contents(elsewhere)
    shard = add_shard(index, {"a": "1"})
    for _ in range(10):
        commit(index, [shard])
    assert (index / "_delta_log" / f"{9:020d}.checkpoint.parquet").exists()
    assert (kept.read_bytes(), old.read_bytes()) == (b"mine", b"mine")
    assert not stale.exists()
    assert contents(elsewhere) == before


def test_dry_runs_write_nothing(index):
    for name in OWN:
        put(index / name)
    age(index)
    before = contents(index), sorted(Path(index).rglob("*"))
    vacuum_index(str(index), 7, now_s=PRESENT_S, dry_run=True)
    assert (contents(index), sorted(Path(index).rglob("*"))) == before
