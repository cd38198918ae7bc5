"""Labels and addresses of the two sides of a ranking: of indexes and of other tools' files."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.errors import IndexFormatError, StorageError
from retrieval.evaluation import read_photos
from retrieval.index import commit_index, index_schema, write_shard
from retrieval.ranking.files import Ranking
from tests.conftest import make_index

RANKING = Ranking("/nowhere", (), {})


def as_dict(photos):
    assert photos.schema.names == ["image_id", "label", "uri"]
    assert set(photos.schema.types) == {pa.string()}
    return {row["image_id"]: row["label"] for row in photos.to_pylist()}


def test_labels_are_read_at_the_version_that_was_ranked(tmp_path):
    uri = str(tmp_path / "index")
    old = make_index(uri, ["a", "b"], np.eye(2, dtype=np.float16), labels=["x", "y"])
    table = pq.read_table(f"{uri}/{old.shards[0].path}")
    place = table.schema.get_field_index("label")
    table = table.set_column(place, "label", pa.array(["new", "new"]))
    shard = write_shard(uri, table.cast(index_schema(old.spec)))
    commit_index(uri, old.spec, [shard], run={}, seen_version=old.version)
    sides = {"queries": {"uri": uri, "version": 0}, "gallery": {"uri": uri, "version": 1}}
    ranking = Ranking("/nowhere", (), sides)
    assert as_dict(read_photos(uri, ranking, "queries")) == {"a": "x", "b": "y"}
    assert as_dict(read_photos(uri, ranking, "gallery")) == {"a": "new", "b": "new"}
    # Of an index that has moved since, the newest version is the best guess.
    moved = Ranking("/nowhere", (), {"queries": {"uri": "/elsewhere", "version": 0}})
    assert as_dict(read_photos(uri, moved, "queries")) == {"a": "new", "b": "new"}


def write_foreign(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    num_rows = len(next(iter(columns.values())))
    pq.write_table(pa.table({**columns, "vector": [[1.0, 2.0]] * num_rows}), path)


def test_other_tools_files_give_their_labels_as_text(tmp_path):
    write_foreign(tmp_path / "f" / "1.parquet", id=[7, 8], label=[3, None], uri=["/7", "/8"])
    write_foreign(tmp_path / "f" / "2.parquet", id=[9])
    photos = read_photos(str(tmp_path / "f"), RANKING, "gallery")
    assert as_dict(photos) == {"7": "3", "8": None, "9": None}
    assert photos["uri"].to_pylist() == ["/7", "/8", None]
    one_file = read_photos(str(tmp_path / "f" / "1.parquet"), RANKING, "gallery")
    assert as_dict(one_file) == {"7": "3", "8": None}


def test_a_pair_of_npy_and_parquet_gives_the_labels_of_the_parquet(tmp_path):
    np.save(tmp_path / "img_emb_0.npy", np.ones((2, 3), np.float32))
    pq.write_table(
        pa.table({"image_path": ["a", "b"], "label": ["x", "y"]}), tmp_path / "metadata_0.parquet"
    )
    assert as_dict(read_photos(str(tmp_path), RANKING, "gallery")) == {"a": "x", "b": "y"}


def test_addresses_that_are_the_ids_are_read_as_both(tmp_path):
    write_foreign(tmp_path / "1.parquet", uri=["/7", "/8"], label=["x", "y"])
    photos = read_photos(str(tmp_path / "1.parquet"), RANKING, "queries")
    assert as_dict(photos) == {"/7": "x", "/8": "y"}
    assert photos["uri"].to_pylist() == ["/7", "/8"]


def test_labels_that_are_no_text_are_refused(tmp_path):
    write_foreign(tmp_path / "1.parquet", id=["a"], label=[["x", "y"]])
    with pytest.raises(IndexFormatError) as caught:
        read_photos(str(tmp_path / "1.parquet"), RANKING, "gallery")
    assert str(caught.value).startswith(
        f"{tmp_path}/1.parquet: its ids and labels cannot be read as text (Unsupported cast from"
    )


def test_a_place_where_nothing_is_is_refused(tmp_path):
    with pytest.raises(StorageError, match=str(tmp_path / "nothing")):
        read_photos(str(tmp_path / "nothing"), RANKING, "gallery")


NAN = float("nan")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["a", "", None], ["a", None, None]),
        ([1.0, NAN, None], ["1", None, None]),
        (pa.array(["a", "", None]).dictionary_encode(), ["a", None, None]),
        (pa.array(["a", "", "a"], pa.large_string()), ["a", None, "a"]),
        ([True, False, None], ["true", "false", None]),
        (["nan", "NA", " "], ["nan", "NA", " "]),  # words
    ],
)
def test_an_empty_cell_or_nan_is_no_label_of_other_tools_files(tmp_path, labels, expected):
    write_foreign(tmp_path / "f" / "1.parquet", id=["x", "y", "z"], label=labels)
    photos = read_photos(str(tmp_path / "f"), RANKING, "gallery")
    assert as_dict(photos) == dict(zip("xyz", expected, strict=True))


def test_an_index_of_an_earlier_release_may_hold_an_empty_label(tmp_path):
    make_index(tmp_path / "i", ["a", "b"], np.eye(2, dtype=np.float16), labels=["x", ""])
    ranking = Ranking("/nowhere", (), {"queries": {"version": 0}})
    assert as_dict(read_photos(str(tmp_path / "i"), ranking, "queries")) == {"a": "x", "b": None}


def test_ids_and_addresses_of_every_type_are_text(tmp_path):
    ids = pa.array(["a", "b"]).dictionary_encode()
    uri = pa.array([b"/a", b"/b"], pa.large_binary()).dictionary_encode()
    write_foreign(tmp_path / "f" / "2.parquet", id=ids, label=pa.nulls(2), uri=uri)
    columns = {"id": pa.nulls(0), "label": pa.nulls(0), "vector": pa.array([], pa.float64())}
    pq.write_table(pa.table(columns), tmp_path / "f" / "1.parquet")
    photos = read_photos(str(tmp_path / "f"), RANKING, "gallery")
    assert as_dict(photos) == {"a": None, "b": None}
    assert photos["uri"].to_pylist() == ["/a", "/b"]
    bits = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"\1" * 16], pa.binary(16)))
    write_foreign(tmp_path / "uuid.parquet", id=bits, label=["x"])
    photos = read_photos(str(tmp_path / "uuid.parquet"), RANKING, "gallery")
    assert as_dict(photos) == {"01010101-0101-0101-0101-010101010101": "x"}


@pytest.mark.parametrize("labels", [[["x"]], [{"a": 1}]], ids=["list", "struct"])
def test_labels_that_are_no_text_are_one_line(tmp_path, labels):
    write_foreign(tmp_path / "a.parquet", id=["x"], label=labels)
    with pytest.raises(IndexFormatError, match="its ids and labels cannot be read as text"):
        read_photos(str(tmp_path / "a.parquet"), RANKING, "gallery")
