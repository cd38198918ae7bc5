"""Versions by name, how far back one can go, and going back."""

from __future__ import annotations

import re

import numpy as np
import pytest

from retrieval.errors import IndexFormatError, MismatchError, StorageError, UsageError
from retrieval.index import open_index, read_index
from retrieval.index.folder import stored_files, stored_folders
from retrieval.index.history import (
    Log,
    oldest_readable,
    read_commit,
    read_commits,
    read_log,
    split_version,
)
from retrieval.maintenance import restore as restoring
from retrieval.maintenance.restore import restore_index
from retrieval.storage import join, list_files, remove_file, write_bytes
from retrieval.vectors import open_source
from tests.conftest import make_spec
from tests.versions import add_rejects, add_shard, commit, entry


def line(text):
    return f"^{re.escape(text)}$"


def nights(path, num_nights):
    """Each night one shard comes and one goes: version n holds shards n to n + 2."""
    shards = [add_shard(path, {f"p{n}": f"c{n}"}) for n in range(num_nights + 2)]
    for n in range(num_nights):
        commit(path, shards[n : n + 3], run_id=f"run-{n}", num_listed=3)
    return shards


def files_of(path):
    return {file.name for file in stored_files(str(path))}


def test_a_version_is_named_after_an_at_sign(tmp_path):
    assert split_version(f"{tmp_path}/a@12") == (f"{tmp_path}/a", 12)
    assert split_version(f"{tmp_path}/a@b@0") == (f"{tmp_path}/a@b", 0)
    for plain in ("a", "a@", "a@x", "@3", "a@3/b", "a@-1"):
        assert split_version(f"{tmp_path}/{plain}") == (f"{tmp_path}/{plain}", None)
    assert split_version("s3://bucket/a@") == ("s3://bucket/a@", None)


def test_a_folder_that_is_called_so_is_meant(tmp_path, s3):
    nights(tmp_path / "a", 2)
    nights(tmp_path / "a@1", 1)
    assert split_version(f"{tmp_path}/a@1") == (f"{tmp_path}/a@1", None)
    assert split_version(f"{tmp_path}/a@0") == (f"{tmp_path}/a", 0)
    write_bytes(f"{s3}/care/a@1/shard.parquet", b"x")
    assert split_version(f"{s3}/care/a@1") == (f"{s3}/care/a@1", None)
    assert split_version(f"{s3}/care/a@0") == (f"{s3}/care/a", 0)


def test_vectors_are_opened_at_the_version_that_is_named(tmp_path):
    nights(tmp_path / "a", 3)
    source = open_source(f"{tmp_path}/a@1")
    assert (source.uri, source.version) == (f"{tmp_path}/a", 1)
    assert open_source(f"{tmp_path}/a").version == 2
    with pytest.raises(UsageError, match=line(f"{tmp_path}/a: has no version 7; the newest is 2.")):
        open_source(f"{tmp_path}/a@7")
    with pytest.raises(StorageError, match=f"^{tmp_path}/b: no index there"):
        open_source(f"{tmp_path}/b@1")


def test_a_folder_is_listed_with_sizes_whatever_the_names(tmp_path, s3):
    (tmp_path / "f" / "sub").mkdir(parents=True)
    (tmp_path / "f" / ".hidden").write_bytes(b"ab")
    (tmp_path / "f" / "sub" / "deep").write_bytes(b"abc")
    (tmp_path / "f" / "link").symlink_to("nowhere")
    (tmp_path / "f" / b"\xff".decode(errors="surrogateescape")).write_bytes(b"")
    found = stored_files(str(tmp_path / "f"))
    assert [(file.name, file.size_bytes) for file in found] == [(".hidden", 2), ("\udcff", 0)]
    assert abs(found[0].modified_s - (tmp_path / "f" / ".hidden").stat().st_mtime) < 0.01
    assert stored_folders(str(tmp_path / "f")) == ["sub"]
    write_bytes(f"{s3}/listed/_x/deep", b"abc")
    write_bytes(f"{s3}/listed/_y", b"ab")
    (there,) = stored_files(f"{s3}/listed")
    assert (there.name, there.size_bytes) == ("_y", 2)
    assert abs(there.modified_s - found[0].modified_s) < 60
    assert stored_folders(f"{s3}/listed") == ["_x"]
    for missing in (f"{s3}/none", f"{tmp_path}/none"):
        assert stored_files(missing) == stored_folders(missing) == []


def test_the_log_tells_what_each_commit_did(tmp_path):
    shards = nights(tmp_path, 3)
    commits = list(read_commits(str(tmp_path), [2, 1, 0]))
    assert [commit.version for commit in commits] == [2, 1, 0]
    newest = commits[0]
    assert newest.added == {shards[4].path}
    assert newest.removed == {shards[1].path}
    assert newest.run == {"run_id": "run-2", "num_listed": 3}
    assert newest.shards == {shard.path for shard in shards[2:5]}
    assert newest.before(newest.shards) == commits[1].shards
    assert commits[2].before(commits[2].shards) == set()
    assert abs(newest.timestamp_ms / 1000 - entry(tmp_path, 2).stat().st_mtime) < 5


@pytest.mark.parametrize(
    "damage", ["gone", "empty", "cut in a line", "cut after a line", "no object"]
)
def test_a_damaged_entry_is_named(tmp_path, damage):
    nights(tmp_path, 3)
    path = entry(tmp_path, 1)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "no object":
        path.write_bytes(b"7\n")
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        end = content.index(b"\n") + 1
        path.write_bytes(content[: end if damage == "cut after a line" else end + 20])
    with pytest.raises(IndexFormatError, match=f"^{path}: this entry of the log cannot be read"):
        read_commit(str(tmp_path), 1)


def test_how_far_back_one_can_go_ends_where_a_shard_is_gone(tmp_path, s3):
    for uri in (str(tmp_path / "a"), f"{s3}/back/a"):
        shards = nights(uri, 12)
        index = open_index(uri)
        assert oldest_readable(index, files_of(uri)) == 0
        for gone, oldest in ((0, 1), (3, 4), (10, 11)):
            remove_file(join(uri, shards[gone].path))
            assert oldest_readable(index, files_of(uri)) == oldest
        remove_file(join(uri, shards[12].path))
        assert oldest_readable(index, files_of(uri)) is None


def test_a_version_before_a_gap_does_not_count(tmp_path):
    first, other = (add_shard(tmp_path, {name: name}) for name in "ab")
    for shards in ([first], [other], [first]):
        commit(tmp_path, shards)
    (tmp_path / other.path).unlink()
    assert oldest_readable(open_index(str(tmp_path)), files_of(tmp_path)) == 2


def test_a_log_whose_beginning_was_cleaned_up_goes_back_to_a_checkpoint(tmp_path):
    nights(tmp_path, 14)
    log = read_log(str(tmp_path))
    assert log.entries == tuple(range(14))
    assert log.checkpoints == (9,)
    assert log.size_bytes == sum(
        path.stat().st_size for path in (tmp_path / "_delta_log").iterdir()
    )
    for version in range(9):
        entry(tmp_path, version).unlink()
    index = open_index(str(tmp_path))
    assert oldest_readable(index, files_of(tmp_path)) == 9
    assert open_index(str(tmp_path), 9).run == {"run_id": "run-9", "num_listed": 3}
    entry(tmp_path, 9).unlink()  # that of the checkpoint itself
    assert oldest_readable(index, files_of(tmp_path)) == 9


@pytest.mark.parametrize(
    ("entries", "checkpoints", "version", "first", "oldest"),
    [
        ((0, 1, 2), (), 2, 0, 0),
        ((0, 1, 2, 3), (), 2, 0, 0),
        ((4, 5), (4,), 5, 4, 4),
        ((4, 5), (3,), 5, 4, 3),
        ((4, 5), (1,), 5, 4, 5),
        ((1, 2, 4, 5), (1, 4), 5, 4, 4),
        ((), (7,), 7, 8, 7),
    ],
)
def test_what_a_log_can_open(entries, checkpoints, version, first, oldest):
    log = Log(entries, checkpoints, 0)
    assert log.first_entry(version) == first
    assert log.oldest_openable(version) == oldest


def test_restoring_makes_a_new_version_of_old_content(tmp_path, s3):
    for uri in (str(tmp_path / "a"), f"{s3}/restore/a"):
        shards = [add_shard(uri, {"a": "1"}), add_shard(uri, {"b": "2"})]
        rejects = add_rejects(uri, "first", ["x"])
        facts = {"num_listed": 2, "num_rejected": 1, "listed_us": 5, "photos": "/photos"}
        commit(uri, shards[:1], run_id="first", rejects=rejects, sources={"x": []}, **facts)
        commit(uri, shards[1:], run_id="second", spec=make_spec(2, fingerprint="e" * 64))
        before = list_files(uri)
        made = restore_index(uri, 0)
        assert (made.version, made.shards) == (2, (shards[0],))
        assert made.spec == make_spec(2)
        own = dict(made.run)
        assert own.pop("run_id") not in ("first", "second")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", own.pop("created_at"))
        assert own == {**facts, "restored_version": 0, "rejects": rejects}
        assert read_index(uri).ids == ["a"]
        assert [read_index(uri, version).ids for version in (0, 1)] == [["a"], ["b"]]
        assert list_files(uri) == before
        again = restore_index(uri, 1)
        assert (again.version, again.run["restored_version"]) == (3, 1)
        assert read_index(uri).ids == ["b"]


def test_a_version_that_is_current_or_not_there_is_not_restored(tmp_path):
    nights(tmp_path, 2)
    message = f"{tmp_path}: version 1 is the newest already. Name an older one."
    with pytest.raises(UsageError, match=line(message)):
        restore_index(str(tmp_path), 1)
    with pytest.raises(UsageError, match=line(f"{tmp_path}: has no version 2; the newest is 1.")):
        restore_index(str(tmp_path), 2)
    assert open_index(str(tmp_path)).version == 1


def test_a_version_of_which_a_shard_or_the_rejects_are_gone_is_not_restored(tmp_path):
    shards = nights(tmp_path, 4)
    (tmp_path / shards[1].path).unlink()
    message = (
        f"{tmp_path}: version 1 cannot be restored: 1 of its files have been vacuumed, such as "
        f"{shards[1].path}. Versions 2 to 3 can be."
    )
    with pytest.raises(UsageError, match=line(message)):
        restore_index(str(tmp_path), 1)
    assert restore_index(str(tmp_path), 2).version == 4
    commit(tmp_path, shards[2:3], run_id="x", rejects="_rejects/x")
    commit(tmp_path, shards[3:4], run_id="y", rejects=None)
    with pytest.raises(UsageError, match=r"version 5 cannot be restored: .* such as _rej"):
        restore_index(str(tmp_path), 5)
    assert open_index(str(tmp_path)).version == 6


def test_a_cut_shard_is_not_restored(tmp_path):
    shards = nights(tmp_path, 2)
    whole = (tmp_path / shards[0].path).read_bytes()
    (tmp_path / shards[0].path).write_bytes(whole[:-1])
    with pytest.raises(UsageError, match="version 0 cannot be restored"):
        restore_index(str(tmp_path), 0)


def test_a_restore_that_another_run_overtakes_changes_nothing(tmp_path, monkeypatch):
    shards = nights(tmp_path, 2)

    def overtaken(*arguments, **settings):
        commit(tmp_path, shards[:1])
        return make(*arguments, **settings)

    make = restoring.commit_index
    monkeypatch.setattr(restoring, "commit_index", overtaken)
    with pytest.raises(MismatchError, match="another run has committed version 2 meanwhile"):
        restore_index(str(tmp_path), 0)
    assert open_index(str(tmp_path)).shards == (shards[0],)


def test_a_restore_that_lost_a_shard_to_a_vacuum_says_so(tmp_path, monkeypatch):
    shards = nights(tmp_path, 2)

    def raced(*arguments, **settings):
        version = make(*arguments, **settings)
        (tmp_path / shards[0].path).unlink()
        return version

    make = restoring.commit_index
    monkeypatch.setattr(restoring, "commit_index", raced)
    message = (
        f"{tmp_path}: version 2 lacks {shards[0].path}, which a vacuum that ran at the same time "
        f"has removed. Go back once more: retrieval-cli restore {tmp_path} 1"
    )
    with pytest.raises(StorageError, match=line(message)):
        restore_index(str(tmp_path), 0)
    monkeypatch.undo()
    restored = restore_index(str(tmp_path), 1)
    assert np.array_equal(sorted(read_index(str(tmp_path)).ids), ["p1", "p2", "p3"])
    assert restored.version == 3
