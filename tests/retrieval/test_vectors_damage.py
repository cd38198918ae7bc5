"""What cannot be ranked is refused with its file and row, and never ranked as something else."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.errors import IndexFormatError, StorageError, UsageError
from retrieval.vectors import VectorColumns, open_source, read_blocks
from tests.conftest import make_index

F32 = pa.list_(pa.float32())
GOOD = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [9.0, 1.0]]
IDS = list("edcba")


def line(text):
    """A pattern for pytest.raises that matches the whole message."""
    return f"^{re.escape(text)}$"


def write(path, vectors=GOOD, ids=IDS, kind=F32, **settings):
    vectors = vectors if isinstance(vectors, pa.Array) else pa.array(vectors, kind)
    pq.write_table(pa.table({"id": ids, "embedding": vectors}), path, **settings)
    return str(path)


def read(uri, columns=None, max_rows=2):
    opened = open_source(str(uri), columns)
    return [block for file in opened.files for block in read_blocks(opened, file, max_rows)]


def with_row(row, vector):
    return [vector if number == row else good for number, good in enumerate(GOOD)]


@pytest.mark.parametrize("max_rows", [1, 2, 100])
@pytest.mark.parametrize("row", [1, 3, 4])
@pytest.mark.parametrize(
    ("vector", "problem"),
    [
        (None, "no vector; 2 dimensions are needed, as in the first row of the first file."),
        ([1.0], "1 dimensions; 2 dimensions are needed, as in the first row of the first file."),
        ([], "0 dimensions; 2 dimensions are needed, as in the first row of the first file."),
        (
            [np.nan, 1.0],
            "the vector is NaN; finite vectors other than zero are needed. Embed this image "
            "again, or leave it out.",
        ),
        (
            [1.0, None],
            "the vector is NaN; finite vectors other than zero are needed. Embed this image "
            "again, or leave it out.",
        ),
        (
            [1.0, -np.inf],
            "the vector is infinite; finite vectors other than zero are needed. Embed this image "
            "again, or leave it out.",
        ),
        (
            [0.0, -0.0],
            "the vector is all zeros; finite vectors other than zero are needed. Embed this image "
            "again, or leave it out.",
        ),
    ],
)
def test_a_vector_that_cannot_be_ranked_is_named(tmp_path, vector, problem, row, max_rows):
    path = write(tmp_path / "a.parquet", with_row(row, vector), row_group_size=3)
    with pytest.raises(IndexFormatError, match=line(f"{path}, row {row}: {problem}")):
        read(path, max_rows=max_rows)


def test_a_bad_vector_of_the_second_file_is_named_with_that_file(tmp_path):
    write(tmp_path / "a.parquet")
    path = write(tmp_path / "b.parquet", with_row(2, [np.inf, 1]))
    with pytest.raises(IndexFormatError, match=f"^{path}, row 2: the vector is infinite;"):
        read(tmp_path)


@pytest.mark.parametrize("kind", [F32, pa.list_(pa.float32(), 2), pa.binary(), pa.binary(8)])
def test_a_null_is_found_in_every_layout(tmp_path, kind):
    good = [np.float32(row).tobytes() for row in GOOD] if "binary" in str(kind) else GOOD
    unit = "8 bytes" if "binary" in str(kind) else "2 dimensions"
    path = write(tmp_path / "a.parquet", [*good[:4], None], kind=kind)
    problem = f"row 4: no vector; {unit} are needed, as in the first row of the first file."
    with pytest.raises(IndexFormatError, match=line(f"{path}, {problem}")):
        read(path, VectorColumns(binary_dtype="float32"))
    path = write(tmp_path / "a.parquet", [None, *good[1:]], kind=kind)
    problem = (
        "row 0: no vector; the first row must tell how many dimensions there are. Leave it out."
    )
    with pytest.raises(IndexFormatError, match=line(f"{path}, {problem}")):
        read(path, VectorColumns(binary_dtype="float32"))


def test_bytes_of_another_length_are_named(tmp_path):
    vectors = [b"12345678"] * 4 + [b"1234567"]
    path = write(tmp_path / "a.parquet", vectors, kind=pa.binary())
    problem = "row 4: 7 bytes; 8 bytes are needed, as in the first row of the first file."
    with pytest.raises(IndexFormatError, match=line(f"{path}, {problem}")):
        read(path, VectorColumns(binary_dtype="float32"))


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (None, "no id; each row needs one."),
        ("x\0", "the id holds a NUL character; rename it."),
        ("\0", "the id holds a NUL character; rename it."),
    ],
)
def test_an_id_that_cannot_be_told_apart_is_named(tmp_path, wrong, problem):
    path = write(tmp_path / "a.parquet", ids=[*IDS[:3], wrong, "x"])
    with pytest.raises(IndexFormatError, match=line(f"{path}, row 3: {problem}")):
        read(path)


def test_ids_that_are_not_utf_8_are_refused(tmp_path):
    raw = pa.array([b"a", b"b\xff", b"c", b"d", b"e"])
    ids = pa.Array.from_buffers(pa.string(), 5, raw.buffers())
    path = write(tmp_path / "a.parquet", ids=ids)
    with pytest.raises(
        IndexFormatError, match=f"^{path}: this shard cannot be read \\(Invalid UTF"
    ):
        read(path)


ADVICE = "Write it again, or rank another version."


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"vectors": GOOD[:3], "ids": IDS[:3]},
            "3 rows, but 5 when the job began. A shard must not change while it is ranked: run "
            "the job again.",
        ),
        (
            {"vectors": GOOD * 2, "ids": IDS * 2},
            "10 rows, but 5 when the job began. A shard must not change while it is ranked: run "
            "the job again.",
        ),
        (
            {"kind": pa.list_(pa.float64())},
            "components of float64; float32 is needed, as in the first file.",
        ),
    ],
)
def test_a_file_that_changes_meanwhile_is_refused(tmp_path, change, problem):
    path = write(tmp_path / "a.parquet")
    opened = open_source(path)
    write(path, **change)
    with pytest.raises(IndexFormatError, match=line(f"{path}: {problem}")):
        list(read_blocks(opened, opened.files[0], 2))


def test_a_file_that_goes_or_loses_a_column_meanwhile_is_named(tmp_path):
    path = write(tmp_path / "a.parquet")
    opened = open_source(path)
    for missing in ("id_column", "vector_column"):
        reason = "'Field \"gone\" does not exist in schema'"
        with pytest.raises(
            IndexFormatError, match=line(f"{path}: this shard cannot be read ({reason}). {ADVICE}")
        ):
            list(read_blocks(replace(opened, **{missing: "gone"}), opened.files[0], 2))
    (tmp_path / "a.parquet").unlink()
    reason = "No such file or directory"
    with pytest.raises(
        IndexFormatError, match=line(f"{path}: this shard cannot be read ({reason}). {ADVICE}")
    ):
        list(read_blocks(opened, opened.files[0], 2))


def test_damaged_parquet_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    write(path)
    whole = path.read_bytes()
    name = whole.index(b"embedding")
    no_text = whole[:name] + b"\xff" + whole[name + 1 :]  # a name of a column that is no text
    for torn in (b"", b"PAR1", whole[:-1], whole[: len(whole) // 2], whole[30:], no_text):
        path.write_bytes(torn)
        with pytest.raises(IndexFormatError, match=f"^{path}: cannot be read as Parquet \\(.+\\)"):
            open_source(str(path))


def test_a_flipped_byte_of_an_index_s_vectors_and_ids_is_found(tmp_path):
    vectors = np.arange(1, 401, dtype=np.float16).reshape(100, 4)
    index = make_index(tmp_path, [f"photo {n}" for n in range(100)], vectors)
    path = tmp_path / index.shards[0].path
    whole = path.read_bytes()
    group = pq.ParquetFile(path).metadata.row_group(0)
    num_flips, harmless = 0, []
    for column in (group.column(0), group.column(8)):
        start = column.data_page_offset
        for place in range(start, start + column.total_compressed_size, 3):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            num_flips += 1
            try:
                harmless += read(tmp_path, max_rows=100)
            except IndexFormatError as error:
                assert str(error).startswith(f"{path}: ")  # noqa: PT017
    # Some bits in the head of a page mean nothing.
    assert len(harmless) < num_flips / 20
    path.write_bytes(whole)
    (expected,) = read(tmp_path, max_rows=100)
    for block in harmless:
        assert block.ids.tolist() == expected.ids.tolist()
        assert block.vectors.tobytes() == vectors.tobytes()


@pytest.mark.parametrize(
    ("second", "problem"),
    [
        ({"vectors": [[1.0]] * 5}, "1 × float32"),
        ({"kind": pa.list_(pa.float64())}, "2 × float64"),
    ],
)
def test_files_of_different_makes_are_refused(tmp_path, second, problem):
    write(tmp_path / "a.parquet")
    path = write(tmp_path / "b.parquet", **second)
    message = (
        f"{path}: {problem}, but the files before it hold 2 × float32. Vectors of one make are "
        f"needed."
    )
    with pytest.raises(IndexFormatError, match=line(message)):
        open_source(str(tmp_path))


COLUMNS = "a (string), b (string), u (list<element: float>), v (list<element: float>)"


@pytest.mark.parametrize(
    ("wanted", "role", "found"),
    [
        ({}, "id", "none that fits by name and type"),
        ({"id_column": "u"}, "id", "no column 'u' that can be it"),
        ({"id_column": "a"}, "vector", "none that fits by name and type"),
        ({"id_column": "a", "vector_column": "x"}, "vector", "no column 'x' that can be it"),
        ({"id_column": "a", "vector_column": "b"}, "vector", "no column 'b' that can be it"),
    ],
)
def test_columns_that_cannot_be_told_apart_are_listed(tmp_path, wanted, role, found):
    path, vectors = tmp_path / "a.parquet", pa.array(GOOD, F32)
    pq.write_table(pa.table({"a": IDS, "b": IDS, "u": vectors, "v": vectors}), path)
    message = (
        f"{path}: the {role} column is needed; found {found} among: {COLUMNS}. "
        f"Name it: `{role}_column` NAME."
    )
    with pytest.raises(UsageError, match=line(message)):
        open_source(str(path), VectorColumns(**wanted))


@pytest.mark.parametrize("stated", [None, "uint8", "bfloat16", b"\xff"])
def test_bytes_that_do_not_say_their_type_need_the_option(tmp_path, stated):
    path, rows = tmp_path / "a.parquet", [np.float16(row).tobytes() for row in GOOD]
    field = pa.field("v", pa.binary(), metadata=stated and {"dtype": stated})
    schema = pa.schema([("id", pa.string()), field])
    pq.write_table(pa.table({"id": IDS, "v": rows}, schema=schema), path)
    message = (
        f"{path}: the column 'v' holds bare bytes, which do not say their type. "
        f"Name it: `binary_dtype` float16, float32 or float64."
    )
    with pytest.raises(UsageError, match=line(message)):
        open_source(str(path))
    (first, *_) = read(path, VectorColumns(binary_dtype="float16"))
    assert first.vectors.tolist() == GOOD[:2]


def test_a_place_without_vectors_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for given in ("missing", "empty", "*.parquet"):
        message = f"{tmp_path}/{given}: no file found there. Name a folder, a file or a glob."
        with pytest.raises(StorageError, match=line(message)):
            open_source(f"{tmp_path}/{given}")
    path = write(tmp_path / "a.parquet", [], pa.array([], pa.string()))
    message = f"{path}: holds no vectors. At least one row is needed."
    with pytest.raises(IndexFormatError, match=line(message)):
        open_source(path)
