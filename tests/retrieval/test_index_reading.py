"""The whole index as arrays is what a plain loop over its shards gives, in the order of the ids."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import IndexFormatError
from retrieval.index import commit_index, open_index, read_index, reading
from tests.conftest import make_index, make_spec


def by_loop(index):
    """Id, label and vector of every row, sorted as Python sorts bytes."""
    rows = []
    for shard in index.shards:
        rows += pq.read_table(f"{index.uri}/{shard.path}").to_pylist()
    return sorted(rows, key=lambda row: row["image_id"].encode())


def assert_read(uri):
    index = open_index(str(uri))
    rows, expected = read_index(str(uri)), by_loop(index)
    assert rows.ids == [row["image_id"] for row in expected]
    assert rows.labels == [row["label"] for row in expected]
    assert rows.embeddings.tobytes() == b"".join(row["embedding"] for row in expected)
    assert rows.embeddings.shape == (index.num_rows, index.spec.dim)
    assert rows.embeddings.dtype == np.dtype(index.spec.dtype)
    assert rows.embeddings.flags.writeable
    assert rows.embeddings.flags.c_contiguous
    return rows


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("num_shards", [1, 2, 5])
@pytest.mark.parametrize("order", ["sorted", "backwards", "shuffled"])
def test_rows_of_any_order_in_any_shards(tmp_path, monkeypatch, order, num_shards, dtype):
    monkeypatch.setattr(reading, "_READ_BYTES", 64)  # batches of a few rows
    ids = sorted((f"{n}" for n in range(100)), key=str.encode)
    if order == "backwards":
        ids.reverse()
    elif order == "shuffled":
        np.random.default_rng(0).shuffle(ids)
    vectors = np.random.default_rng(1).standard_normal((100, 5)).astype(dtype)
    labels = [None if n % 7 == 0 else f"label {n % 3}" for n in range(100)]
    make_index(tmp_path, ids, vectors, labels=labels, num_shards=num_shards)
    assert_read(tmp_path)


def test_shards_that_are_runs_of_the_ids_are_placed_whatever_their_names(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_READ_BYTES", 24)
    vectors = np.arange(1, 61, dtype=np.float16).reshape(20, 3)
    ids = [f"{n:02}" for n in range(20)]
    parts, shards = (range(12, 20), range(0, 5), range(5, 12)), []
    for number, part in enumerate(parts):
        folder = tmp_path / f"{number}"
        index = make_index(folder, [ids[n] for n in part], vectors[part.start : part.stop])
        (folder / index.shards[0].path).rename(tmp_path / index.shards[0].path)
        shards.append(index.shards[0])
    commit_index(str(tmp_path), index.spec, shards, run={}, seen_version=None)
    rows = assert_read(tmp_path)
    assert rows.ids == ids
    assert rows.embeddings.tobytes() == vectors.tobytes()


@settings(deadline=None)  # a commit waits for the disk
@given(ids=st.lists(st.text("\x01a\x7fé猫\U0001f431", max_size=3), min_size=1, max_size=12))
def test_ids_are_in_the_order_of_their_bytes_equal_ones_as_they_lie(tmp_path_factory, ids):
    folder = tmp_path_factory.mktemp("index")
    vectors = np.arange(1, len(ids) + 1, dtype=np.float32).reshape(-1, 1)
    make_index(folder, ids, vectors, num_shards=2 if len(ids) > 3 else 1)
    rows = assert_read(folder)
    assert rows.ids == sorted(ids, key=str.encode)


def settled_bytes(most):
    """Arrow's memory once it is no more than that: it lets go a moment after it has read."""
    for _ in range(200):
        if pa.total_allocated_bytes() <= most:
            break
        time.sleep(0.02)
    return pa.total_allocated_bytes()


def test_one_sorted_shard_is_not_copied(tmp_path):
    ids = [f"{n:05}" for n in range(5000)]
    make_index(tmp_path, ids, np.ones((5000, 64), np.float32))
    before = pa.total_allocated_bytes()
    rows = read_index(str(tmp_path))
    # Arrow's own memory, and no more of it than the embeddings take.
    most = before + rows.embeddings.nbytes + 100_000
    assert before + rows.embeddings.nbytes <= settled_bytes(most) < most
    del rows
    assert settled_bytes(before + 100_000) < before + 100_000


def test_equal_labels_are_one_object(tmp_path):
    labels = ["a long label", None, "another one", "a long label"]
    make_index(tmp_path, list("abcd"), np.ones((4, 2), np.float16), labels=labels)
    rows = read_index(str(tmp_path))
    assert rows.labels == labels
    assert rows.labels[0] is rows.labels[3]


@pytest.mark.parametrize("change", ["rows", "width", "gone", "flipped"])
def test_a_shard_that_changes_between_its_ids_and_its_vectors_is_named(
    tmp_path, monkeypatch, change
):
    vectors = np.arange(1, 51, dtype=np.float16).reshape(10, 5)
    index = make_index(tmp_path, [f"{n}" for n in range(10)], vectors, num_shards=2)
    other = make_index(tmp_path / "other", [f"{n}" for n in range(5)], np.ones((5, 4), np.float16))
    path = tmp_path / index.shards[1].path
    whole, sorting = path.read_bytes(), reading._sorting

    def sort_and_change(ids):
        if change == "rows":
            pq.write_table(pq.read_table(path).slice(1), path)
        elif change == "width":
            path.write_bytes((tmp_path / "other" / other.shards[0].path).read_bytes())
        elif change == "gone":
            path.unlink()
        else:
            place = whole.index(pq.read_table(path)["embedding"][2].as_py())
            path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        return sorting(ids)

    monkeypatch.setattr(reading, "_sorting", sort_and_change)
    problem = "not the shard that the index names" if change in ("rows", "width") else "this shard"
    with pytest.raises(
        IndexFormatError, match=f"^{path}: {problem}.* Embed the photos again with `heal`.$"
    ):
        read_index(str(tmp_path))


def test_shards_without_rows_are_passed_over(tmp_path):
    vectors = np.arange(1, 7, dtype=np.float16).reshape(3, 2)
    index = make_index(tmp_path, ["b", "a", "c"], vectors, num_shards=5)
    assert sorted(shard.num_rows for shard in index.shards) == [0, 0, 1, 1, 1]
    assert assert_read(tmp_path).ids == ["a", "b", "c"]
    commit_index(str(tmp_path), make_spec(2), [], run={}, seen_version=0)
    assert read_index(str(tmp_path)).embeddings.flags.writeable
