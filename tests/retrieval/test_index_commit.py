"""A commit holds the difference alone, in the form deltalake writes, and one of two runs wins."""

from __future__ import annotations

import dataclasses
import json
import os
import re

import pytest
from deltalake import DeltaTable, Schema
from deltalake.transaction import AddAction, RemoveAction, create_table_with_add_actions

from retrieval.errors import IndexFormatError, MismatchError, StorageError, UsageError
from retrieval.index import commit_index, index_schema, open_index, read_run
from retrieval.index.table import live_files
from retrieval.storage import list_files, read_bytes, remove_file, write_bytes
from tests.conftest import make_spec
from tests.retrieval.commits import SPEC, commit, ids_of, make_shard, make_versions, state_of
from tests.retrieval.disk import watched


def line(text):
    """A pattern for pytest.raises that matches the whole message."""
    return f"^{re.escape(text)}$"


def actions_of(uri, version, kind):
    """What an entry of the log says of one kind."""
    lines = read_bytes(f"{uri}/_delta_log/{version:020d}.json").splitlines()
    return [action[kind] for action in map(json.loads, lines) if kind in action]


@pytest.fixture(params=["disk", "s3"])
def uri(request, tmp_path):
    """A place for an index, on a local disk and on an object store."""
    if request.param == "disk":
        return str(tmp_path / "index")
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


def test_a_commit_holds_what_comes_and_what_goes_and_not_what_stays(uri):
    stays, goes, comes = (make_shard(uri, row_id) for row_id in "abc")
    commit(uri, [stays, goes], None, n=0)
    assert commit(uri, [comes, stays], 0, n=1, run_id="r") == 1
    assert [add["path"] for add in actions_of(uri, 1, "add")] == [comes.path]
    assert [remove["path"] for remove in actions_of(uri, 1, "remove")] == [goes.path]
    assert actions_of(uri, 1, "metaData") == []
    assert (ids_of(uri), ids_of(uri, 0)) == (["a", "c"], ["a", "b"])
    assert set(open_index(uri).shards) == {comes, stays}
    assert (read_run(uri, 0), read_run(uri, 1)) == ({"n": 0}, {"n": 1, "run_id": "r"})
    assert commit(uri, [comes, stays], 1) == 2  # nothing comes or goes
    assert actions_of(uri, 2, "add") + actions_of(uri, 2, "remove") == []
    assert commit(uri, [goes, comes], 2) == 3  # what had gone comes again
    assert ids_of(uri) == ["b", "c"]


def test_another_make_of_the_embeddings_goes_with_the_commit(uri):
    stays, goes = make_shard(uri, "a"), make_shard(uri, "b")
    commit(uri, [stays, goes], None)
    other = make_spec(3, fingerprint="e" * 64)
    comes = make_shard(uri, "c", spec=other)
    assert commit(uri, [stays, comes], 0, spec=other) == 1
    assert (open_index(uri).spec, open_index(uri, 0).spec) == (other, SPEC)
    assert (ids_of(uri), ids_of(uri, 0)) == (["a", "c"], ["a", "b"])
    [before], [after] = actions_of(uri, 0, "metaData"), actions_of(uri, 1, "metaData")
    assert {key for key in before if before[key] != after[key]} == {"schemaString"}
    assert commit(uri, [comes], 1, spec=other) == 2
    assert actions_of(uri, 2, "metaData") == []


def test_a_shard_that_is_not_there_or_not_whole_is_not_committed(uri):
    kept, shard = make_shard(uri, "a"), make_shard(uri, "b")
    commit(uri, [kept], None)
    data = read_bytes(f"{uri}/{shard.path}")
    write_bytes(f"{uri}/{shard.path}", data[:-1])
    message = (
        f"{uri}/{shard.path}: this new shard has {len(data) - 1} bytes; {len(data)} bytes are "
        f"needed. Nothing was committed: run it again."
    )
    with pytest.raises(StorageError, match=line(message)):
        commit(uri, [kept, shard], 0)
    remove_file(f"{uri}/{shard.path}")
    message = message.replace(f"has {len(data) - 1} bytes", "is not there")
    with pytest.raises(StorageError, match=line(message)):
        commit(uri, [kept, shard], 0)
    remove_file(f"{uri}/{kept.path}")  # of a shard that stays nobody asks again
    assert commit(uri, [kept], 0) == 1


def test_a_shard_that_is_named_twice_is_refused(tmp_path):
    shard = make_shard(tmp_path, "a")
    message = f"{tmp_path}: {shard.path} was to be committed twice. Name it once."
    with pytest.raises(UsageError, match=line(message)):
        commit(tmp_path, [shard, shard], None)
    assert state_of(tmp_path) == (None, [])


def committed_by_deltalake(uri, shards, goes, comes):
    """Two versions of an index as deltalake itself commits them."""

    def add(shard):
        stats = json.dumps({"numRecords": shard.num_rows})
        return AddAction(shard.path, shard.size_bytes, {}, 5, True, stats)

    schema = Schema.from_arrow(index_schema(SPEC))
    create_table_with_add_actions(str(uri), schema, [add(shard) for shard in shards])
    actions = [add(comes), RemoveAction(goes.path, True, 5, goes.size_bytes, {})]
    DeltaTable(str(uri)).create_write_transaction(actions, "append", schema)


def test_the_log_is_what_deltalake_writes_itself(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    shards = [make_shard(ours, *ids) for ids in ("ab", "c", "d")]
    (ours / shards[0].path).rename(ours / "ü b%20.parquet")
    shards[0] = dataclasses.replace(shards[0], path="ü b%20.parquet")
    commit(ours, shards[:2], None)
    commit(ours, [shards[1], shards[2]], 0)
    committed_by_deltalake(theirs, shards[:2], shards[0], shards[2])
    for version in (0, 1):
        for kind in ("protocol", "metaData", "add", "remove"):
            our, their = (actions_of(uri, version, kind) for uri in (ours, theirs))
            assert list(map(comparable, our)) == list(map(comparable, their))
        our, their = (DeltaTable(str(uri), version=version) for uri in (ours, theirs))
        assert json.loads(our.schema().to_json()) == json.loads(their.schema().to_json())
        expected = {
            (shard.path, shard.num_rows, shard.size_bytes) for shard in shards[version:][:2]
        }
        assert numbers_of(our) == numbers_of(their) == expected


def numbers_of(table):
    return {
        (path, file["num_records"], file["size_bytes"]) for path, file in live_files(table).items()
    }


def comparable(action):
    """An action without times and numbers that are drawn, and what deltalake leaves empty."""
    drawn = ("id", "createdTime", "modificationTime", "deletionTimestamp")
    kept = {key: action[key] for key in action if key not in drawn and action[key] is not None}
    if "schemaString" in kept:
        kept["schemaString"] = json.loads(kept["schemaString"])
    return kept


def test_we_and_deltalake_commit_on_top_of_each_other(tmp_path):
    shards = [make_shard(tmp_path, row_id) for row_id in "abcde"]
    committed_by_deltalake(tmp_path, shards[:2], shards[0], shards[2])
    assert state_of(tmp_path) == (1, ["b", "c"])
    assert commit(tmp_path, [shards[0], shards[2]], 1) == 2
    action = AddAction(shards[3].path, shards[3].size_bytes, {}, 5, True, '{"numRecords": 1}')
    schema = Schema.from_arrow(index_schema(SPEC))
    DeltaTable(str(tmp_path)).create_write_transaction([action], "append", schema)
    assert state_of(tmp_path) == (3, ["a", "c", "d"])
    DeltaTable(str(tmp_path)).create_checkpoint()
    assert commit(tmp_path, [shards[4], shards[3]], 3) == 4
    assert [ids_of(tmp_path, n) for n in (0, 2)] == [["a", "b"], ["a", "c"]]
    assert state_of(tmp_path) == (4, ["d", "e"])
    operations = [entry["operation"] for entry in DeltaTable(str(tmp_path)).history()]
    assert operations == ["WRITE"] * 4 + ["CREATE TABLE"]


def test_a_table_with_abilities_that_we_lack_is_not_written_to(tmp_path):
    make_versions(tmp_path, 1)
    entry = {"protocol": {"minReaderVersion": 1, "minWriterVersion": 4}}
    (tmp_path / "_delta_log" / f"{1:020d}.json").write_text(json.dumps(entry))
    message = (
        f"{tmp_path}: its log is of Delta protocol 1, 4; 1, 2 is needed to write to it. Another "
        f"tool has changed it: embed the photos into a new index."
    )
    with pytest.raises(IndexFormatError, match=line(message)):
        commit(tmp_path, open_index(str(tmp_path)).shards, 1)


@pytest.mark.parametrize("seen_version", [None, 0])
@pytest.mark.parametrize("error", [OSError("connection reset"), FileExistsError(17, "there")])
def test_a_link_that_was_made_although_its_reply_was_lost_is_a_commit(
    tmp_path, monkeypatch, seen_version, error
):
    if seen_version == 0:
        make_versions(tmp_path, 1)
    shard, link, synced = make_shard(tmp_path, "x"), os.link, []

    def lose_the_reply(old, new):
        link(old, new)
        raise error

    monkeypatch.setattr(os, "link", lose_the_reply)
    with watched(tmp_path, lambda name, path, _: name == "fsync" and synced.append(path)):
        version = commit(tmp_path, [shard], seen_version)
    assert state_of(tmp_path) == (version, ["x"])
    assert synced[-1] == f"{tmp_path}/_delta_log"  # only then it may be called committed


@pytest.mark.parametrize("seen_version", [None, 0])
def test_a_reply_of_the_store_that_was_lost_is_a_commit(s3, tmp_path, monkeypatch, seen_version):
    uri = f"{s3}/{tmp_path.name}"
    if seen_version == 0:
        commit(uri, [make_shard(uri, "a")], None)

    def losing_its_reply(commit):
        def lose(*args, **settings):
            commit(*args, **settings)
            raise OSError("Generic S3 error\n  \x1b[31m↳\x1b[0m connection reset")

        return lose

    name = "retrieval.index.commit_change.create_table_with_add_actions"
    monkeypatch.setattr(name, losing_its_reply(create_table_with_add_actions))
    write = losing_its_reply(DeltaTable.create_write_transaction)
    monkeypatch.setattr(DeltaTable, "create_write_transaction", write)
    version = commit(uri, [make_shard(uri, "x")], seen_version)
    assert version == (0 if seen_version is None else 1)
    assert state_of_store(uri) == (version, ["x"])


def state_of_store(uri):
    return open_index(uri).version, ids_of(uri)


@pytest.mark.parametrize("run", [{}, {"run_id": "same"}])
def test_a_run_does_not_take_the_commit_of_another_for_its_own(tmp_path, monkeypatch, run):
    make_versions(tmp_path, 1)
    shard, link = make_shard(tmp_path, "x"), os.link

    def be_late(old, new):
        monkeypatch.setattr(os, "link", link)
        commit(tmp_path, [shard], 0, **run)
        link(old, new)

    monkeypatch.setattr(os, "link", be_late)
    if run:  # the same run twice, as a retry may start it
        assert commit(tmp_path, [shard], 0, **run) == 1
        return
    message = (
        f"{tmp_path}: another run has committed version 1 meanwhile; this one started from 0. "
        f"Nothing was changed: run it again."
    )
    with pytest.raises(MismatchError, match=line(message)):
        commit(tmp_path, [shard], 0, **run)


def test_a_commit_that_fails_leaves_what_was_there(uri, monkeypatch):
    commit(uri, [make_shard(uri, "a")], None)

    def fail(*args, **settings):
        raise OSError("Generic S3 error\n  \x1b[31m↳\x1b[0m GET\n  \x1b[31m↳\x1b[0m no route\n")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", fail)
    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr("retrieval.index.commit._PAUSES_S", (0.0, 0.0))
    with pytest.raises(StorageError, match=line(f"{uri}: the commit failed (no route).")):
        commit(uri, [make_shard(uri, "b")], 0)
    assert state_of_store(uri) == (0, ["a"])
    assert [name for name in list_files(f"{uri}/_delta_log") if not name.endswith("0.json")] == []


def test_a_run_cannot_take_an_old_number_whose_entry_was_cleaned_up(tmp_path):
    make_versions(tmp_path, 12)
    shards = open_index(str(tmp_path), 3).shards
    for version in range(4, 9):
        (tmp_path / "_delta_log" / f"{version:020d}.json").unlink()
    assert ids_of(tmp_path, 3) == ["3", "a", "b"]
    with pytest.raises(MismatchError, match=r"has committed version 11 meanwhile; this one start"):
        commit_index(str(tmp_path), SPEC, shards, run={}, seen_version=3)
    assert not (tmp_path / "_delta_log" / f"{4:020d}.json").exists()
    assert state_of(tmp_path) == (11, ["11", "a", "b"])
