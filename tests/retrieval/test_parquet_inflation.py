"""Parquet of others that would be huge in memory is refused by its footer, at every door."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.errors import IndexFormatError
from retrieval.evaluation import read_photos
from retrieval.gallery.labels import assign_labels
from retrieval.gallery.manifest import read_manifest
from retrieval.ranking.files import Ranking
from retrieval.storage import parquet
from retrieval.vectors import open_source

NUM_ROWS = 5000
NAMES = [f"{row}" for row in range(NUM_ROWS)]
LONG = ["z" * 4000] * NUM_ROWS  # 20 MB, which compress to some KB
TIMES = [datetime(2024, 1, 1, tzinfo=UTC)] * NUM_ROWS
VECTOR = pa.array([[1.0, 2.0]] * NUM_ROWS, pa.list_(pa.float32()))


def vectors(path):
    return open_source(path)


def photos(path):
    return read_photos(path, Ranking("/nowhere", (), {}), "gallery")


def labels(path):
    return assign_labels(NAMES, path)


def manifest(path):
    return list(read_manifest(path))


MANIFEST = {"uri": NAMES, "size_bytes": [1] * NUM_ROWS, "modified_at": TIMES}
DOORS = [
    (vectors, {"id": LONG, "embedding": VECTOR}, "id"),
    (vectors, {"id": NAMES, "embedding": [b"\1" * 4000] * NUM_ROWS}, "embedding"),
    (photos, {"id": NAMES, "embedding": VECTOR, "label": LONG}, "label"),
    (labels, {"image_id": NAMES, "label": LONG}, "label"),
    (manifest, {"image_id": NAMES, **MANIFEST, "uri": LONG}, "uri"),
]


@pytest.mark.parametrize(("door", "columns", "name"), DOORS)
def test_a_column_that_inflates_is_refused(tmp_path, monkeypatch, door, columns, name):
    monkeypatch.setattr(parquet, "_PLAIN_BYTES", 2**20)
    path = str(tmp_path / "a.parquet")
    field = pa.field("embedding", pa.binary(4000), metadata={"dtype": "float32"})
    table = pa.table(columns)
    if name == "embedding":
        table = table.cast(pa.schema([table.schema.field("id"), field]))
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    with pytest.raises(IndexFormatError, match=f"the column '{name}' of row group 0 takes 2"):
        door(path)


@pytest.mark.parametrize(("door", "columns", "name"), DOORS[2:])
def test_more_rows_than_a_file_can_hold_are_refused(tmp_path, monkeypatch, door, columns, name):
    monkeypatch.setattr(parquet, "_PLAIN_ROWS", 100)
    monkeypatch.setattr(parquet, "_MOST_ROWS_A_BYTE", 0)
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table(columns), path)
    with pytest.raises(IndexFormatError, match="5000 rows in a file of"):
        door(path)


@pytest.mark.parametrize(("door", "columns", "name"), DOORS[2:])
def test_columns_that_are_not_read_may_be_of_any_size(tmp_path, monkeypatch, door, columns, name):
    monkeypatch.setattr(parquet, "_PLAIN_BYTES", 2**20)
    path = str(tmp_path / "a.parquet")
    columns = {**columns, name: NAMES, "more": LONG}
    pq.write_table(pa.table(columns), path, compression="zstd", use_dictionary=False)
    door(path)
