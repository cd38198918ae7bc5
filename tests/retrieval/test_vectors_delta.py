"""A Delta table of another tool is ranked by its live files; what files do not tell is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from retrieval.errors import IndexFormatError, RetrievalError
from retrieval.index import open_index, read_index
from retrieval.vectors import VectorColumns, open_source, read_blocks
from tests.conftest import make_index

VECTORS = np.random.default_rng(0).normal(size=(6, 4)).astype("f4")
IDS = [f"photo{n}" for n in range(6)]
TABLE = pa.table({"id": IDS, "embedding": pa.array(list(VECTORS), pa.list_(pa.float32()))})


@pytest.fixture
def vectors(tmp_path):
    """A table of which a row has been deleted, so that the folder holds more than the table."""
    uri = str(tmp_path / "vectors")
    write_deltalake(uri, TABLE)
    DeltaTable(uri).delete("id = 'photo3'")
    return uri


def ids_of(uri, columns=None, **named):
    source = open_source(uri, columns, **named)
    blocks = [block for file in source.files for block in read_blocks(source, file, 4)]
    rows = {
        name.decode(): vector.tolist()
        for block in blocks
        for name, vector in zip(block.ids, block.vectors, strict=True)
    }
    assert rows == {name: VECTORS[IDS.index(name)].tolist() for name in rows}
    return sorted(rows)


def test_the_live_rows_alone_are_read(vectors):
    left = [name for name in IDS if name != "photo3"]
    assert ids_of(vectors) == left
    assert ids_of(f"file://{vectors}") == left
    assert ids_of(f"{vectors}@0") == ids_of(vectors, version=0) == IDS
    assert ids_of(vectors, VectorColumns("id", "embedding")) == left
    source = open_source(f"{vectors}@0")
    assert (source.uri, source.spec, source.version) == (f"{vectors}@0", None, None)
    DeltaTable(vectors).optimize.compact()
    assert ids_of(vectors) == left


def test_a_table_in_partitions_is_read(tmp_path):
    uri = str(tmp_path / "a")
    write_deltalake(uri, TABLE.append_column("k", pa.array(list("aabb a"))), partition_by=["k"])
    assert ids_of(uri) == IDS


def edit_log(uri, **changes):
    """Change the protocol or the settings, as a tool with more abilities does."""
    (path,) = DeltaTable(uri).file_uris()[:0] or [f"{uri}/_delta_log/{0:020d}.json"]
    with open(path) as stream:  # noqa: PTH123
        lines = [json.loads(line) for line in stream]
    for line in lines:
        for name in line.keys() & changes.keys():
            line[name] |= changes[name]
    with open(path, "w") as stream:  # noqa: PTH123
        stream.writelines(f"{json.dumps(line)}\n" for line in lines)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "protocol": {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": ["deletionVectors"],
                "writerFeatures": ["deletionVectors"],
            }
        },
        {
            "protocol": {"minReaderVersion": 2, "minWriterVersion": 5},
            "metaData": {"configuration": {"delta.columnMapping.mode": "name"}},
        },
        {
            "protocol": {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": ["somethingNew"],
                "writerFeatures": ["somethingNew"],
            }
        },
    ],
)
def test_what_the_files_alone_do_not_tell_is_one_line(tmp_path, changes):
    uri = str(tmp_path / "v")
    write_deltalake(uri, TABLE)
    edit_log(uri, **changes)
    with pytest.raises(RetrievalError) as caught:
        open_source(uri)
    assert "\n" not in str(caught.value)
    assert uri in str(caught.value)


@pytest.mark.parametrize("mode", ["name", "id"])
def test_columns_that_are_called_otherwise_in_the_files_are_not_guessed(tmp_path, mode):
    """Two columns of vectors that have changed their names: the files have the old ones."""
    uri = str(tmp_path / "v")
    others = pa.array(list(-VECTORS), pa.list_(pa.float32()))
    write_deltalake(uri, TABLE.append_column("older", others))
    schema = json.loads(DeltaTable(uri).schema().to_json())
    old_names = {"id": "id", "embedding": "older", "older": "embedding"}
    for number, field in enumerate(schema["fields"]):
        field["metadata"] = {
            "delta.columnMapping.id": number + 1,
            "delta.columnMapping.physicalName": old_names[field["name"]],
        }
    edit_log(
        uri,
        protocol={"minReaderVersion": 2, "minWriterVersion": 5},
        metaData={
            "configuration": {"delta.columnMapping.mode": mode},
            "schemaString": json.dumps(schema),
        },
    )
    message = f"{uri}: a Delta table with columnMapping by {mode}, so that its files alone"
    with pytest.raises(IndexFormatError, match=re.escape(message)):
        open_source(uri, VectorColumns("id", "embedding"))


def test_a_file_that_lies_elsewhere_is_not_read(tmp_path):
    uri = str(tmp_path / "v")
    write_deltalake(uri, TABLE)
    (file,) = (tmp_path / "v").glob("*.parquet")
    file.rename(tmp_path / "elsewhere.parquet")
    edit_log(uri, add={"path": "../elsewhere.parquet"})
    with pytest.raises(IndexFormatError, match=r"names a file '\.\./elsewhere\.parquet'"):
        open_source(uri)


def test_a_table_without_rows_or_vectors_is_one_line(tmp_path):
    uri = str(tmp_path / "v")
    write_deltalake(uri, TABLE)
    DeltaTable(uri).delete()
    with pytest.raises(IndexFormatError, match="a Delta table without rows"):
        open_source(uri)
    write_deltalake(f"{uri}2", pa.table({"x": [1]}))
    with pytest.raises(RetrievalError, match="column is needed"):
        open_source(f"{uri}2")


def test_other_readers_tell_what_it_is(vectors):
    for read in (open_index, read_index):
        message = f"{vectors}: a Delta table with the columns id, embedding, and no index;"
        with pytest.raises(IndexFormatError, match=re.escape(message)):
            read(vectors)


def test_an_index_is_none_of_others_be_it_damaged(tmp_path):
    make_index(tmp_path, IDS, VECTORS.astype("f2"))
    path = tmp_path / "_delta_log" / f"{0:020d}.json"
    content = path.read_bytes()
    for name in (b"fingerprint", b"image_id", b"content_sha256", b'\\"embedding\\"'):
        path.write_bytes(content.replace(name, name[:3] + b"x" + name[4:], 1))
        with pytest.raises(IndexFormatError, match="--torn"):
            open_source(str(tmp_path))


def test_an_index_is_read_by_a_path_with_its_version(tmp_path):
    uri = str(tmp_path / "ix")
    make_index(tmp_path / "ix", IDS, VECTORS.astype("f2"))
    DeltaTable(uri).delete("image_id = 'photo3'")
    assert len(read_index(f"{uri}@0").ids) == 6
    assert len(read_index(f"{uri}@1").ids) == len(read_index(uri).ids) == 5
    assert len(read_index(uri, 0).ids) == 6
    with pytest.raises(RetrievalError, match="has no version 7"):
        read_index(f"{uri}@7")
