"""An object store that throttles, breaks connections, loses replies and says no when it should not.

Each operation meets each fault; what comes of it is right, or refused in one line.
"""

from __future__ import annotations

import pickle
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake.transaction import create_table_with_add_actions

from retrieval.errors import MismatchError, StorageError
from retrieval.index import open_index, read_run
from retrieval.index.shards import encode_parquet
from retrieval.storage import (
    clients,
    file_exists,
    file_stamp,
    list_files,
    open_input,
    open_store,
    read_bytes,
    remove_file,
    write_bytes,
)
from tests.faults import faulty_store
from tests.retrieval.commits import commit, ids_of, make_shard

PASSING = ["503", "500", "reset", "lost"]
OLD = b"old" * 1000
# How each operation asks, what it does, and which files there are then.
OPERATIONS = {
    "write": ("PUT", lambda uri: write_bytes(f"{uri}/new", b"x" * 1000), ["new", "old"]),
    "read": ("GET", lambda uri: read_bytes(f"{uri}/old"), ["old"]),
    "look up": ("HEAD", lambda uri: file_exists(f"{uri}/old"), ["old"]),
    "measure": ("HEAD", lambda uri: file_stamp(f"{uri}/old")[0], ["old"]),
    "list": ("GET", lambda uri: names(uri), ["old"]),
    "remove": ("DELETE", lambda uri: remove_file(f"{uri}/old"), []),
}
ANSWERS = {"read": OLD, "look up": True, "measure": len(OLD), "list": ["old"]}


@pytest.fixture(scope="module")
def patient(s3):
    with faulty_store(s3, "patient") as store:
        yield store


@pytest.fixture(scope="module")
def proxy(s3):
    with faulty_store(s3, "impatient", patience_s=0.5) as store:
        yield store


@pytest.fixture
def store(proxy):
    """Good at first; with a folder of the test's own that holds the file "old"."""
    proxy.set()
    proxy.uri = f"{proxy.uri.rpartition('/')[0]}/{uuid.uuid4().hex}"
    write_bytes(f"{proxy.uri}/old", OLD)
    return proxy


def names(uri):
    return [file.rpartition("/")[2] for file in list_files(uri)]


@pytest.mark.parametrize(
    ("operation", "action"),
    [*product(OPERATIONS, PASSING), ("read", "truncate"), ("list", "truncate")],
)
def test_a_fault_that_passes_is_not_noticed(store, operation, action):
    method, do, after = OPERATIONS[operation]
    store.fail(action, method)
    assert do(store.uri) == ANSWERS.get(operation)
    told = store.told()
    assert told["faults"] == {action: 1}
    assert names(store.uri) == after
    if operation == "write":
        assert told["requests"] == {"PUT": 2}  # a small file is one request, here made twice
        assert read_bytes(f"{store.uri}/new") == b"x" * 1000


@pytest.mark.parametrize("action", ["503", "reset", "lost"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_fault_that_stays_is_told_in_one_line(store, operation, action):
    method, do, after = OPERATIONS[operation]
    store.fail(action, method, count=None)
    with pytest.raises(OSError if operation == "read" else StorageError) as caught:
        do(store.uri)
    assert "\n" not in str(caught.value)
    assert store.faults()[action] > 3
    store.set()
    # What was lost the store has seen, and more than once.
    assert names(store.uri) == (after if action == "lost" else ["old"])
    do(store.uri)
    assert names(store.uri) == after


@pytest.mark.parametrize("action", ["409", "412"])
def test_a_write_that_is_refused_leaves_the_old_file(store, action):
    store.fail(action, "PUT")
    with pytest.raises(StorageError, match=r"/old: cannot be written \(.*\)\. Choose a folder"):
        write_bytes(f"{store.uri}/old", b"new")
    assert read_bytes(f"{store.uri}/old") == OLD


LARGE = bytes(range(256)) * 45_000  # 11 MB, two parts


@pytest.mark.parametrize("action", PASSING)
def test_a_large_file_comes_in_parts_of_which_one_meets_a_fault(store, action):
    store.fail(action, "PUT", "partNumber=2")
    write_bytes(f"{store.uri}/large", LARGE)
    assert store.told()["requests"] == {"POST": 2, "PUT": 3}
    assert read_bytes(f"{store.uri}/large") == LARGE


@pytest.mark.parametrize("part", ["partNumber=1", "partNumber=2", "uploadId="])
def test_half_of_a_large_file_is_never_there(store, part):
    store.fail("409", "POST" if part == "uploadId=" else "", part)
    with pytest.raises(StorageError, match="cannot be written"):
        write_bytes(f"{store.uri}/large", LARGE)
    assert store.faults() == {"409": 1}
    assert names(store.uri) == ["old"]
    store.fail("409", "POST" if part == "uploadId=" else "", part)
    with pytest.raises(StorageError, match="cannot be written"):  # nor instead of one that was
        write_bytes(f"{store.uri}/old", LARGE)
    assert read_bytes(f"{store.uri}/old") == OLD


def test_one_column_of_a_shard_costs_its_own_bytes_only(store):
    num_rows = 20_000
    vectors = np.zeros((num_rows, 128), np.float16)
    rows = pa.table(
        {
            "image_id": [f"{row:07d}" for row in range(num_rows)],
            "embedding": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(256), num_rows, [None, pa.py_buffer(vectors)]
            ),
        }
    )
    data = encode_parquet(rows)
    write_bytes(f"{store.uri}/shard.parquet", data)
    store.set()
    with open_input(f"{store.uri}/shard.parquet") as stream, pq.ParquetFile(stream) as file:
        assert file.read(columns=["image_id"]).num_rows == num_rows
    assert data.size > 5_000_000
    assert store.told()["bytes"]["down"] < 250_000  # of these the footer costs up to 64 KiB


COMMIT_FAULTS = [*PASSING, "409", "412", "409_after", "412_after"]


@pytest.mark.parametrize(
    ("action", "seen_version"),
    [
        *((action, 0) for action in COMMIT_FAULTS),
        ("lost", None),
        ("409", None),
        ("412_after", None),
    ],
)
def test_a_commit_that_meets_a_fault_is_made_once(store, action, seen_version):
    if seen_version == 0:
        commit(store.uri, [make_shard(store.uri, "before")], None)
    shard = make_shard(store.uri, "a", "b")
    store.fail(action, "PUT", "_delta_log")
    version = commit(store.uri, [shard], seen_version, run_id="ours")
    assert store.faults() == {action: 1}
    assert version == open_index(store.uri).version == (0 if seen_version is None else 1)
    assert read_run(store.uri, version) == {"run_id": "ours"}
    assert ids_of(store.uri) == ["a", "b"]


@pytest.mark.parametrize("action", ["503", "reset", "409", "412"])
def test_a_commit_that_the_store_goes_on_to_refuse_changes_nothing(store, monkeypatch, action):
    monkeypatch.setattr("retrieval.index.commit._PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr("retrieval.index.commit._RETRY_S", 1.0)
    commit(store.uri, [make_shard(store.uri, "before")], None)
    shard = make_shard(store.uri, "a")
    store.fail(action, "PUT", "_delta_log", count=None)
    reason = {
        "503": "503 Service Unavailable",
        "reset": "Connection reset by peer (os error 104)",
    }.get(action, "the store says that this version is there, but it is not; run it again")
    message = f"{store.uri}: the commit failed ({reason})."
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
        commit(store.uri, [shard], 0)
    assert store.faults()[action] >= 3
    store.set()
    assert ids_of(store.uri) == ["before"]
    assert commit(store.uri, [shard], 0) == 1


def test_a_commit_of_which_nothing_can_be_told_says_so(store, monkeypatch):
    shard = make_shard(store.uri, "a")
    write = create_table_with_add_actions

    def lose_its_reply_and_the_store(*args, **settings):
        store.fail("lost", "PUT", "_delta_log")
        try:
            write(*args, **settings)
        finally:
            store.fail("503", "GET", count=None)

    name = "retrieval.index.commit_change.create_table_with_add_actions"
    monkeypatch.setattr(name, lose_its_reply_and_the_store)
    with pytest.raises(StorageError, match=r"whether version 0 was committed .* cannot be told"):
        commit(store.uri, [shard], None)
    store.set()
    assert ids_of(store.uri) == ["a"]  # it was; a rerun finds it


@pytest.mark.parametrize("seed", range(6))
def test_of_two_writers_at_once_one_wins_whatever_goes_wrong(store, seed):
    commit(store.uri, [make_shard(store.uri, "before")], None)
    shards = {name: make_shard(store.uri, name) for name in ("a", "b")}
    store.set(
        *(
            {"action": action, "method": "PUT", "substring": "_delta_log", "count": 1, "skip": skip}
            for skip, action in enumerate(np.random.default_rng(seed).choice(COMMIT_FAULTS, 2))
        )
    )

    def write(name):
        try:
            return commit(store.uri, [shards[name]], 0, run_id=name)
        except MismatchError:
            return None

    with ThreadPoolExecutor(2) as pool:
        versions = dict(zip("ab", pool.map(write, "ab"), strict=True))
    (winner,) = (name for name, version in versions.items() if version is not None)
    assert versions[winner] == open_index(store.uri).version == 1
    assert ids_of(store.uri) == [winner]
    assert read_run(store.uri, 1) == {"run_id": winner}


@pytest.mark.parametrize("size_bytes", [7, 1000])  # less and more than the text of an error
def test_many_threads_have_the_patience_of_one(patient, size_bytes):
    """With AwsStandardS3RetryStrategy they have not: a client's retries are used up there."""
    patient.set()
    content = bytes(size_bytes)
    write_bytes(f"{patient.uri}/a", content)
    patient.fail("503", "GET", count=32 * 6)
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(read_bytes, [f"{patient.uri}/a"] * 32))
    assert patient.faults() == {"503": 32 * 6}
    assert found == [content] * 32


def test_a_client_that_is_sent_to_a_worker_keeps_its_patience(patient):
    """Ray Train sends one, for the checkpoints; of pyarrow's own three tries are left."""
    patient.set()
    write_bytes(f"{patient.uri}/a", OLD)
    filesystem, path = open_store(f"{patient.uri}/a")
    patient.fail("503", "GET", count=6)
    sent = pickle.loads(pickle.dumps(filesystem))
    assert sent.open_input_stream(path).read() == OLD
    assert patient.faults() == {"503": 6}


def test_a_client_of_google_gives_up_after_a_minute_too():
    for bucket in ("gs://bucket", "gs://anonymous@bucket"):
        filesystem, path = open_store(f"{bucket}/a/b")
        assert path == "bucket/a/b"
        _, (settings,) = filesystem.__reduce__()
        assert settings["retry_time_limit"].total_seconds() == clients._RETRY_S


def test_an_index_opens_whichever_answer_breaks_off(store):
    for number in range(3):
        commit(store.uri, [make_shard(store.uri, f"{number}")], number - 1 if number else None)
    store.set()
    open_index(store.uri)
    num_requests = store.told()["requests"]["GET"]
    assert num_requests >= 4
    for skip in range(num_requests):
        store.fail("truncate", "GET", skip=skip)
        assert open_index(store.uri).version == 2
        assert store.faults() == {"truncate": 1}
