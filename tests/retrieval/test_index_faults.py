"""Whatever fails or ends the process within a commit: the old version or the new one, whole."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from retrieval.errors import StorageError
from retrieval.index import open_index
from tests.retrieval.commits import commit, make_shard, make_versions, night, state_of
from tests.retrieval.disk import Faults, copied, watched

# Number of versions before, and the ids that a run leads to: it adds, and from 1 on it removes.
# The tenth version is the first with a checkpoint.
RUNS = {"first": (0, ["a", "b"]), "change": (1, ["a", "b", "new"]), "tenth": (9, ["a", "new"])}


@pytest.fixture(params=RUNS)
def run_from(request, tmp_path):
    """A folder to start from, its state, the ids to lead to, and the version of that."""
    num_versions, ids = RUNS[request.param]
    base = tmp_path / "base"
    if num_versions:
        make_versions(base, num_versions)
    return base, state_of(base), ids, num_versions


@pytest.mark.parametrize("stays_broken", [False, True])
@pytest.mark.parametrize(
    ("num_versions", "ids", "checkpoint_versions"),
    [(0, ["a", "b"], 10), (1, ["a", "b", "new"], 10), (1, ["a"], 2)],
    ids=["first", "change", "checkpoint"],
)
def test_a_run_whose_nth_file_operation_fails_changes_all_or_nothing(
    tmp_path, monkeypatch, caplog, num_versions, ids, checkpoint_versions, stays_broken
):
    monkeypatch.setattr("retrieval.index.commit.CHECKPOINT_VERSIONS", checkpoint_versions)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power is lost here, and it takes long
    base = tmp_path / "base"
    if num_versions:
        make_versions(base, num_versions)
    old, new = state_of(base), (num_versions, ids)
    counted, outcomes = Faults(), []
    with watched(tmp_path / "0", counted):
        night(copied(base, tmp_path / "0"), ids)
    for number in range(1, counted.num_operations + 1):
        uri = copied(base, tmp_path / str(number))
        outcomes.append(run_on_faulty_disk(uri, ids, Faults(number, stays_broken=stays_broken)))
        left = state_of(uri)
        if outcomes[-1] == num_versions:
            assert left == new
        elif "cannot be told" in str(outcomes[-1]):
            assert stays_broken
            assert left in (old, new)
        else:
            assert left == old
        night(uri, ids)  # the same run again
        assert state_of(uri) == new
    assert len(outcomes) > 30
    assert sum(outcome != num_versions for outcome in outcomes) > 10  # some did matter
    assert stays_broken or num_versions in outcomes
    assert stays_broken == any("cannot be told" in str(outcome) for outcome in outcomes)
    assert bool(caplog.records) == (checkpoint_versions == 2)  # one that failed, nothing else


def run_on_faulty_disk(uri, ids, faults):
    """The version that a run returned, or its error."""
    with watched(uri, faults):
        try:
            return night(uri, ids)
        except StorageError as error:  # and no other
            return error


@pytest.mark.parametrize(
    ("place", "becomes_visible"),
    [
        ("before commit", False),
        ("entry written", False),
        ("after commit", True),
        ("checkpoint", True),
    ],
)
def test_a_run_that_is_killed_leaves_the_old_version_or_the_new(
    tmp_path, run_from, place, becomes_visible
):
    uri, old, ids, version = run_from
    if place == "checkpoint" and version != 9:
        pytest.skip("no checkpoint is made of this version")
    script = f"from tests.retrieval.commits import night; night({str(uri)!r}, {ids})"
    killed = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "RETRIEVAL_BREAKPOINT": place},
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert state_of(uri) == ((version, ids) if becomes_visible else old)
    night(uri, ids)
    assert state_of(uri) == (version, ids)
    if place == "checkpoint":
        assert list(uri.glob(".checkpoint.*"))
        for seen_version in range(version, 19):
            commit(uri, open_index(str(uri)).shards, seen_version)
        assert not list(uri.glob(".checkpoint.*"))
        assert state_of(uri) == (19, ids)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mounting, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder, spare_bytes=0):
    """Leave so many bytes of a file system, in whole pages."""
    with (folder / "ballast").open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"x" * 4096)
        except OSError:
            stream.truncate(stream.tell() - spare_bytes)


def test_a_full_disk_is_named_and_leaves_the_old_version(small_disk):
    uri = small_disk / "index"
    make_versions(uri, 1)
    shards = [make_shard(uri, f"more {n}") for n in range(9)]
    fill(small_disk)
    full = "cannot be written (No space left on device). Choose a folder that you may write to"
    with pytest.raises(StorageError, match=f"^{uri}/shard-[0-9a-f]+.parquet: {re.escape(full)}"):
        make_shard(uri, "x")
    message = f"{uri}: the commit failed (No space left on device)."
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
        commit(uri, shards, 0)
    assert state_of(uri) == (0, ["0", "a", "b"])
    (small_disk / "ballast").unlink()
    commit(uri, shards, 0)
    assert state_of(uri) == (1, [f"more {n}" for n in range(9)])
    assert [path.name for path in uri.rglob("*.tmp")] == []


def test_a_checkpoint_that_has_no_room_is_left_out(small_disk, caplog):
    uri = small_disk / "index"
    make_versions(uri, 9)
    shards = open_index(str(uri)).shards
    fill(small_disk, spare_bytes=8192)  # room for the entry, not for the checkpoint
    assert commit(uri, shards[:1], 8) == 9
    assert "no checkpoint of version 9 (" in caplog.text
    assert open_index(str(uri)).shards == shards[:1]
    assert not list(uri.rglob("*checkpoint*"))


def test_an_upload_that_was_cut_short_is_no_shard(tmp_path, monkeypatch):
    from retrieval.index import shards

    write = shards.write_bytes
    monkeypatch.setattr(shards, "write_bytes", lambda uri, data: write(uri, data[:-1]))
    message = (
        rf"^{tmp_path}/shard-[0-9a-f]+.parquet: (\d+) bytes are read back that are not the \d+ "
        r"bytes written. The store or the disk is at fault: check it, and run it again.$"
    )
    with pytest.raises(StorageError, match=message):
        make_shard(tmp_path, "a")


def test_a_shard_that_cannot_be_read_back_is_named(tmp_path, monkeypatch):
    from retrieval.index import shards

    monkeypatch.setattr(shards, "read_bytes", lambda uri: Path(f"{uri}.gone").read_bytes())
    with pytest.raises(StorageError, match=r"parquet: cannot be read back \(No such file or dir"):
        make_shard(tmp_path, "a")


def test_of_processes_that_commit_at_once_one_wins(tmp_path):
    make_versions(tmp_path, 1)
    script = (
        "import sys; from tests.retrieval.commits import *\n"
        "shard = make_shard(sys.argv[1], sys.argv[2]); print('ready', flush=True); input()\n"
        "try: commit(sys.argv[1], [shard], 0); print('won')\n"
        "except Exception as error: print(type(error).__name__)"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    names = ["x", "y", "z"]
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name], **pipes)
        for name in names
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.flush()
    outcomes = [writer.communicate(timeout=60)[0].strip() for writer in writers]
    assert sorted(outcomes) == ["MismatchError", "MismatchError", "won"]
    assert state_of(tmp_path) == (1, [names[outcomes.index("won")]])
