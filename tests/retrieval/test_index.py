"""The index: what is committed comes back, whole, in its version, to any reader of Delta Lake."""

from __future__ import annotations

import hashlib
import re
import threading
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from retrieval.errors import MismatchError, StorageError, UsageError
from retrieval.index import (
    EmbeddingSpec,
    commit_index,
    index_schema,
    is_index,
    open_index,
    read_index,
    write_shard,
)
from retrieval.index.reading import read_columns
from tests.conftest import make_index, make_spec

IDS = ["b/é.jpg", "a b.jpg", "猫", "B.jpg", "\U0001f431", "b/1.jpg", "b-1.jpg"]
VECTORS = np.arange(1, 22, dtype=np.float16).reshape(7, 3)


def line(text):
    """A pattern for pytest.raises that matches the whole message."""
    return f"^{re.escape(text)}$"


def rows_of(uri, version=None):
    """Id → (vector, label) of a version."""
    rows = read_index(str(uri), version)
    pairs = zip(rows.embeddings.tolist(), rows.labels, strict=True)
    return dict(zip(rows.ids, pairs, strict=True))


def write_rows(uri, spec, vectors, ids=None, labels=None):
    """One shard, not yet committed."""
    ids, num_rows = ids or [f"{n}" for n in range(len(vectors))], len(vectors)
    columns = {
        "image_id": ids,
        "uri": [f"/photos/{row_id}" for row_id in ids],
        "content_sha256": ["0" * 64] * num_rows,
        "size_bytes": [2**40] * num_rows,
        "modified_at": [datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)] * num_rows,
        "width": [640] * num_rows,
        "height": [480] * num_rows,
        "label": pa.array(labels or [None] * num_rows, pa.string()),
        "embedding": [row.tobytes() for row in np.asarray(vectors, spec.dtype)],
    }
    return write_shard(str(uri), pa.table(columns).cast(index_schema(spec)))


def replace(uri, vectors, seen_version, **settings):
    """Commit other rows as the whole content."""
    vectors = np.asarray(vectors, np.float16)
    spec = make_spec(vectors.shape[1], **settings)
    shard = write_rows(uri, spec, vectors)
    return commit_index(str(uri), spec, [shard], run={}, seen_version=seen_version)


@pytest.mark.parametrize(("dtype", "num_bytes"), [("float16", 6), ("float32", 12)])
def test_a_shard_has_the_types_and_the_layout_of_the_contract(tmp_path, dtype, num_bytes):
    spec = make_spec(3, dtype)
    shard = write_rows(tmp_path, spec, VECTORS)
    file = pq.ParquetFile(tmp_path / shard.path)
    names = "image_id uri content_sha256 size_bytes modified_at width height label embedding"
    assert file.schema_arrow.names == names.split()
    assert file.schema_arrow.equals(index_schema(spec), check_metadata=True)
    physical = {column.name: column for column in (file.schema.column(n) for n in range(9))}
    assert {name: column.physical_type for name, column in physical.items()} == {
        **dict.fromkeys(("image_id", "uri", "content_sha256", "label"), "BYTE_ARRAY"),
        **dict.fromkeys(("size_bytes", "modified_at"), "INT64"),
        **dict.fromkeys(("width", "height"), "INT32"),
        "embedding": "FIXED_LEN_BYTE_ARRAY",
    }
    assert physical["embedding"].length == num_bytes
    # A null is possible for the label alone.
    assert [name for name, column in physical.items() if column.max_definition_level] == ["label"]
    stored = file.metadata.row_group(0).column(8)
    assert stored.compression == "UNCOMPRESSED"
    assert set(stored.encodings) == {"PLAIN", "RLE"}  # RLE is that of the levels
    assert not stored.has_dictionary_page
    data = (tmp_path / shard.path).read_bytes()
    assert np.asarray(VECTORS, dtype).tobytes() in data  # back to back, in one page
    assert (shard.num_rows, shard.size_bytes) == (7, len(data))
    assert shard.sha256 == hashlib.sha256(data).hexdigest()


def test_what_is_committed_comes_back(tmp_path):
    spec = EmbeddingSpec(
        fingerprint="a" * 64, backbone="my.net:büild", weights="/w e", dim=3, normalised=False
    )
    shards = [write_rows(tmp_path, spec, VECTORS[n : n + 2], IDS[n : n + 2]) for n in (0, 2)]
    write_rows(tmp_path, spec, VECTORS)  # of a run that was killed
    run = {"run_id": "é", "settings": {"seed": None, "x": [1.5, True]}}
    assert commit_index(str(tmp_path), spec, shards, run=run, seen_version=None) == 0
    index = open_index(f"{tmp_path}/")
    assert (index.uri, index.version, index.num_rows) == (str(tmp_path), 0, 4)
    assert (index.spec, index.run) == (spec, run)
    assert index.shards == tuple(sorted(shards, key=lambda shard: shard.path))
    assert set(rows_of(tmp_path)) == set(IDS[:4])


def test_rows_are_sorted_by_the_bytes_of_their_ids_with_all_that_belongs_to_them(tmp_path):
    labels = ["1", None, "", "x", "ü", "1", None]
    for num_shards in (1, 3, 7):
        uri = tmp_path / str(num_shards)
        index = make_index(uri, IDS, VECTORS, labels=labels, num_shards=num_shards)
        rows = read_index(str(uri))
        order = sorted(range(7), key=lambda n: IDS[n].encode())
        assert rows.ids == [IDS[n] for n in order]
        assert rows.labels == [labels[n] for n in order]
        assert rows.embeddings.tobytes() == VECTORS[order].tobytes()
        assert rows.index == index
        paths = [shard.path for shard in index.shards]
        assert paths == sorted(paths)  # not in the order of the log


def test_other_readers_of_delta_lake_see_the_same_rows(tmp_path):
    make_index(tmp_path, IDS, VECTORS, num_shards=2)
    replace(tmp_path, VECTORS[:2], 0)
    for version, expected in ((0, dict(zip(IDS, VECTORS, strict=True))), (1, None)):
        table = DeltaTable(str(tmp_path), version=version)
        parts = [pq.read_table(uri.removeprefix("file://")) for uri in table.file_uris()]
        expected = expected or dict(zip("01", VECTORS[:2], strict=True))
        for rows in (pa.concat_tables(parts), table.to_pyarrow_table()):
            found = zip(rows["image_id"].to_pylist(), rows["embedding"].to_pylist(), strict=True)
            assert dict(found) == {row_id: row.tobytes() for row_id, row in expected.items()}


def test_a_version_keeps_its_rows_its_make_and_its_run(tmp_path):
    first = make_index(tmp_path, IDS, VECTORS)
    spec = make_spec(2, "float32", fingerprint="b" * 64)
    shard = write_rows(tmp_path, spec, [[1, 2]], ["new"], ["x"])
    assert commit_index(str(tmp_path), spec, [shard], run={"n": 1}, seen_version=0) == 1
    assert open_index(str(tmp_path)) == open_index(str(tmp_path), 1)
    assert open_index(str(tmp_path)).run == {"n": 1}
    assert open_index(str(tmp_path)).spec == spec
    assert rows_of(tmp_path) == {"new": ([1.0, 2.0], "x")}
    assert open_index(str(tmp_path), 0) == first
    assert first.run == {}
    assert set(rows_of(tmp_path, 0)) == set(IDS)
    assert read_columns(first, ["label"]).num_rows == 7  # a reader that had opened it before
    message = f"{tmp_path}: has no version 2; the newest is 1."
    with pytest.raises(UsageError, match=line(message)):
        open_index(str(tmp_path), 2)
    for version in (2**31, 2**70):  # deltalake would count up to them
        with pytest.raises(
            UsageError, match=line(message.replace("version 2", f"version {version}"))
        ):
            open_index(str(tmp_path), version)


def test_an_index_of_no_image_is_read_as_such(tmp_path):
    commit_index(str(tmp_path), make_spec(3), [], run={}, seen_version=None)
    rows = read_index(str(tmp_path))
    assert (rows.ids, rows.labels, rows.index.num_rows) == ([], [], 0)
    assert (rows.embeddings.shape, rows.embeddings.dtype) == ((0, 3), np.float16)


def taken(uri, newest, seen):
    return line(
        f"{uri}: another run has committed version {newest} meanwhile; this one started from "
        f"{seen}. Nothing was changed: run it again."
    )


def check_compare_and_swap(uri):
    make_index(uri, IDS, VECTORS)
    with pytest.raises(MismatchError, match=taken(uri, 0, None)):
        replace(uri, [[8]], None)
    assert replace(uri, [[1, 2]], 0) == 1
    for seen_version in (0, None):
        with pytest.raises(MismatchError, match=taken(uri, 1, seen_version)):
            replace(uri, [[9]], seen_version)
    assert (open_index(str(uri)).version, rows_of(uri)) == (1, {"0": ([1.0, 2.0], None)})
    assert replace(uri, [[3]], 1) == 2


def check_race(uri, seen_version):
    """Eight writers at once, from one version; exactly one wins, and its rows are there."""
    barrier, outcomes = threading.Barrier(8), []

    def commit(writer):
        barrier.wait()
        try:
            outcomes.append((writer, replace(uri, [[writer + 1]], seen_version)))
        except MismatchError as error:
            outcomes.append((writer, str(error)))

    writers = [threading.Thread(target=commit, args=(writer,)) for writer in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    newest = 0 if seen_version is None else seen_version + 1
    winners = [writer for writer, outcome in outcomes if outcome == newest]
    assert len(winners) == 1
    lost = [outcome for _, outcome in outcomes if outcome != newest]
    assert all(re.fullmatch(taken(uri, newest, seen_version), outcome) for outcome in lost)
    assert (len(lost), open_index(str(uri)).version) == (7, newest)
    assert rows_of(uri) == {"0": ([winners[0] + 1.0], None)}


def test_a_run_that_has_not_seen_the_newest_version_cannot_commit(tmp_path):
    check_compare_and_swap(tmp_path / "index")


@pytest.mark.parametrize("num_before", [0, 1])
def test_of_runs_that_commit_at_once_one_wins(tmp_path, num_before):
    if num_before:
        make_index(tmp_path, IDS, VECTORS)
    check_race(tmp_path, 0 if num_before else None)


def test_an_index_lives_on_s3_too(s3):
    uri = f"{s3}/some where/ü 100%/index"
    assert not is_index(uri)
    check_compare_and_swap(uri)
    check_race(uri, 2)
    assert rows_of(f"{uri}/", 1) == {"0": ([1.0, 2.0], None)}
    check_race(f"{s3}/race", None)
    with pytest.raises(StorageError, match=f"^{s3}/nothing: no index there. Make one: retrieval-"):
        open_index(f"{s3}/nothing")
    with pytest.raises(StorageError, match=r"^s3://no-such-bucket/x: cannot be opened \(404 Not F"):
        is_index("s3://no-such-bucket/x")
