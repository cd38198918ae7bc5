"""A byte of the log is another one: readers tell it in one line, and never take it for true."""

from __future__ import annotations

import json
import random
import re

import pytest

from retrieval.errors import IndexFormatError, RetrievalError
from retrieval.index import open_index, read_index, read_run, set_torn_entry_aside
from retrieval.index.entries import CONTENT_KEY, RUN_KEY, DamagedEntryError, parse_entry
from retrieval.index.history import read_commits
from retrieval.maintenance.check import check_index
from retrieval.maintenance.vacuum import vacuum_index
from tests.retrieval.commits import commit, ids_of, make_shard, make_versions, state_of

RUN = {
    "run_id": "20261130T143554-ff3eb3ce",
    "listed_us": 1796049354761964,
    "num_listed": 4,
    "num_unlabelled": 4,
    "num_rejected": 0,
    "settings": {"labels": "none"},
    "rejects": None,
}


def entry_of(uri, version):
    return uri / "_delta_log" / f"{version:020d}.json"


def make_index(uri):
    """Two versions, of which the second adds, removes and says a lot of itself."""
    make_versions(uri, 1)
    shards = open_index(str(uri)).shards
    commit(uri, [*shards[:2], make_shard(uri, "x", "y")], 0, **RUN)
    return str(uri)


def without_hashes(entry):
    """An entry as older releases wrote it."""
    lines = [json.loads(line) for line in entry.read_bytes().splitlines()]
    info = lines[0]["commitInfo"]
    for key in ("retrieval.entry_sha256", CONTENT_KEY):
        info.pop(key, None)
    entry.write_text("".join(f"{json.dumps(line, separators=(',', ':'))}\n" for line in lines))


def flips(content, rng, number):
    """One bit of a byte, another byte, or a digit or letter that keeps the JSON whole."""
    for place in rng.sample(range(len(content)), min(number, len(content))):
        old = content[place]
        new = rng.choice([old ^ 1 << rng.randrange(8), rng.randrange(256), *b"0a9f\"'"])
        if new != old:
            yield place, content[:place] + bytes([new]) + content[place + 1 :]


def opened(uri, version=None):
    """What readers take from the log."""
    index = open_index(uri, version)
    commits = [vars(each) for each in read_commits(uri, range(index.version, -1, -1))]
    return index, read_run(uri, index.version), commits


def one_line(call, *args):
    try:
        return call(*args)
    except RetrievalError as error:
        return str(error) if "\n" not in str(error) else error


def check_newest(uri, rng, number):
    """No damage of the newest entry is passed over, and each is set aside."""
    path = entry_of(uri, 1)
    content = path.read_bytes()
    for place, damaged in flips(content, rng, number):
        path.write_bytes(damaged)
        for call in (open_index, read_index, opened, lambda uri: read_run(uri, 1)):
            found = one_line(call, str(uri))
            assert isinstance(found, str), (place, damaged[place - 30 : place + 30])
            assert f"restore {uri} --torn" in found
        assert set_torn_entry_aside(str(uri)) == 0
        assert state_of(uri) == (0, ["0", "a", "b"])
        path.with_name(f"{path.name}.torn").unlink()
    path.write_bytes(content)


def check_older(uri, rng, number):
    """What an older entry said is still believed only where it is right; `verify` finds all."""
    path, right = entry_of(uri, 0), open_index(str(uri))
    rows, content = read_index(str(uri)).ids, path.read_bytes()
    for place, damaged in flips(content, rng, number):
        path.write_bytes(damaged)
        where = (place, damaged[place - 30 : place + 30])
        found = one_line(open_index, str(uri))
        if not isinstance(found, str):
            assert found == right, where
            faults = check_index(found).faults
            assert any(path.name in fault for fault in faults), (where, faults)
            assert read_index(str(uri)).ids == rows
        for call in (lambda uri: vacuum_index(uri, 0, dry_run=True, force=True), opened):
            assert isinstance(one_line(call, str(uri)), str), where
    path.write_bytes(content)


def test_any_damage_of_an_entry_is_found(tmp_path):
    make_index(tmp_path)
    check_newest(tmp_path, random.Random(7), 60)
    check_older(tmp_path, random.Random(8), 30)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_byte_of_an_entry_is_vouched_for(tmp_path):
    uri = make_index(tmp_path)
    check_newest(tmp_path, random.Random(1), 10_000)
    check_older(tmp_path, random.Random(2), 10_000)
    assert len(opened(uri)[2]) == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"shards_sha256", b"shards_sha252"),
        (b"num_unlabelled", b"num_|nlabelled"),
        (b"retrieval.run", b"retrieval.rum"),
        (b"retrieval.run", b"setrieval.run"),
        (b"numRecords", b"numRecordz"),
        (b"commitInfo", b"commitInfp"),
        (b'"add"', b'"adc"'),
        (b"retrieval.num_actions", b"retrieval.num_action5"),
    ],
)
@pytest.mark.parametrize("release", ["this", "older"])
def test_a_key_that_is_another_one_is_no_entry_of_less(tmp_path, old, new, release):
    uri, path = make_index(tmp_path), entry_of(tmp_path, 1)
    if release == "older":
        without_hashes(path)
    right = open_index(uri)
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    found = one_line(open_index, uri)
    if release == "older" and old in (b"num_unlabelled", b"numRecords"):
        # No hash vouches for them; of the rows, the shard itself tells.
        assert found.shards == right.shards
        return
    assert isinstance(found, str), found
    assert "version 1 is damaged: " in found
    assert set_torn_entry_aside(uri) == 0


def test_entries_of_older_releases_lose_no_shard_by_a_damaged_byte(tmp_path):
    uri, path = make_index(tmp_path), entry_of(tmp_path, 1)
    without_hashes(path)
    right = [(shard.path, shard.sha256) for shard in open_index(uri).shards]
    content = path.read_bytes()
    for place, damaged in flips(content, random.Random(3), 100):
        path.write_bytes(damaged)
        found = one_line(open_index, uri)
        if not isinstance(found, str):  # a hash may be another one: then the shard is not right
            shards = [(shard.path, bool(shard.sha256)) for shard in found.shards]
            assert shards == [(name, True) for name, _ in right], damaged[place - 30 : place + 30]
            one_line(read_index, uri)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_listed", -1),
        ("num_listed", 2.5),
        ("num_listed", True),
        ("listed_us", "1"),
        ("run_id", 5),
        ("rejects", ["x"]),
        ("settings", []),
        ("sources", None),
        ("shards_sha256", {"a": "x"}),
        ("shards_sha256", []),
        ("format_version", "1"),
    ],
)
def test_a_record_of_other_types_is_refused(tmp_path, name, value):
    uri, path = make_index(tmp_path), entry_of(tmp_path, 1)
    without_hashes(path)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    record = json.loads(lines[0]["commitInfo"]["retrieval.run"])
    lines[0]["commitInfo"]["retrieval.run"] = json.dumps(record | {name: value})
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    for call in (open_index, read_index, opened):
        with pytest.raises(IndexFormatError):
            call(uri)


RECORD = json.dumps({**RUN, "shards_sha256": {}})
NO_ENTRIES = {
    "a list in the place of an action": {"add": []},
    "a text in the place of a commit": {"commitInfo": "x"},
    "a record under another name": {"commitInfo": {"engineInfo": "delta-rs", "rum": RECORD}},
    "a record nested too deep": {"commitInfo": {RUN_KEY: "[" * 100_000}},
}


@pytest.mark.parametrize("line", NO_ENTRIES.values(), ids=NO_ENTRIES)
def test_an_entry_that_no_hash_vouches_for_is_read_strictly(line):
    """As older releases wrote them with deltalake, on an object store."""
    lines = [{"commitInfo": {"engineInfo": "delta-rs", RUN_KEY: RECORD}}, {"remove": {}}]
    assert parse_entry("\n".join(map(json.dumps, lines)).encode(), "entry").record["num_listed"]
    lines["commitInfo" not in line] = line
    with pytest.raises(DamagedEntryError):
        parse_entry("\n".join(map(json.dumps, lines)).encode(), "entry")


def test_a_line_nested_too_deep_is_damage():
    with pytest.raises(DamagedEntryError, match="nested too deep"):
        parse_entry(b"[" * 100_000, "entry")


@pytest.mark.parametrize("stats", ['{"numRecords": -1}', '{"numRecords": 3}', "{}", None])
def test_rows_that_the_log_tells_wrongly_are_found(tmp_path, stats):
    uri, path = make_index(tmp_path), entry_of(tmp_path, 1)
    without_hashes(path)
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    next(line for line in lines if "add" in line)["add"]["stats"] = stats
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if stats in ("{}", None):  # then the shard is asked
        assert len(read_index(uri).ids) == 4
    else:
        assert isinstance(one_line(read_index, uri), str)


def test_a_damaged_checkpoint_is_found_and_set_aside(tmp_path):
    make_versions(tmp_path, 12)
    uri, right = str(tmp_path), state_of(tmp_path)
    (path,) = (tmp_path / "_delta_log").glob("*.checkpoint.parquet")
    content = path.read_bytes()
    rng, num_found = random.Random(4), 0
    for place in rng.sample(range(len(content)), 30):
        damaged = content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)])
        path.write_bytes(damaged + content[place + 1 :])
        found = one_line(open_index, uri)
        if isinstance(found, str):
            num_found += 1
            if "--torn" in found:
                assert set_torn_entry_aside(uri) == 11
                assert state_of(tmp_path) == right
        else:
            assert state_of(tmp_path) == right
    assert num_found


def test_an_entry_on_a_store_is_vouched_for_too(s3, tmp_path):
    uri = f"{s3}/{tmp_path.name}"
    from retrieval.storage import read_bytes, write_bytes

    commit(uri, [make_shard(uri, "a")], None, **RUN)
    path = f"{uri}/_delta_log/{0:020d}.json"
    content = read_bytes(path)
    assert CONTENT_KEY in parse_entry(content, path).info
    for old, new in (
        (b"num_unlabelled", b"num_|nlabelled"),
        (b"shards_sha256", b"shards_sha252"),
        (b"retrieval.run", b"retrieval.rum"),
        (b"retrieval.content_sha256", b"retrieval.content_sha255"),
        (b'\\"numRecords\\":1', b'\\"numRecords\\":2'),
        (b'\\"numRecords\\": 1', b'\\"numRecords\\": 2'),
    ):
        if old in content:
            write_bytes(path, content.replace(old, new))
            with pytest.raises(IndexFormatError, match=re.escape(f"restore {uri} --torn")):
                open_index(uri)
    write_bytes(path, content)
    assert ids_of(uri) == ["a"]
