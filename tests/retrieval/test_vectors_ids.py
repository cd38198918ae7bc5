"""Ids and vectors of every type that other tools write; files without rows."""

from __future__ import annotations

import re
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.errors import IndexFormatError, UsageError
from retrieval.storage.text_columns import as_text
from retrieval.vectors import VectorColumns, find_duplicate, open_source, read_blocks, read_ids

IDS = ["p1", "é", "", "p3"]
VECTORS = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [1.0, 2.0]]
UUIDS = [uuid.UUID(int=n**9 + 2**100) for n in range(4)]
UUID_BYTES = pa.array([each.bytes for each in UUIDS], pa.binary(16))
UUID_COLUMN = pa.ExtensionArray.from_storage(pa.uuid(), UUID_BYTES)
BYTES = [np.array(each, "<f4").tobytes() for each in VECTORS]

ID_COLUMNS = {
    "string": (pa.array(IDS), IDS),
    "large_string": (pa.array(IDS, pa.large_string()), IDS),
    "string_view": (pa.array(IDS, pa.string_view()), IDS),
    "dictionary": (pa.array([*IDS[:3], "p3"]).dictionary_encode(), IDS),
    "dictionary of large_string, 8-bit": (
        pa.DictionaryArray.from_arrays(
            pa.array([3, 2, 1, 0], pa.uint8()), pa.array(IDS[::-1], pa.large_string())
        ),
        IDS,
    ),
    "dictionary of integers": (pa.array([5, 70, 6, 8]).dictionary_encode(), ["5", "70", "6", "8"]),
    "uuid": (UUID_COLUMN, [str(each) for each in UUIDS]),
    "binary": (pa.array([each.encode() for each in IDS]), IDS),
    "large_binary": (pa.array([each.encode() for each in IDS], pa.large_binary()), IDS),
    "binary_view": (pa.array([each.encode() for each in IDS], pa.binary_view()), IDS),
    "fixed_size_binary": (
        pa.array([b"ab", b"cd", b"ef", b"gh"], pa.binary(2)),
        ["ab", "cd", "ef", "gh"],
    ),
    "uint64": (pa.array([2**64 - 1, 0, 7, 10], pa.uint64()), [str(2**64 - 1), "0", "7", "10"]),
}
VECTOR_COLUMNS = {
    "list": pa.array(VECTORS, pa.list_(pa.float32())),
    "large_list": pa.array(VECTORS, pa.large_list(pa.float32())),
    "fixed_size_list": pa.array(VECTORS, pa.list_(pa.float32(), 2)),
    "list_view": pa.array(VECTORS, pa.list_view(pa.float32())),
    "large_list_view": pa.array(VECTORS, pa.large_list_view(pa.float32())),
    "half-float list": pa.array(VECTORS, pa.list_(pa.float16())),
    "tensor": pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), (2,)), pa.array(VECTORS, pa.list_(pa.float32(), 2))
    ),
    "dictionary of binary": pa.array(BYTES).dictionary_encode(),
    "binary_view": pa.array(BYTES, pa.binary_view()),
    "large_binary": pa.array(BYTES, pa.large_binary()),
}
FLOATS = pa.array(VECTORS, pa.list_(pa.float32()))


def write(path, columns):
    pq.write_table(pa.table(columns), path)
    return str(path)


def read(uri, columns=None):
    """Ids and vectors of all rows."""
    opened = open_source(uri, columns)
    blocks = [block for file in opened.files for block in read_blocks(opened, file, 3)]
    ids = [row_id.decode() for block in blocks for row_id in block.ids.tolist()]
    alone = [ids for file in opened.files for ids in read_ids(opened, file, 3)]
    assert [row_id.decode() for some in alone for row_id in some.tolist()] == ids
    return ids, [vector for block in blocks for vector in block.vectors.tolist()]


@pytest.mark.parametrize("wanted", [None, VectorColumns(id_column="id")], ids=["found", "named"])
@pytest.mark.parametrize("kind", ID_COLUMNS)
def test_ids_of_every_type_are_text(tmp_path, kind, wanted):
    column, expected = ID_COLUMNS[kind]
    path = write(tmp_path / "a.parquet", {"label": ["x"] * 4, "id": column, "embedding": FLOATS})
    assert read(path, wanted) == (expected, VECTORS)
    assert find_duplicate(open_source(path), 10**6) is None


def holed(column):
    """The last row, a null and the first row."""
    if "view" not in str(column.type):
        return column.take(pa.array([3, None, 0]))
    return pa.array([column[3].as_py(), None, column[0].as_py()], column.type)


@pytest.mark.parametrize("kind", ID_COLUMNS)
def test_ids_of_a_slice_with_nulls_keep_their_places(kind):
    column, expected = ID_COLUMNS[kind]
    assert as_text(column[1:3]).to_pylist() == expected[1:3]
    assert as_text(holed(column)).to_pylist() == [expected[3], None, expected[0]]
    assert as_text(column[:0]).to_pylist() == []


@pytest.mark.parametrize("kind", VECTOR_COLUMNS)
def test_vectors_of_every_type_are_read(tmp_path, kind):
    columns = {"id": list("abcd"), "embedding": VECTOR_COLUMNS[kind]}
    wanted = VectorColumns(binary_dtype="float32") if "binary" in kind else None
    path = write(tmp_path / "a.parquet", columns)
    assert read(path, wanted) == (list("abcd"), VECTORS)


@pytest.mark.parametrize("kind", ["dictionary", "uuid", "binary_view"])
def test_a_row_without_an_id_is_named(tmp_path, kind):
    columns = {"id": holed(ID_COLUMNS[kind][0]), "embedding": FLOATS[:3]}
    path = write(tmp_path / "a.parquet", columns)
    with pytest.raises(IndexFormatError, match=f"^{path}, row 1: no id; each row needs one.$"):
        read(path)


def test_bytes_that_are_no_text_are_told_with_their_type(tmp_path):
    path = write(tmp_path / "a.parquet", {"id": UUID_BYTES, "embedding": FLOATS})
    with pytest.raises(
        IndexFormatError, match=r"ids are of type fixed_size_binary\[16\] and no UTF-8; .* "
    ):
        read(path)


@pytest.mark.parametrize(
    "column",
    [pa.array([{"a": "x"}] * 4), pa.array([["x"]] * 4), pa.array([1.5] * 4), pa.nulls(4)],
    ids=["struct", "list", "double", "null"],
)
@pytest.mark.parametrize("wanted", [None, "id"])
def test_ids_that_cannot_be_are_told_with_their_type_and_no_name_is_advised(
    tmp_path, column, wanted
):
    path = write(tmp_path / "a.parquet", {"id": column, "embedding": FLOATS})
    with pytest.raises(UsageError) as caught:
        open_source(path, VectorColumns(id_column=wanted))
    assert f"id ({column.type})".replace("item", "element") in str(caught.value)
    assert "text, integers or UUIDs, plain or in a dictionary, are needed" in str(caught.value)
    assert "`id_column`" not in str(caught.value)


def test_a_column_that_stands_there_twice_is_told(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table([IDS, list("abcd"), FLOATS], ["id", "id", "embedding"]), path)
    with pytest.raises(UsageError, match=f"^{path}: has 2 columns called 'id'. Give each a name"):
        open_source(str(path))


def test_a_usual_name_counts_in_any_case_and_before_a_column_that_fits_alone(tmp_path):
    path = write(tmp_path / "a.parquet", {"name": IDS, "ID": list("abcd"), "Embedding": FLOATS})
    assert open_source(path).id_column == "ID"
    columns = {"label": ["x"] * 4, "id": UUID_COLUMN, "embedding": FLOATS}
    assert open_source(write(tmp_path / "b.parquet", columns)).id_column == "id"


WIDE = pa.list_(pa.float64(), 9)
EMPTY = {
    "null": {"id": pa.nulls(0), "embedding": pa.nulls(0)},
    "double": {"id": pa.array([], pa.float64()), "embedding": pa.array([], pa.float64())},
    "other columns": {"x": pa.nulls(0)},
    "other vectors": {"id": pa.array([], pa.string()), "embedding": pa.array([], WIDE)},
}  # fmt: skip


@pytest.mark.parametrize("place", ["0", "2", "4"])
@pytest.mark.parametrize("kind", EMPTY)
def test_a_file_without_rows_is_passed_over_wherever_it_stands(tmp_path, kind, place):
    for name, part in (("1", slice(0, 2)), ("3", slice(2, 4))):
        columns = {"id": list("abcd")[part], "embedding": FLOATS[part]}
        write(tmp_path / f"{name}.parquet", columns)
    write(tmp_path / f"{place}.parquet", EMPTY[kind])
    assert read(str(tmp_path)) == (list("abcd"), VECTORS)
    assert find_duplicate(open_source(str(tmp_path)), 10**6) is None


@pytest.mark.parametrize("kind", EMPTY)
def test_files_without_rows_alone_are_one_line(tmp_path, kind):
    for name in "ab":
        write(tmp_path / f"{name}.parquet", EMPTY[kind])
    message = f"^{re.escape(str(tmp_path))}: holds no vectors. At least one row is needed.$"
    with pytest.raises(IndexFormatError, match=message):
        open_source(str(tmp_path))


@pytest.mark.parametrize("place", ["0", "9"])
@pytest.mark.parametrize("shape", [(0,), (0, 2), (0, 0), (0, 3, 4)])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
def test_a_pair_without_rows_is_passed_over(tmp_path, dtype, shape, place):
    for number in "45":
        np.save(tmp_path / f"{number}.npy", np.array(VECTORS, "f4"))
        write(tmp_path / f"{number}.parquet", {"id": [f"{number}{c}" for c in "abcd"]})
    np.save(tmp_path / f"{place}.npy", np.empty(shape, dtype))
    write(tmp_path / f"{place}.parquet", EMPTY["null"])
    assert read(str(tmp_path)) == ([f"{n}{c}" for n in "45" for c in "abcd"], VECTORS * 2)
    for number in "45":
        (tmp_path / f"{number}.npy").unlink()
    with pytest.raises(IndexFormatError, match="holds no vectors"):
        open_source(str(tmp_path))
