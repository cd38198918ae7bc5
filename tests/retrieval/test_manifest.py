"""A gallery that is listed in a Parquet file."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.errors import IndexFormatError, StorageError
from retrieval.gallery.listing import CATALOGUE_SCHEMA, list_batches, list_photos
from retrieval.gallery.manifest import read_manifest
from retrieval.storage import read_bytes, write_bytes

NOON = datetime(2026, 1, 1, 12, 0, 0, 123_456, UTC)
COLUMNS = {
    "image_id": pa.array(["b", "a"]),
    "uri": pa.array(["/photos/b.jpg", "s3://bucket/a.jpg"]),
    "size_bytes": pa.array([7, 2**40], pa.int64()),
    "modified_at": pa.array([NOON, NOON], pa.timestamp("us", "UTC")),
}
NEEDED = "image_id, uri, size_bytes, modified_at"


def line(text):
    """A pattern for pytest.raises that matches the whole message."""
    return f"^{re.escape(text)}$"


@pytest.fixture
def manifest(tmp_path):
    """Writes a manifest with some columns replaced (by None: left out); gives its name."""

    def write(path=tmp_path / "gallery.parquet", **columns):
        given = {**COLUMNS, **columns}
        kept = {name: column for name, column in given.items() if column is not None}
        pq.write_table(pa.table(kept), path)
        return str(path)

    return write


def test_photos_are_listed_in_its_order_and_by_list_photos_in_the_order_of_their_ids(manifest):
    uri = manifest()
    (batch,) = list_batches(uri)
    assert batch.schema.equals(CATALOGUE_SCHEMA, check_metadata=True)
    expected = [
        {"image_id": "b", "uri": "/photos/b.jpg", "size_bytes": 7, "modified_at": NOON},
        {"image_id": "a", "uri": "s3://bucket/a.jpg", "size_bytes": 2**40, "modified_at": NOON},
    ]
    assert batch.to_pylist() == expected
    assert list_photos(uri).to_pylist() == expected[::-1]
    assert list_photos(uri).schema.equals(CATALOGUE_SCHEMA, check_metadata=True)


def test_no_photo_that_it_lists_has_to_be_there(manifest, tmp_path):
    (tmp_path / "unlisted.jpg").write_bytes(b"")
    assert list_photos(manifest())["image_id"].to_pylist() == ["a", "b"]


def test_other_columns_and_another_order_of_them_do_no_harm(manifest):
    uri = manifest(label=pa.array(["x", None]))
    table = pq.read_table(uri)
    pq.write_table(table.select(table.column_names[::-1]), uri)
    assert list_photos(uri) == list_photos(manifest())


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("/photos/a.jpg", "/photos/a.jpg"),
        ("s3://bucket/a.jpg", "s3://bucket/a.jpg"),
        ("gs://bucket/a.jpg", "gs://bucket/a.jpg"),
        ("file:///photos/a.jpg", "file:///photos/a.jpg"),
        ("a.jpg", "{folder}/a.jpg"),
        ("deep/á b#?%20.jpg", "{folder}/deep/á b#?%20.jpg"),
        ("../a.jpg", "{folder}/../a.jpg"),
    ],
)
def test_addresses_are_absolute_or_relative_to_its_folder(manifest, tmp_path, given, found):
    uri = manifest(uri=pa.array([given, "/x"]))
    (batch,) = list_batches(uri)
    assert batch["uri"].to_pylist() == [found.format(folder=tmp_path), "/x"]


@pytest.mark.parametrize("given", ["gallery.parquet", "./gallery.parquet", "file://{}"])
def test_however_it_is_named_its_photos_are_at_the_same_place(
    manifest, tmp_path, monkeypatch, given
):
    uri = manifest(uri=pa.array(["a.jpg", "b/c.jpg"]))
    monkeypatch.chdir(tmp_path)
    (batch,) = list_batches(given.format(uri))
    assert batch["uri"].to_pylist() == [f"{tmp_path}/a.jpg", f"{tmp_path}/b/c.jpg"]


def test_one_in_a_bucket_lists_what_lies_beside_it(manifest, s3):
    content = read_bytes(manifest(uri=pa.array(["a.jpg", "/local/b.jpg"])))
    write_bytes(f"{s3}/nightly/gallery.parquet", content)
    (batch,) = list_batches(f"{s3}/nightly/gallery.parquet")
    assert batch["uri"].to_pylist() == [f"{s3}/nightly/a.jpg", "/local/b.jpg"]
    with pytest.raises(StorageError, match="cannot be listed"):
        list(list_batches(f"{s3}/nightly/another.parquet"))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pa.array([NOON] * 2, pa.timestamp("us", "Asia/Tokyo")), NOON),
        (pa.array([NOON.replace(tzinfo=None)] * 2, pa.timestamp("us")), NOON),
        (pa.array([NOON] * 2, pa.timestamp("ms", "UTC")), NOON.replace(microsecond=123_000)),
        (pa.array([NOON] * 2, pa.timestamp("s", "UTC")), NOON.replace(microsecond=0)),
        # Truncated, as a folder's listing does it.
        (pa.array([1_767_268_800_123_456_999] * 2, pa.timestamp("ns", "UTC")), NOON),
        (pa.array([1_767_268_800_123_456_999] * 2, pa.timestamp("ns")), NOON),
        (pa.array([date(2026, 1, 1)] * 2), datetime(2026, 1, 1, tzinfo=UTC)),
    ],
    ids=["zone", "no zone", "ms", "s", "ns", "ns, no zone", "date"],
)
def test_times_of_every_kind_are_microseconds_in_utc(manifest, times, expected):
    photos = list_photos(manifest(modified_at=times))
    assert photos["modified_at"].to_pylist() == [expected] * 2


@pytest.mark.parametrize(
    "columns",
    [
        {"size_bytes": pa.array([7, 9], pa.int32())},
        {"size_bytes": pa.array([7, 9], pa.uint64())},
        {"size_bytes": pa.array([7.0, 9.0])},
        {"image_id": pa.array(["b", "a"]).dictionary_encode()},
        {"image_id": pa.array(["b", "a"], pa.large_string())},
        {"uri": pa.array(["/b", "/a"], pa.large_string())},
        {"uri": pa.array(["/b", "/a"]).dictionary_encode()},
        {"image_id": pa.array([b"b", b"a"])},
        {"uri": pa.array([b"/b", b"/a"])},
    ],
    ids=lambda columns: "".join(f"{name} {column.type}" for name, column in columns.items()),
)
def test_columns_of_a_like_kind_are_taken(manifest, columns):
    plain = {"size_bytes": pa.array([7, 9]), "uri": pa.array(["/b", "/a"])}
    assert list_photos(manifest(**{**plain, **columns})) == list_photos(manifest(**plain))


@pytest.mark.parametrize(
    "columns",
    [
        {"size_bytes": pa.array(["7", "many"])},
        {"size_bytes": pa.array([7.0, 7.5])},
        {"size_bytes": pa.array([7, 2**64 - 1], pa.uint64())},
        {"image_id": pa.array([b"a", b"\xff"])},
        {"uri": pa.array([b"a", b"\xff"])},
        {"uri": pa.array([["a"], ["b"]])},
        {"modified_at": pa.array(["noon", "yesterday"])},
    ],
    ids=lambda columns: "".join(f"{name} {column.type}" for name, column in columns.items()),
)
def test_columns_of_another_kind_are_refused(manifest, columns):
    uri = manifest(**columns)
    with pytest.raises(IndexFormatError) as error:
        list(list_batches(uri))
    assert str(error.value).startswith(f"{uri}: this manifest cannot be read (")
    assert str(error.value).endswith("). Write it again.")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", CATALOGUE_SCHEMA.names)
def test_an_empty_cell_is_named(manifest, name):
    uri = manifest(**{name: pa.array([COLUMNS[name][0].as_py(), None], COLUMNS[name].type)})
    message = f"{uri}: an empty cell in the column {name}. Each photo needs {NEEDED}."
    with pytest.raises(IndexFormatError, match=line(message)):
        list(list_batches(uri))


@pytest.mark.parametrize(
    ("without", "named"), [(["uri"], "uri"), (["uri", "modified_at"], "modified_at, uri")]
)
def test_missing_columns_are_named(manifest, without, named):
    uri = manifest(**dict.fromkeys(without))
    message = f"{uri}: has no column {named}; a manifest needs {NEEDED}."
    with pytest.raises(IndexFormatError, match=line(message)):
        list_photos(uri)


def test_a_negative_size_is_refused_since_it_stands_for_a_link(manifest):
    uri = manifest(size_bytes=pa.array([7, -1]))
    message = f"{uri}: a negative size_bytes; the size of each photo is needed."
    with pytest.raises(IndexFormatError, match=line(message)):
        list_photos(uri)


def test_a_manifest_without_a_row_is_refused_and_not_an_empty_gallery(manifest):
    uri = manifest(**{name: column.slice(0, 0) for name, column in COLUMNS.items()})
    message = f"{uri}: lists no photo. At least one row is needed."
    with pytest.raises(IndexFormatError, match=line(message)):
        list(list_batches(uri))


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_damaged_manifest_is_refused(manifest, tmp_path, damage):
    uri = manifest()
    path = tmp_path / "gallery.parquet"
    content = {"cut": path.read_bytes()[:-30], "empty": b"", "text": b"image_id,uri\n"}[damage]
    path.write_bytes(content)
    with pytest.raises(IndexFormatError) as error:
        list_photos(uri)
    assert str(error.value).startswith(f"{uri}: this manifest cannot be read (")
    assert str(error.value).endswith("). Write it again.")


def test_what_is_no_file_is_no_manifest(manifest, tmp_path):
    with pytest.raises(StorageError, match=line_about_folder(tmp_path / "no.parquet")):
        list(list_batches(str(tmp_path / "no.parquet")))
    with pytest.raises(IndexFormatError, match="cannot be read"):
        list(read_manifest(str(tmp_path / "no.parquet")))
    folder = tmp_path / "folder.parquet"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"")
    assert list_photos(str(folder))["image_id"].to_pylist() == ["a.jpg"]


def line_about_folder(path):
    return line(f"{path}: missing. A folder that holds photos is needed.")


def test_many_photos_come_in_parts(manifest):
    num_photos = 150_000
    uri = manifest(
        image_id=pa.array(map(str, range(num_photos))),
        uri=pa.array(map("{}.jpg".format, range(num_photos))),
        size_bytes=pa.array(range(num_photos)),
        modified_at=pa.array(range(num_photos), pa.timestamp("us")),
    )
    parts = list(list_batches(uri))
    assert len(parts) > 1
    assert sum(part.num_rows for part in parts) == num_photos
    table = pa.Table.from_batches(parts)
    assert table["size_bytes"].to_pylist() == list(range(num_photos))
    assert table["image_id"].to_pylist() == list(map(str, range(num_photos)))


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "+02:00"])
def test_a_time_that_has_no_room_in_64_bits_counts_as_unknown(manifest, unit, zone):
    beyond = [2**63 - 1, -(2**63) + 1]
    times = pa.array([*beyond, 1], pa.int64()).cast(pa.timestamp(unit, zone))
    three = {"image_id": ["a", "b", "c"], "uri": ["a", "b", "c"], "size_bytes": [1, 1, 1]}
    uri = manifest(**{name: pa.array(column) for name, column in three.items()}, modified_at=times)
    found = list_photos(uri)["modified_at"].cast(pa.int64()).to_pylist()
    in_range = [(2**63 - 1) // 1000, -((2**63 - 1) // 1000)]  # of nanoseconds: the year 2262
    assert found[:2] == (in_range if unit == "ns" else [0, 0])
    assert found[2] == {"ms": 1000, "us": 1, "ns": 0}[unit]


@pytest.mark.parametrize("kind", ["dictionary", "large_string", "string_view", "binary"])
def test_ids_and_addresses_may_be_of_every_type_that_is_text(manifest, kind):
    def written(name):
        if kind == "dictionary":
            return COLUMNS[name].dictionary_encode()
        return pa.array(COLUMNS[name].to_pylist()).cast(getattr(pa, kind)())

    path = manifest(image_id=written("image_id"), uri=written("uri"))
    (batch,) = read_manifest(path)
    assert batch["image_id"].to_pylist() == ["b", "a"]
    assert batch["uri"].to_pylist() == ["/photos/b.jpg", "s3://bucket/a.jpg"]
