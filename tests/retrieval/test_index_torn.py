"""A torn entry is refused and set aside; a checkpoint sums up the log and loses nothing of it."""

from __future__ import annotations

import json
import re

import pytest
from deltalake import DeltaTable

from retrieval.errors import IndexFormatError, StorageError, UsageError
from retrieval.index import open_index, read_run, set_torn_entry_aside
from retrieval.index.entries import read_entry
from retrieval.storage import list_files, read_bytes, write_bytes
from tests.conftest import make_spec
from tests.retrieval.commits import commit, ids_of, make_shard, make_versions, state_of


def line(text):
    """A pattern for pytest.raises that matches the whole message."""
    return f"^{re.escape(text)}$"


def entry_of(uri, version):
    return uri / "_delta_log" / f"{version:020d}.json"


def torn(uri, version):
    return line(
        f"{uri}: version {version} is incomplete, as a loss of power leaves it "
        f"(_delta_log/{version:020d}.json). Set that file aside: retrieval-cli restore {uri} --torn"
    )


def parts_of(entry):
    """What may be left of an entry: nothing, cut in each line and after each, zeros, half zeros."""
    lines = entry.splitlines(keepends=True)
    ends = [len(b"".join(lines[:number])) for number in range(len(lines))]
    cuts = [entry[: end + more] for end in ends for more in (0, 1, 40)]
    return [*cuts, entry[:-2], bytes(len(entry)), entry[: ends[1]] + bytes(100)]


@pytest.mark.parametrize("change", ["shards", "make", "nothing"])
def test_a_torn_entry_is_refused_and_can_be_set_aside(tmp_path, change):
    make_versions(tmp_path, 2)
    shards = open_index(str(tmp_path)).shards
    if change == "shards":
        commit(tmp_path, [shards[0], make_shard(tmp_path, "x", "y")], 1)
    else:
        spec = make_spec(3, fingerprint="e" * 64 if change == "make" else "f" * 64)
        commit(tmp_path, shards, 1, spec=spec)
    entry = entry_of(tmp_path, 2)
    whole, new = entry.read_bytes(), state_of(tmp_path)
    for part in parts_of(whole) if change != "nothing" else [b"", whole[:9], whole[:-2]]:
        entry.write_bytes(part)
        for version in (None, 2):
            with pytest.raises(IndexFormatError, match=torn(tmp_path, 2)):
                open_index(str(tmp_path), version)
        assert ids_of(tmp_path, 1) == ["1", "a", "b"]
        assert set_torn_entry_aside(str(tmp_path)) == 1
        assert state_of(tmp_path) == (1, ["1", "a", "b"])
        assert entry.with_name(f"{entry.name}.torn").read_bytes() == part
        assert commit(tmp_path, [shards[0]], 1) == 2
        assert open_index(str(tmp_path)).shards == shards[:1]
    kept = [path.read_bytes() for path in entry.parent.glob("*.torn*")]
    parts = parts_of(whole) if change != "nothing" else [b"", whole[:9], whole[:-2]]
    assert sorted(kept) == sorted(parts)  # none of an earlier accident is lost
    entry.write_bytes(whole)
    assert state_of(tmp_path) == new


def test_an_entry_that_deltalake_wrote_and_that_lacks_actions_is_torn(tmp_path):
    make_versions(tmp_path, 1)
    commit(tmp_path, [make_shard(tmp_path, "x")], 0)
    entry = entry_of(tmp_path, 1)
    lines = [json.loads(text) for text in entry.read_bytes().splitlines()]
    del lines[0]["commitInfo"]["retrieval.num_actions"]  # deltalake does not count them
    entry.write_text("".join(f"{json.dumps(action)}\n" for action in lines))
    assert state_of(tmp_path) == (1, ["x"])
    entry.write_text(f"{json.dumps(lines[0])}\n")
    with pytest.raises(IndexFormatError, match=torn(tmp_path, 1)):
        open_index(str(tmp_path))
    assert set_torn_entry_aside(str(tmp_path)) == 0


def test_nothing_is_set_aside_of_a_log_that_is_whole(tmp_path):
    message = f"{tmp_path}: no torn entry in its log, so there is none to set aside."
    with pytest.raises(UsageError, match=line(message)):
        set_torn_entry_aside(str(tmp_path))
    make_versions(tmp_path, 2)
    with pytest.raises(UsageError, match=line(message)):
        set_torn_entry_aside(str(tmp_path))
    # Of another tool: not ours to judge.
    (tmp_path / "_delta_log" / f"{2:020d}.json").write_text('{"commitInfo":{"operation":"X"}}')
    with pytest.raises(UsageError, match=line(message)):
        set_torn_entry_aside(str(tmp_path))
    assert state_of(tmp_path) == (2, ["1", "a", "b"])


def test_the_only_version_may_be_torn(tmp_path):
    make_versions(tmp_path, 1)
    entry = entry_of(tmp_path, 0)
    for part in parts_of(entry.read_bytes()):
        entry.write_bytes(part)
        with pytest.raises(IndexFormatError, match=torn(tmp_path, 0)):
            open_index(str(tmp_path))
        assert set_torn_entry_aside(str(tmp_path)) is None
        assert state_of(tmp_path) == (None, [])
        make_versions(tmp_path, 1)
        assert state_of(tmp_path) == (0, ["0", "a", "b"])


def test_damage_further_back_is_named_and_stops_a_commit(tmp_path):
    make_versions(tmp_path, 3)
    shards = open_index(str(tmp_path)).shards
    entry_of(tmp_path, 1).write_bytes(b'{"add":')
    reason = "Kernel error: Json error: Truncated record whilst reading value"
    with pytest.raises(
        IndexFormatError, match=line(f"{tmp_path}: the log cannot be read ({reason}).")
    ):
        open_index(str(tmp_path))
    with pytest.raises(StorageError, match=line(f"{tmp_path}: the commit failed ({reason}).")):
        commit(tmp_path, shards, 2)
    with pytest.raises(UsageError, match="no torn entry"):
        set_torn_entry_aside(str(tmp_path))
    with pytest.raises(IndexFormatError, match=torn(tmp_path, 1)):
        read_run(str(tmp_path), 1)


def test_a_torn_entry_stops_a_commit_from_the_version_before(tmp_path):
    make_versions(tmp_path, 2)
    shards = open_index(str(tmp_path)).shards
    entry_of(tmp_path, 1).write_bytes(b"")
    with pytest.raises(IndexFormatError, match=torn(tmp_path, 1)):
        commit(tmp_path, shards, 0)


def test_a_torn_entry_on_an_object_store_is_set_aside_too(s3, tmp_path):
    uri = f"{s3}/{tmp_path.name}"
    shard = make_shard(uri, "a")
    commit(uri, [shard], None)
    commit(uri, [make_shard(uri, "b")], 0)
    entry = f"{uri}/_delta_log/{1:020d}.json"
    part = read_bytes(entry)[:-30]
    write_bytes(entry, part)
    with pytest.raises(IndexFormatError, match=torn(uri, 1)):
        open_index(uri)
    assert set_torn_entry_aside(uri) == 0
    assert ids_of(uri) == ["a"]
    assert read_bytes(f"{entry}.torn") == part
    assert commit(uri, [shard], 0) == 1


def names_in(log):
    return {name.rpartition("/")[2] for name in list_files(log)}


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_every_tenth_version_has_a_checkpoint_and_none_is_lost(request, tmp_path, place):
    uri = str(tmp_path) if place == "disk" else f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    shards = [make_shard(uri, str(number)) for number in range(23)]
    for number in range(22):
        commit(uri, shards[number : number + 2], number - 1 if number else None, n=number)
    entries = {f"{number:020d}.json" for number in range(22)}
    checkpoints = {f"{number:020d}.checkpoint.parquet" for number in (9, 19)}
    assert names_in(f"{uri}/_delta_log") == entries | checkpoints
    assert json.loads(read_bytes(f"{uri}/_delta_log/_last_checkpoint"))["version"] == 19
    for number in range(22):  # any version can still be read
        index = open_index(uri, number)
        assert {shard.path for shard in index.shards} == {s.path for s in shards[number:][:2]}
        assert index.run == {"n": number}


def test_with_a_checkpoint_the_entries_before_it_are_not_read(tmp_path):
    make_versions(tmp_path, 22)
    index = open_index(str(tmp_path))
    assert DeltaTable(str(tmp_path)).metadata().configuration == {}
    for version in range(19):
        entry_of(tmp_path, version).write_bytes(b"not read")
    assert open_index(str(tmp_path)) == index
    assert not list(tmp_path.rglob("*.tmp"))
    entry_of(tmp_path, 21).unlink()
    entry_of(tmp_path, 20).unlink()
    assert ids_of(tmp_path) == ["19", "a", "b"]
    assert read_entry(str(tmp_path), 20).info == {}
