"""Vectors of any layout arrive as they were written, bit for bit."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.storage import write_bytes
from retrieval.vectors import VectorBlock, VectorColumns, open_source, parquet, read_blocks
from retrieval.vectors.columns import id_array, vector_array, vector_dim
from tests.conftest import make_index

DTYPES = ("float16", "float32", "float64")
DIM = 31


def all_kinds_of_values(dtype):
    """(2048, 31) finite vectors: every finite float16, or random bits and the extremes."""
    bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
    if dtype == "float16":
        patterns = np.arange(2**16, dtype=bits)
        values = patterns.view(dtype)[np.isfinite(patterns.view(dtype))]
    else:
        patterns = np.random.default_rng(0).integers(0, np.iinfo(bits).max, 70_000, bits)
        values = patterns.view(dtype)[np.isfinite(patterns.view(dtype))][: 2048 * DIM]
        limits = np.finfo(dtype)
        extremes = [limits.max, limits.min, limits.tiny, limits.smallest_subnormal, -0.0, 0.0]
        values[: len(extremes)] = extremes
        values[-1] = -limits.smallest_subnormal
    return values.reshape(2048, DIM)


def offsets(array, kind):
    return pa.array(np.arange(0, array.size + 1, array.shape[1]), kind)


def as_rows_of_bytes(kind):
    return lambda array: pa.array([row.tobytes() for row in array], kind(array))


LAYOUTS = {
    "list": lambda a: pa.ListArray.from_arrays(offsets(a, pa.int32()), pa.array(a.ravel())),
    "large_list": lambda a: pa.LargeListArray.from_arrays(
        offsets(a, pa.int64()), pa.array(a.ravel())
    ),
    "fixed_size_list": lambda a: pa.FixedSizeListArray.from_arrays(pa.array(a.ravel()), a.shape[1]),
    "tensor": lambda a: pa.FixedShapeTensorArray.from_numpy_ndarray(a),
    "binary": as_rows_of_bytes(lambda a: pa.binary()),
    "large_binary": as_rows_of_bytes(lambda a: pa.large_binary()),
    "fixed_size_binary": as_rows_of_bytes(lambda a: pa.binary(a[0].nbytes)),
}


def read(opened, max_rows=1000):
    """All rows of a source, and the sizes of its blocks."""
    blocks = [block for file in opened.files for block in read_blocks(opened, file, max_rows)]
    ids = [row_id.decode() for block in blocks for row_id in block.ids.tolist()]
    return ids, np.concatenate([block.vectors for block in blocks]), [len(b.ids) for b in blocks]


def write(path, columns, **settings):
    pq.write_table(pa.table(columns), path, **settings)
    return str(path)


def assert_same_bits(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_of_other_tools_keeps_every_bit(tmp_path, layout, dtype):
    vectors = all_kinds_of_values(dtype)
    ids = [f"id {row}" for row in range(len(vectors))]
    columns = {"embedding": LAYOUTS[layout](vectors), "more": [0] * len(ids), "image_id": ids}
    path = write(tmp_path / "a.parquet", columns, row_group_size=700)
    wanted = VectorColumns(binary_dtype=dtype) if "binary" in layout else None
    opened = open_source(path, wanted)
    assert (opened.dim, opened.dtype, opened.num_rows) == (DIM, dtype, len(vectors))
    assert (opened.id_column, opened.vector_column) == ("image_id", "embedding")
    assert (opened.spec, opened.version) == (None, None)
    for max_rows in (len(vectors), 300):
        found_ids, found, sizes = read(opened, max_rows)
        assert found_ids == ids
        assert_same_bits(found, vectors)
        assert max(sizes) <= max_rows


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_an_index_keeps_every_bit_and_says_how_it_was_made(tmp_path, dtype):
    vectors = all_kinds_of_values(dtype)
    index = make_index(tmp_path, [f"{n}" for n in range(2048)], vectors, num_shards=3)
    opened = open_source(f"{tmp_path}/")
    assert opened.uri == str(tmp_path)
    assert (opened.spec, opened.version) == (index.spec, 0)
    assert [(file.uri, file.num_rows) for file in opened.files] == [
        (f"{tmp_path}/{shard.path}", shard.num_rows) for shard in index.shards
    ]
    ids, found, _ = read(opened, 100)
    assert sorted(ids, key=int) == [f"{n}" for n in range(2048)]
    assert_same_bits(found[np.argsort([int(row_id) for row_id in ids])], vectors)
    # Its shards, taken as plain Parquet, say the type of their bytes themselves.
    plain = open_source(f"{tmp_path}/*.parquet")
    assert (plain.spec, plain.dim, plain.dtype) == (None, DIM, dtype)
    assert_same_bits(read(plain)[1], found)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_slice_of_a_column_is_read_from_its_own_start(layout, dtype):
    vectors = all_kinds_of_values(dtype)
    column = LAYOUTS[layout](vectors)
    for start, stop in ((0, 2048), (5, 9), (2047, 2048), (7, 7)):
        part = column[start:stop]
        assert_same_bits(vector_array(part, DIM, dtype, "f", start), vectors[start:stop])
        assert vector_dim(part, dtype) == (DIM if stop > start else 0)


def test_a_tensor_of_several_axes_is_one_flat_vector(tmp_path):
    tensors = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(tensors)
    opened = open_source(write(tmp_path / "a.parquet", {"id": ["a", "b"], "vector": column}))
    assert opened.dim == 12
    assert_same_bits(read(opened)[1], tensors.reshape(2, 12))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["b", "é/ü 猫", ""]), ["b", "é/ü 猫", ""]),
        (pa.array(["b", "a", "c"], pa.large_string()), ["b", "a", "c"]),
        (pa.array(["b", "a" * 20, "c"], pa.string_view()), ["b", "a" * 20, "c"]),
        (pa.array([7, -12, 2**63 - 1]), ["7", "-12", "9223372036854775807"]),
        (pa.array([7, 0, 2**64 - 1], pa.uint64()), ["7", "0", "18446744073709551615"]),
    ],
)
def test_ids_are_text_or_integers(tmp_path, column, expected):
    vectors = [[1.0], [2.0], [3.0]]
    opened = open_source(write(tmp_path / "a.parquet", {"key": column, "vectors": vectors}))
    assert read(opened, 2)[0] == expected
    assert id_array(column[1:], "f", 1).tolist() == [row_id.encode() for row_id in expected[1:]]


def test_ids_sort_as_their_bytes_do():
    ids = ["é", "z", "a", "aa", "猫", "\U0001f431", "B"]
    found = np.sort(id_array(pa.array(ids), "f", 0)).tolist()
    assert found == sorted(row_id.encode() for row_id in ids)


VECTORS = pa.array([[1.0, 2.0]], pa.list_(pa.float32()))


@pytest.mark.parametrize(
    ("columns", "wanted", "expected"),
    [
        # By name, the likeliest first; by type alone where only one fits.
        ({"id": ["x"], "image_id": ["x"], "vector": VECTORS}, {}, ("image_id", "vector")),
        ({"features": VECTORS, "embedding": VECTORS, "id": [1]}, {}, ("id", "embedding")),
        ({"my_name": ["x"], "my_vector": VECTORS}, {}, ("my_name", "my_vector")),
        ({"embedding": [[1, 2]], "id": [1.5], "a": ["x"], "b": VECTORS}, {}, ("a", "b")),
        # By option, against the names.
        ({"id": ["x"], "url": ["x"], "vector": VECTORS}, {"id_column": "url"}, ("url", "vector")),
        (
            {"id": ["x"], "embedding": VECTORS, "other": VECTORS},
            {"vector_column": "other"},
            ("id", "other"),
        ),
    ],
)
def test_columns_are_found_by_name_by_type_or_by_option(tmp_path, columns, wanted, expected):
    opened = open_source(write(tmp_path / "a.parquet", columns), VectorColumns(**wanted))
    assert (opened.id_column, opened.vector_column) == expected


@pytest.mark.parametrize("name", ["a.parquet", "a.pq", "a", "a#b?%20c.data"])
def test_one_file_of_any_name_is_a_source(tmp_path, name):
    path = write(tmp_path / name, {"id": ["x"], "vector": VECTORS})
    assert [file.uri for file in open_source(path).files] == [path]
    assert open_source(str(tmp_path)).num_rows == 1


def test_a_folder_or_a_glob_is_read_in_the_order_of_its_names(tmp_path):
    for name, row_ids in (("b", ["1"]), ("a", ["2", "3"]), ("sub/c", ["4"])):
        path = tmp_path / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        write(path, {"id": row_ids, "vector": pa.concat_arrays([VECTORS] * len(row_ids))})
    for name in ("_SUCCESS", "notes.txt", ".a.parquet.crc", "sub/_metadata"):
        (tmp_path / name).write_bytes(b"")
    assert read(open_source(str(tmp_path)))[0] == ["2", "3", "1", "4"]
    assert read(open_source(f"{tmp_path}/*"))[0] == ["2", "3", "1"]
    assert read(open_source(f"{tmp_path}/?.parquet"))[0] == ["2", "3", "1"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_and_row_groups_without_rows_are_passed_over(tmp_path, layout):
    vectors = all_kinds_of_values("float16")[:4]
    column = LAYOUTS[layout](vectors)
    table = pa.table({"id": list("abcd"), "embedding": column})
    for name, parts in (("a", [(0, 0)]), ("b", [(0, 0), (0, 1), (1, 0), (1, 3)]), ("c", [(4, 0)])):
        with pq.ParquetWriter(tmp_path / f"{name}.parquet", table.schema) as writer:
            for start, length in parts:
                writer.write_table(table.slice(start, length))
    opened = open_source(str(tmp_path), VectorColumns(binary_dtype="float16"))
    assert [file.num_rows for file in opened.files] == [0, 4, 0]
    ids, found, _ = read(opened)
    assert ids == list("abcd")
    assert_same_bits(found, vectors)


def large_file(path):
    """16 MB in one row group, as many tools write it."""
    column = LAYOUTS["fixed_size_list"](np.ones((40_000, 100), np.float32))
    columns = {"id": np.arange(40_000), "vector": column}
    return write(path, columns, use_dictionary=False, compression="none")


def test_opening_reads_a_small_part_of_a_file(tmp_path, monkeypatch):
    num_bytes = 0

    class Counting(io.FileIO):
        def read(self, size=-1):
            nonlocal num_bytes
            data = super().read(size)
            num_bytes += len(data)
            return data

    path = large_file(tmp_path / "a.parquet")
    monkeypatch.setattr(parquet, "open_input", lambda uri: pa.PythonFile(Counting(uri)))
    assert open_source(path).dim == 100
    assert num_bytes < 3_000_000


def test_reading_holds_a_block_and_not_the_file(tmp_path):
    opened = open_source(large_file(tmp_path / "a.parquet"))
    before, most, rows = pa.total_allocated_bytes(), 0, 0
    for block in read_blocks(opened, opened.files[0], 1000):
        most = max(most, pa.total_allocated_bytes() - before)
        rows += len(block.ids)
        assert isinstance(block, VectorBlock)
    assert rows == 40_000
    assert most < 10_000_000


def test_parquet_of_other_tools_is_read_from_s3(s3):
    vectors = all_kinds_of_values("float32")
    for name, rows in (("a", slice(0, 1000)), ("sub/b c#d?%20é", slice(1000, 2048))):
        buffer = pa.BufferOutputStream()
        column = LAYOUTS["list"](vectors[rows])
        pq.write_table(pa.table({"id": range(2048)[rows], "vector": column}), buffer)
        write_bytes(f"{s3}/foreign/{name}.parquet", buffer.getvalue())
    opened = open_source(f"{s3}/foreign/")
    ids, found, _ = read(opened, 300)
    assert ids == [str(row) for row in range(2048)]
    assert_same_bits(found, vectors)
    assert open_source(f"{s3}/foreign/a.parquet").num_rows == 1000
