"""A commit on a file system without hard links, and a folder that cannot be synced."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest

from retrieval.errors import IndexFormatError, MismatchError, StorageError
from retrieval.index import open_index, set_torn_entry_aside
from retrieval.storage import check_writable, write_bytes, writing
from retrieval.storage.writing import give_new_name
from tests.retrieval.commits import commit, make_shard, make_versions, night, state_of
from tests.retrieval.power_loss import Recorder, possible_states, rebuild

NO_LINKS = ["EPERM", "EACCES", "EOPNOTSUPP", "ENOSYS", "EXDEV", "EMLINK", "EINVAL"]


def refuse_links(monkeypatch, name="EPERM"):
    def link(old, new, **settings):
        raise OSError(getattr(errno, name), "no links here", str(old))

    monkeypatch.setattr(os, "link", link)


@pytest.fixture(params=["renamed", "copied"])
def no_links(request, monkeypatch):
    """A file system without links; and one that cannot rename without replacing either."""
    refuse_links(monkeypatch)
    if request.param == "copied":
        monkeypatch.setattr(writing, "_renamed", lambda *_: False)
    return request.param


@pytest.mark.parametrize("name", NO_LINKS)
def test_an_index_needs_no_links(tmp_path, monkeypatch, name):
    refuse_links(monkeypatch, name)
    make_versions(tmp_path, 3)
    assert state_of(tmp_path) == (2, ["2", "a", "b"])


def test_nor_does_a_checkpoint(tmp_path, no_links, caplog):
    make_versions(tmp_path, 12)
    assert (tmp_path / "_delta_log" / f"{9:020d}.checkpoint.parquet").is_file()
    assert caplog.records == []
    assert state_of(tmp_path) == (11, ["11", "a", "b"])
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


def test_one_of_two_runs_wins_without_links_too(tmp_path, no_links, monkeypatch):
    make_versions(tmp_path, 1)
    shard, given = make_shard(tmp_path, "x"), writing.give_new_name

    def be_late(temporary, name):
        monkeypatch.setattr("retrieval.index.delta_log_writer.give_new_name", given)
        commit(tmp_path, [shard], 0, n="first")
        given(temporary, name)

    monkeypatch.setattr("retrieval.index.delta_log_writer.give_new_name", be_late)
    with pytest.raises(MismatchError, match="has committed version 1 meanwhile"):
        commit(tmp_path, [shard], 0, n="second")
    assert open_index(str(tmp_path)).run == {"n": "first"}


def test_a_name_that_somebody_has_is_never_replaced(tmp_path, no_links):
    new, name = tmp_path / "new", tmp_path / "name"
    new.write_bytes(b"new")
    name.write_bytes(b"old")
    with pytest.raises(FileExistsError):
        give_new_name(new, name)
    assert name.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["EIO", "ENOSPC", "EDQUOT", "EROFS"])
def test_another_error_of_the_link_is_told(tmp_path, monkeypatch, name):
    make_versions(tmp_path, 1)
    refuse_links(monkeypatch, name)
    with pytest.raises(StorageError, match=os.strerror(getattr(errno, name))):
        commit(tmp_path, [make_shard(tmp_path, "x")], 0)
    assert state_of(tmp_path) == (0, ["0", "a", "b"])


def test_an_entry_that_does_not_fit_is_not_left_begun(tmp_path, monkeypatch):
    make_versions(tmp_path, 1)
    shard = make_shard(tmp_path, "x")
    refuse_links(monkeypatch)
    monkeypatch.setattr(writing, "_renamed", lambda *_: False)
    real, synced = os.fsync, []

    def fsync(descriptor):
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if path.endswith(f"{1:020d}.json"):
            synced.append(path)
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="No space left"):
        commit(tmp_path, [shard], 0)
    assert synced
    assert state_of(tmp_path) == (0, ["0", "a", "b"])


def test_a_loss_of_power_without_links_leaves_nothing_that_is_taken_for_whole(
    tmp_path, monkeypatch
):
    """The old version, the new, or an entry that is told to be incomplete and can be set aside."""
    refuse_links(monkeypatch)
    monkeypatch.setattr(writing, "_renamed", lambda *_: False)
    root, rebuilt = tmp_path / "disk", tmp_path / "rebuilt"
    root.mkdir()
    make_versions(root / "index", 1)
    old, recorder = state_of(root / "index"), Recorder(root)
    with recorder.watch():
        night(root / "index", ["a", "b", "new"])
    new, found = state_of(root / "index"), []
    states = {
        state
        for number in range(len(recorder.events) + 1)
        for state in possible_states(recorder, recorder.events[:number])
    }
    for state in states:
        rebuild(state, root, rebuilt)
        try:
            found.append(state_of(rebuilt / "index"))
        except IndexFormatError:
            found.append("torn")
            assert set_torn_entry_aside(str(rebuilt / "index")) == 0
            assert state_of(rebuilt / "index") == old
    assert {str(one) for one in found} == {str(old), str(new), "torn"}
    for state in possible_states(recorder, recorder.events):  # once it has returned
        rebuild(state, root, rebuilt)
        assert state_of(rebuilt / "index") == new


def refuse_to_sync_folders(monkeypatch, name, call="fsync"):
    real_sync, real_open = os.fsync, os.open

    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(getattr(errno, name), "not of a folder")
        real_sync(descriptor)

    def open_file(path, flags, *rest, **settings):
        if flags == os.O_RDONLY and os.path.isdir(path):  # noqa: PTH112
            raise OSError(getattr(errno, name), "not of a folder")
        return real_open(path, flags, *rest, **settings)

    monkeypatch.setattr(os, call, {"fsync": fsync, "open": open_file}[call])


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("EINVAL", "fsync"), ("EOPNOTSUPP", "fsync"), ("ENOSYS", "fsync"), ("EBADF", "fsync"),
        ("EACCES", "fsync"), ("EACCES", "open"), ("EPERM", "open"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_synced_is_written_all_the_same(tmp_path, monkeypatch, name, call):
    refuse_to_sync_folders(monkeypatch, name, call)
    folder = str(tmp_path / "folder")
    check_writable(folder)
    assert list(tmp_path.iterdir()) == []
    write_bytes(f"{folder}/file", b"content")
    make_versions(tmp_path / "index", 11)
    assert state_of(tmp_path / "index") == (10, ["10", "a", "b"])


@pytest.mark.parametrize("name", ["EIO", "ENOSPC"])
def test_a_disk_that_fails_is_told_and_nothing_is_left(tmp_path, monkeypatch, name):
    refuse_to_sync_folders(monkeypatch, name)
    folder, reason = tmp_path / "new" / "folder", os.strerror(getattr(errno, name))
    with pytest.raises(StorageError, match=re.escape(f"{folder}: cannot be written ({reason}")):
        check_writable(str(folder))
    assert list(tmp_path.iterdir()) == []
