"""What is no index, or no longer one, is named; nothing of it is read as something else."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from retrieval.errors import IndexFormatError, StorageError, UsageError
from retrieval.index import EmbeddingSpec, commit_index, is_index, open_index, read_index
from retrieval.index.reading import vectors_of
from retrieval.storage import list_files
from tests.conftest import make_index, make_spec

IDS = [f"photo {n}" for n in range(50)]
VECTORS = np.arange(1, 151, dtype=np.float16).reshape(50, 3)
ONLY = "Only tables written by `retrieval-cli embed` are indexes."


def line(text):
    """A pattern for pytest.raises that matches the whole message."""
    return f"^{re.escape(text)}$"


def log_entry(folder, version):
    return folder / "_delta_log" / f"{version:020d}.json"


@pytest.mark.parametrize("name", ["missing", "empty", "file.pq", "empty log"])
def test_a_place_without_an_index_is_named(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.pq").write_bytes(b"x")
    (tmp_path / "empty log" / "_delta_log").mkdir(parents=True)
    uri = f"{tmp_path}/{name}"
    assert not is_index(uri)
    message = f"{uri}: no index there. Make one: retrieval-cli embed PHOTOS {uri}"
    if name == "file.pq":  # where none can be made
        message = (
            f"{uri}: no index there, but a file. Name another place; make one in a new place: "
            f"retrieval-cli embed PHOTOS INDEX"
        )
    for read in (open_index, read_index):
        with pytest.raises(StorageError, match=line(message)):
            read(uri)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "empty log", "file.pq"]


def test_a_table_of_something_else_is_no_index(tmp_path):
    write_deltalake(str(tmp_path / "a"), pa.table({"x": [1], "image_id": ["a"]}))
    message = (
        f"{tmp_path}/a: a Delta table with the columns x, image_id, and no index; image_id and "
        f"embedding are needed. {ONLY.removesuffix('.')}; `retrieval-cli rank` reads the vectors "
        f"of others."
    )
    with pytest.raises(IndexFormatError, match=line(message)):
        open_index(str(tmp_path / "a"))
    write_deltalake(str(tmp_path / "b"), pa.table({"image_id": ["a"], "embedding": [b"1234"]}))
    message = (
        f"{tmp_path}/b: the embedding column does not say how it was made "
        f"(KeyError('fingerprint')). {ONLY}"
    )
    with pytest.raises(IndexFormatError, match=line(message)):
        open_index(str(tmp_path / "b"))


@pytest.mark.parametrize(
    "spec",
    [
        make_spec(1),
        make_spec(2048, "float32"),
        EmbeddingSpec(fingerprint="", backbone="a:b", weights="é", dim=3, normalised=False),
    ],
)
def test_a_spec_comes_back_from_its_metadata(spec):
    assert EmbeddingSpec.from_metadata(spec.to_metadata(), "here") == spec
    assert spec.row_bytes == spec.dim * (4 if spec.dtype == "float32" else 2)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"dim": "0"}, "embeddings of 0 × float16"),
        ({"dim": "-3"}, "embeddings of -3 × float16"),
        ({"dtype": "int8"}, "embeddings of 3 × int8"),
        ({"dtype": "float64"}, "embeddings of 3 × float64"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(change, problem):
    message = (
        f"here: {problem}; float16 or float32 and at least one dimension are needed. Embed the "
        f"photos again."
    )
    with pytest.raises(IndexFormatError, match=line(message)):
        EmbeddingSpec.from_metadata(make_spec(3).to_metadata() | change, "here")
    with pytest.raises(IndexFormatError, match=r"how it was made \(ValueError\(.*'x'.*\)\)"):
        EmbeddingSpec.from_metadata(make_spec(3).to_metadata() | {"dim": "x"}, "here")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a#b", "#"),
        ("?/index", "?"),
        ("a%20b", "%20"),
        ("%c3", "%c3"),
        ("a\\b", "\\"),
        ("a\tb", "\t"),
    ],
)
def test_a_name_that_deltalake_would_put_elsewhere_is_refused(tmp_path, name, found):
    # It reads these as parts of a web address: /a#b would be committed to /a.
    spec = make_spec(3)
    for uri in (f"{tmp_path}/{name}", f"s3://bucket/{name}"):
        message = (
            f"{uri}: an index's path may not hold {found!r}, which Delta Lake misreads. Choose "
            f"another name."
        )
        for use in (
            is_index,
            open_index,
            lambda uri: commit_index(uri, spec, [], run={}, seen_version=None),
        ):
            with pytest.raises(UsageError, match=line(message)):
                use(uri)
    assert list_files(str(tmp_path)) == []


@pytest.mark.parametrize("name", ["a b", "100%", "%", "ü 猫", "a[b]*c", "a&b=c", "~", "a:b"])
def test_other_odd_names_are_kept_apart(tmp_path, name):
    make_index(tmp_path / name, IDS, VECTORS)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert open_index(str(tmp_path / name)).uri == f"{tmp_path}/{name}"
    assert len(read_index(str(tmp_path / name)).ids) == 50


def test_a_missing_a_torn_and_a_strange_shard_are_named(tmp_path):
    index = make_index(tmp_path, IDS, VECTORS, num_shards=3)
    # Shards are named by chance and listed by name: one of the two with 17 rows.
    shard = next(shard for shard in index.shards if shard.num_rows == 17)
    path = tmp_path / shard.path
    whole, table = path.read_bytes(), pq.read_table(path)
    strange = (
        f"{path}: not the shard that the index names; its columns or its number of rows differ. "
        f"Embed the photos again with `heal`."
    )
    other_dim = make_index(tmp_path / "other", IDS, VECTORS[:, :2]).shards[0].path
    for content in (table.slice(1), pq.read_table(tmp_path / "other" / other_dim)[:17]):
        pq.write_table(content, path)
        with pytest.raises(IndexFormatError, match=line(strange)):
            read_index(str(tmp_path))
    pq.write_table(table.drop_columns(["label"]), path)
    with pytest.raises(IndexFormatError, match=f"^{path}: this shard cannot be read \\('Field \"l"):
        read_index(str(tmp_path))
    path.write_bytes(whole[:-20])
    with pytest.raises(IndexFormatError, match=f"^{path}: this shard cannot be read \\(Parquet ma"):
        read_index(str(tmp_path))
    path.unlink()
    message = (
        f"{path}: this shard cannot be read (No such file or directory). Embed the photos again "
        f"with `heal`."
    )
    with pytest.raises(IndexFormatError, match=line(message)):
        read_index(str(tmp_path))


def test_flipped_bytes_of_a_shard_are_found(tmp_path):
    index = make_index(tmp_path, IDS, VECTORS)
    path = tmp_path / index.shards[0].path
    whole = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(0).column(8)
    end = column.data_page_offset + column.total_compressed_size
    for place in range(end - VECTORS.nbytes, end, 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        message = f"^{path}: this shard cannot be read \\(could not verify page integrity, CRC"
        with pytest.raises(IndexFormatError, match=message):
            read_index(str(tmp_path))


def test_versions_that_other_tools_commit_are_read(tmp_path):
    index = make_index(tmp_path, IDS, VECTORS)
    commit_index(str(tmp_path), index.spec, index.shards[:0], run={"n": 1}, seen_version=0)
    table = DeltaTable(str(tmp_path))
    table.restore(0)
    restored = open_index(str(tmp_path))
    assert (restored.version, restored.num_rows, restored.run) == (2, 50, {})
    table.create_checkpoint()
    log_entry(tmp_path, 2).unlink()  # cleaned up, as the checkpoint holds it
    assert open_index(str(tmp_path)) == restored
    assert len(read_index(str(tmp_path)).ids) == 50


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint8"])
def test_vectors_of_a_column_in_any_chunks_are_its_rows(dtype):
    vectors = np.arange(1, 61).reshape(20, 3).astype(dtype)
    column = pa.array([row.tobytes() for row in vectors], pa.binary(vectors[0].nbytes))
    for bounds in ([(0, 20)], [(3, 9)], [(0, 5), (5, 5), (5, 20)], [(4, 4)], []):
        chunks = pa.chunked_array([column[a:b] for a, b in bounds], column.type)
        expected = np.concatenate([vectors[:0], *(vectors[a:b] for a, b in bounds)])
        found = vectors_of(chunks, 3, dtype)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert found.tobytes() == expected.tobytes()
