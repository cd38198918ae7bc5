"""Arrays in .npy with their ids in Parquet, as clip-retrieval writes them."""

from __future__ import annotations

import io
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.errors import IndexFormatError, UsageError
from retrieval.storage import write_bytes
from retrieval.vectors import VectorColumns, open_source, read_blocks


def line(text):
    """A pattern for pytest.raises that matches the whole message."""
    return f"^{re.escape(text)}$"


def array_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def table_bytes(columns):
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), buffer, row_group_size=2)
    return buffer.getvalue()


def write(folder, files):
    """Writes arrays, tables and bare bytes under their names; gives the folder."""
    for name, content in files.items():
        if isinstance(content, np.ndarray):
            content = array_bytes(content)
        elif isinstance(content, dict):
            content = table_bytes(content)
        write_bytes(f"{folder}/{name}", content)
    return str(folder)


def read(uri, columns=None, max_rows=2):
    """Id → vector of all rows, in their order."""
    opened = open_source(uri, columns)
    rows = {}
    for file in opened.files:
        for block in read_blocks(opened, file, max_rows):
            assert len(block.ids) <= max_rows
            assert block.vectors.dtype == np.dtype(opened.dtype)
            rows |= zip(block.ids.astype(str).tolist(), block.vectors.tolist(), strict=True)
    return rows


def rows_from(start, num_rows=3):
    return np.arange(start, start + 2 * num_rows, dtype=np.float32).reshape(num_rows, 2)


@pytest.mark.parametrize("number", ["{}", "{:04}"])
def test_pairs_of_clip_retrieval_are_read_in_their_order(tmp_path, number):
    files = {}
    for part in range(11):
        n = number.format(part)
        ids = [f"/data/{part}/{row}.jpg" for row in range(3)]
        files[f"img_emb/img_emb_{n}.npy"] = rows_from(1 + 10 * part)
        files[f"text_emb/text_emb_{n}.npy"] = -rows_from(1 + 10 * part)
        columns = {"caption": ["c"] * 3, "image_path": ids, "url": ["same"] * 3}
        files[f"metadata/metadata_{part:03}.parquet"] = columns
        files[f"statistics/statistics_{n}.parquet"] = {"id": ["no id of an image"] * 3}
    opened = open_source(write(tmp_path, files))
    assert (opened.dim, opened.dtype, opened.num_rows) == (2, "float32", 33)
    assert (opened.id_column, opened.vector_column) == ("image_path", "")
    assert read(opened.uri) == {
        f"/data/{part}/{row}.jpg": [1 + 10 * part + 2 * row, 2 + 10 * part + 2 * row]
        for part in range(11)
        for row in range(3)
    }
    assert len(read(opened.uri, VectorColumns(id_column="caption"))) == 1


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("order", "<>")
def test_every_bit_of_either_byte_order_arrives(tmp_path, dtype, order):
    bits = np.random.default_rng(1).integers(0, 256, 40_000, np.uint8).view(dtype)
    vectors = bits[np.isfinite(bits)][:4000].reshape(-1, 40)
    limits = np.finfo(dtype)
    vectors[0, :4] = [limits.max, limits.smallest_subnormal, -0.0, -limits.tiny]
    files = {"x.npy": vectors.astype(vectors.dtype.newbyteorder(order)), "x.parquet": {}}
    files["x.parquet"] = {"id": np.arange(len(vectors))}
    opened = open_source(write(tmp_path, files))
    blocks = list(read_blocks(opened, opened.files[0], 7))
    assert all(block.vectors.dtype.isnative for block in blocks)
    assert b"".join(block.vectors.tobytes() for block in blocks) == vectors.tobytes()


def test_an_array_belongs_to_the_table_of_its_own_name(tmp_path):
    # All of them end in the same number, or have the same name in another folder.
    names = ("a0", "b0", "one/emb", "two/emb", "2024-01", "2025-01")
    files = {}
    for place, name in enumerate(names):
        files[f"{name}.npy"] = rows_from(10 * place + 1, 1)
        files[f"{name}.parquet"] = {"id": [name]}
    expected = {name: [10 * place + 1, 10 * place + 2] for place, name in enumerate(names)}
    assert read(write(tmp_path, files)) == expected


def test_a_pair_in_one_folder_needs_no_number(tmp_path):
    files = {"x.npy": rows_from(1), "x.parquet": {"key": ["a", "b", "c"]}}
    assert read(write(tmp_path, files)) == {"a": [1, 2], "b": [3, 4], "c": [5, 6]}


@pytest.mark.parametrize(
    ("tables", "found"),
    [
        ([], "no Parquet file"),
        (["y.parquet"], "no Parquet file"),
        (["metadata_1.parquet"], "no Parquet file"),
        (["a_0.parquet", "b_00.parquet"], "2 Parquet files with its number"),
    ],
)
def test_an_array_without_clear_ids_is_refused(tmp_path, tables, found):
    files = {"img_emb_0.npy": rows_from(1)} | {name: {"id": list("abc")} for name in tables}
    folder = write(tmp_path, files)
    message = (
        f"{folder}/img_emb_0.npy: {found} with its ids. A pair has one name, as in a.npy and "
        f"a.parquet, or ends in one number, as in img_emb/img_emb_0.npy and "
        f"metadata/metadata_0.parquet."
    )
    with pytest.raises(IndexFormatError, match=line(message)):
        open_source(folder)


class Trap:
    """Unpickling it would fail the test."""

    def __reduce__(self):
        return (pytest.fail, ("an array was unpickled",))


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.ones(3, np.float32), "shape (3,) and type float32"),
        (np.ones((3, 2, 2), np.float32), "shape (3, 2, 2) and type float32"),
        (np.ones((3, 0), np.float32), "shape (3, 0) and type float32"),
        (np.ones((2, 3), np.float32).T, "shape (3, 2) by column and type float32"),
        (np.ones((3, 2), np.int8), "shape (3, 2) and type int8"),
        (np.ones((3, 2), np.longdouble), f"shape (3, 2) and type {np.dtype(np.longdouble)}"),
        (np.ones((3, 2), np.complex64), "shape (3, 2) and type complex64"),
        (np.array([[Trap()] * 2] * 3), "shape (3, 2) and type object"),
    ],
)
def test_an_array_of_another_make_is_refused_and_never_unpickled(tmp_path, array, found):
    folder = write(tmp_path, {"x.npy": array, "x.parquet": {"id": list("abc")}})
    message = (
        f"{folder}/x.npy: an array of {found}; (rows, dimensions) of float16, float32 or "
        f"float64, row by row, is needed."
    )
    with pytest.raises(IndexFormatError, match=line(message)):
        open_source(folder)


@pytest.mark.parametrize("length", [0, 3, 50])
def test_what_is_no_npy_file_is_named(tmp_path, length):
    files = {"x.npy": array_bytes(rows_from(1))[:length], "x.parquet": {"id": list("abc")}}
    folder = write(tmp_path, files)
    with pytest.raises(IndexFormatError, match=rf"^{folder}/x.npy: no .npy file \(EOF: .*\)\.$"):
        open_source(folder)


def test_vectors_and_ids_of_different_number_are_refused(tmp_path):
    folder = write(tmp_path, {"x.npy": rows_from(1, 4), "x.parquet": {"id": list("abc")}})
    message = (
        f"{folder}/x.npy: 4 vectors, but {folder}/x.parquet has 3 rows. The n-th row of one "
        f"belongs to the n-th of the other: write the pair again."
    )
    with pytest.raises(IndexFormatError, match=line(message)):
        open_source(folder)


@pytest.mark.parametrize(
    ("second", "found"),
    [
        (np.ones((3, 1), np.float32), "[1, 2] dimensions and type ['float32']"),
        (np.ones((3, 2), np.float16), "[2] dimensions and type ['float16', 'float32']"),
    ],
)
def test_arrays_of_different_makes_are_refused(tmp_path, second, found):
    ids = {"id": list("abc")}
    files = {"0.npy": rows_from(1), "0.parquet": ids, "1.npy": second, "1.parquet": ids}
    folder = write(tmp_path, files)
    message = f"{folder}: arrays of {found}; one of each is needed."
    with pytest.raises(IndexFormatError, match=line(message)):
        open_source(folder)


def test_ids_are_in_the_same_column_of_every_table(tmp_path):
    files = {"0.npy": rows_from(1), "0.parquet": {"id": list("abc")}}
    files |= {"1.npy": rows_from(7), "1.parquet": {"key": list("def"), "note": list("xyz")}}
    with pytest.raises(UsageError, match=f"^{tmp_path}/1.parquet: the id column is needed; found"):
        open_source(write(tmp_path, files))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            {"x.npy": rows_from(1)[:, :1]},
            "3 × 1 × float32, but 3 × 2 × float32 when the job began. A shard must not change "
            "while it is ranked: run the job again.",
        ),
        (
            # The same number of bytes a row.
            {"x.npy": np.ones((3, 4), np.float16)},
            "3 × 4 × float16, but 3 × 2 × float32 when the job began. A shard must not change "
            "while it is ranked: run the job again.",
        ),
        (
            {"x.npy": rows_from(1, 4)},
            "4 × 2 × float32, but 3 × 2 × float32 when the job began. A shard must not change "
            "while it is ranked: run the job again.",
        ),
        (
            {"x.parquet": {"id": list("ab")}},
            "2 rows, but 3 when the job began. A shard must not change while it is ranked: run "
            "the job again.",
        ),
        (
            {"x.npy": array_bytes(rows_from(1))[:-1]},
            "this shard cannot be read (the file ends early). Write it again, or rank another "
            "version.",
        ),
    ],
)
def test_a_pair_that_changes_meanwhile_is_refused(tmp_path, change, problem):
    ids = {"id": list("abc")}
    opened = open_source(write(tmp_path, {"x.npy": rows_from(1), "x.parquet": ids}))
    write(tmp_path, change)
    with pytest.raises(IndexFormatError, match=line(f"{tmp_path}/x.npy: {problem}")):
        list(read_blocks(opened, opened.files[0], 2))


def test_a_bad_vector_or_id_of_a_pair_is_named_with_its_row(tmp_path):
    vectors = rows_from(1)
    vectors[2, 0] = np.nan
    folder = write(tmp_path, {"x.npy": vectors, "x.parquet": {"id": list("abc")}})
    with pytest.raises(IndexFormatError, match=f"^{folder}/x.npy, row 2: the vector is NaN;"):
        read(folder)
    write(tmp_path, {"x.npy": rows_from(1), "x.parquet": {"id": ["a", "b", None]}})
    with pytest.raises(IndexFormatError, match=f"^{folder}/x.parquet, row 2: no id;"):
        read(folder)


def test_pairs_are_read_from_s3(s3):
    files = {"img_emb/img_emb_0.npy": rows_from(1)}
    files["metadata/metadata_0.parquet"] = {"image_path": list("abc")}
    folder = write(f"{s3}/pairs", files)
    assert read(folder) == {"a": [1, 2], "b": [3, 4], "c": [5, 6]}


def header_bytes(text, *, version=(1, 0), length=None, encoding="latin-1"):
    """A .npy file's start, whose header may be anything."""
    header = text.encode(encoding)
    width = 2 if version == (1, 0) else 4
    size = (len(header) if length is None else length).to_bytes(width, "little")
    return b"\x93NUMPY" + bytes(version) + size + header


PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2",  # a TokenError of Python
        "{'descr': '<f4' 'fortran_order': False, 'shape': (3, 2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, -2)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, True)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2.0)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': [3, 2]}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9" + "9" * 5000 + ", 2)}",
        "{'descr': '<f4', 'fortran_order': 0, 'shape': (3, 2)}",
        "{'descr': None, 'fortran_order': False, 'shape': (3, 2)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 2)}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), 'more': 1}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (3, 2)}",
        "['descr', '<f4', 'fortran_order', False, 'shape', (3, 2)]",
        PLAIN + PLAIN,
        "(" * 9000,
        "\\d" + PLAIN,
        " " * 20_000 + PLAIN,
    ],
)
def test_a_header_that_is_none_is_refused_in_one_line(tmp_path, header):
    data = rows_from(1).tobytes()
    files = {"x.npy": header_bytes(header) + data, "x.parquet": {"id": list("abc")}}
    folder = write(tmp_path, files)
    with pytest.raises(IndexFormatError, match=rf"^{folder}/x.npy: no .npy file \(.+\)\.$"):
        open_source(folder)


@pytest.mark.parametrize(
    "descr",
    ["O", "|O", "<i4", "|V8", "<M8[s]", "<U3", "f4,f4", "(2,)f4", "<f99", "x", "", "a", "float128"],
)
def test_a_type_of_another_kind_is_refused_in_one_line(tmp_path, descr):
    header = PLAIN.replace("<f4", descr)
    files = {"x.npy": header_bytes(header) + bytes(24), "x.parquet": {"id": list("abc")}}
    folder = write(tmp_path, files)
    with pytest.raises(IndexFormatError, match=rf"^{folder}/x.npy: an array of shape \(3, 2\) and"):
        open_source(folder)


@pytest.mark.parametrize("version", [(0, 0), (1, 1), (4, 0), (255, 255)])
def test_a_version_that_nobody_knows_is_refused(tmp_path, version):
    start = header_bytes(PLAIN, version=version)
    folder = write(tmp_path, {"x.npy": start + bytes(24), "x.parquet": {"id": list("abc")}})
    with pytest.raises(IndexFormatError, match=r"version \d+\.\d+ of the format; 1\.0, 2\.0 or"):
        open_source(folder)


def test_a_length_of_4_gib_is_not_read(tmp_path):
    start = header_bytes(PLAIN, version=(2, 0), length=2**32 - 1)
    folder = write(tmp_path, {"x.npy": start + bytes(24), "x.parquet": {"id": list("abc")}})
    with pytest.raises(IndexFormatError, match="a header of 4294967295 bytes; at most 10000"):
        open_source(folder)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize(
    "header",
    [
        PLAIN,
        PLAIN + " " * 500 + "\n",
        "{'shape': (3L, 2L), 'fortran_order': False, 'descr': '<f4'}",  # of Python 2
        '{"descr": "<f4", "fortran_order": False, "shape": (3, 2,)}',
        "{'descr':'<f4','fortran_order':False,'shape':(3,2),}",
        "{'descr': 'float32', 'fortran_order': False, 'shape': (3, 2)}",
    ],
)
def test_headers_as_other_writers_make_them_are_read(tmp_path, header, version):
    start, data = header_bytes(header, version=version), rows_from(1).tobytes()
    folder = write(tmp_path, {"x.npy": start + data, "x.parquet": {"id": list("abc")}})
    assert read(folder) == {"a": [1, 2], "b": [3, 4], "c": [5, 6]}


@pytest.mark.parametrize("num_bytes", [-25, -24, -8, -1, 1, 8, 24, 4096])
@pytest.mark.parametrize("place", ["disk", "s3"])
def test_a_file_is_as_long_as_its_header_says(tmp_path, request, place, num_bytes):
    """Rows that a header does not tell would be passed over without a word."""
    whole = array_bytes(rows_from(1))
    content = whole + bytes(num_bytes) if num_bytes > 0 else whole[:num_bytes]
    base = tmp_path if place == "disk" else f"{request.getfixturevalue('s3')}/npy{num_bytes}"
    folder = write(base, {"x.npy": content, "x.parquet": {"id": list("abc")}})
    with pytest.raises(
        IndexFormatError, match=rf"^{folder}/x.npy: ({len(content)} bytes, but|no .n)"
    ):
        open_source(folder)


def test_a_header_of_fewer_rows_than_the_file_holds_is_refused(tmp_path):
    content = array_bytes(rows_from(1)).replace(b"(3, 2)", b"(2, 2)")
    folder = write(tmp_path, {"x.npy": content, "x.parquet": {"id": list("ab")}})
    message = (
        f"{folder}/x.npy: 152 bytes, but its header says 2 × 2 × float32, which takes 144. It is "
        f"damaged, or not written to its end: write it again."
    )
    with pytest.raises(IndexFormatError, match=line(message)):
        open_source(folder)
