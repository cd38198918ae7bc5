"""Parts of a source are whole row groups, together all of its rows, each once."""

from __future__ import annotations

import pickle
import re
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import IndexFormatError, UsageError
from retrieval.index import index_schema, shards
from retrieval.vectors import (
    VectorFile,
    VectorPart,
    open_source,
    parts,
    read_blocks,
    read_ids,
    split,
)
from retrieval.vectors.source import VectorSource
from tests.conftest import make_index


def line(text):
    """A pattern for pytest.raises that matches the whole message."""
    return f"^{re.escape(text)}$"


def write(path, groups, start=1):
    """A file with row groups of given sizes; row n has the id and the vector of start + n."""
    values = np.arange(start, start + sum(groups), dtype=np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(values, 2)), 2)
    table = pa.table({"id": values.astype(int).astype(str), "vector": vectors})
    with pq.ParquetWriter(path, table.schema) as writer:
        for first, num_rows in zip(np.cumsum([0, *groups]), groups, strict=False):
            writer.write_table(table.slice(first, num_rows))
    return str(path)


def read(source, part, max_rows=3):
    """Ids of the rows of a part, whose vectors are checked against them."""
    ids = []
    for block in read_blocks(source, part, max_rows):
        assert 0 < len(block.ids) <= max_rows
        ids += [int(row_id) for row_id in block.ids.tolist()]
        assert block.vectors[:, 0].astype(int).tolist() == ids[-len(block.ids) :]
    assert ids == [int(row_id) for some in read_ids(source, part, max_rows) for row_id in some]
    return ids


def bounds(found):
    return [(part.file.uri[-1], part.first_row, part.num_rows) for part in found]


def source_of(*files, spec=None):
    return VectorSource(
        uri="s", files=files, dim=2, dtype="float32", id_column="", vector_column="", spec=spec
    )


def test_parts_worked_by_hand():
    files = [
        VectorFile("a", 12, row_groups=(3, 4, 2, 3)),
        VectorFile("b", 0, row_groups=()),
        VectorFile("c", 9, row_groups=(9,)),
        VectorFile("d", 7, ids_uri="ids"),
    ]
    assert bounds(split(source_of(*files), 5)) == [
        ("a", 0, 3),
        ("a", 3, 4),
        ("a", 7, 5),
        ("c", 0, 9),  # a row group stays whole
        ("d", 0, 3),
        ("d", 3, 4),
    ]
    assert len(split(source_of(*files), 100)) == 3
    with pytest.raises(UsageError, match=line("max_rows = 0: a part needs at least 1 row.")):
        split(source_of(*files), 0)


def test_a_shard_of_an_index_is_cut_where_its_writer_ends_row_groups(monkeypatch):
    monkeypatch.setattr(parts, "ROW_GROUP_ROWS", 4)
    files = [VectorFile("a", 10), VectorFile("b", 8), VectorFile("c", 3)]
    for max_rows, expected in (
        (1, [("a", 0, 4), ("a", 4, 4), ("a", 8, 2), ("b", 0, 4), ("b", 4, 4), ("c", 0, 3)]),
        (9, [("a", 0, 8), ("a", 8, 2), ("b", 0, 8), ("c", 0, 3)]),
    ):
        assert bounds(split(source_of(*files, spec="an index"), max_rows)) == expected
    # Files of which nothing is known stay whole.
    assert bounds(split(source_of(*files), 1)) == [("a", 0, 10), ("b", 0, 8), ("c", 0, 3)]


@given(
    groups=st.lists(st.lists(st.integers(0, 9), max_size=8).map(tuple), max_size=4),
    max_rows=st.integers(1, 20),
)
def test_parts_are_the_files_and_no_larger_than_asked(groups, max_rows):
    files = [VectorFile(f"{n}", sum(rows), row_groups=rows) for n, rows in enumerate(groups)]
    files.append(VectorFile("npy", sum(map(sum, groups)), ids_uri="ids"))
    found = split(source_of(*files), max_rows)
    rows = [(part.file.uri, part.first_row + n) for part in found for n in range(part.num_rows)]
    assert rows == [(file.uri, row) for file in files for row in range(file.num_rows)]
    for part in found:
        assert part.num_rows <= max_rows or part.num_rows in part.file.row_groups
        if not part.file.ids_uri:
            ends = np.cumsum([0, *part.file.row_groups])
            assert part.first_row in ends
            assert part.first_row + part.num_rows in ends


@pytest.mark.parametrize("max_rows", [1, 4, 5, 8, 100])
@pytest.mark.parametrize("block_rows", [1, 3, 100])
def test_parts_of_parquet_together_are_the_file(tmp_path, max_rows, block_rows):
    write(tmp_path / "a.parquet", [4, 0, 3, 5, 1])
    write(tmp_path / "b.parquet", [2, 2], start=14)
    opened = open_source(str(tmp_path))
    assert [file.row_groups for file in opened.files] == [(4, 0, 3, 5, 1), (2, 2)]
    found = split(opened, max_rows)
    assert pickle.loads(pickle.dumps(found)) == found
    rows = [read(opened, part, block_rows) for part in found]
    assert [len(ids) for ids in rows] == [part.num_rows for part in found]
    assert list(chain(*rows)) == list(range(1, 18))
    assert read(opened, opened.files[1], block_rows) == [14, 15, 16, 17]


@pytest.mark.parametrize("max_rows", [1, 2, 4, 11])
@pytest.mark.parametrize("ids_groups", [[11], [4, 4, 3], [1] * 11])
def test_parts_of_npy_together_are_the_pair(tmp_path, max_rows, ids_groups):
    write(tmp_path / "x.parquet", ids_groups)
    np.save(tmp_path / "x.npy", np.arange(1, 12, dtype=np.float16).repeat(2).reshape(11, 2))
    opened = open_source(str(tmp_path))
    rows = [read(opened, part) for part in split(opened, max_rows)]
    assert max(map(len, rows)) <= max_rows
    assert list(chain(*rows)) == list(range(1, 12))


def test_parts_of_an_index_together_are_the_index(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP_ROWS", 4)
    monkeypatch.setattr(parts, "ROW_GROUP_ROWS", 4)
    vectors = np.arange(1, 31, dtype=np.float16).repeat(3).reshape(30, 3)
    make_index(tmp_path, [f"{n}" for n in range(1, 31)], vectors, num_shards=2)
    opened = open_source(str(tmp_path))
    found = split(opened, 4)
    assert [part.num_rows for part in found] == [4, 4, 4, 3] * 2
    assert sorted(chain(*(read(opened, part) for part in found))) == list(range(1, 31))


def test_a_shard_with_other_row_groups_is_refused_and_never_read_as_other_rows(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(parts, "ROW_GROUP_ROWS", 4)
    vectors = np.arange(1, 11, dtype=np.float16).reshape(10, 1)
    index = make_index(tmp_path, [f"{n}" for n in range(1, 11)], vectors)
    path = tmp_path / index.shards[0].path
    table = pq.read_table(path).cast(index_schema(index.spec))
    opened = open_source(str(tmp_path))
    for group_rows, is_part in ((4, [1, 1, 1]), (5, [0, 0, 0]), (8, [0, 0, 1]), (100, [0, 0, 0])):
        pq.write_table(table, path, row_group_size=group_rows)
        for part, is_good in zip(split(opened, 4), is_part, strict=True):
            stop = part.first_row + part.num_rows
            if is_good:
                assert read(opened, part) == list(range(part.first_row + 1, stop + 1))
                continue
            message = (
                f"{path}: rows {part.first_row} to {stop - 1} are no whole row groups, which end "
                f"after every 4 rows of a shard. Not the shard that was written: embed the photos "
                f"again."
            )
            with pytest.raises(IndexFormatError, match=line(message)):
                read(opened, part)
        assert read(opened, opened.files[0]) == list(range(1, 11))


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ([4, 3, 4], "11 rows, but 10"),
        ([4], "4 rows, but 10"),
        ([5, 5], "row group 0 has 5 rows, but 4"),
        ([4, 4, 2], "row group 1 has 4 rows, but 3"),
        ([4, 3, 3, 0], "row group 3 has 0 rows, but none"),
        ([4, 3, 2, 1], "row group 2 has 2 rows, but 3"),
    ],
)
def test_a_file_that_changes_meanwhile_is_refused_by_each_part(tmp_path, groups, problem):
    path = write(tmp_path / "a.parquet", [4, 3, 3])
    opened = open_source(path)
    write(path, groups)
    for part in split(opened, 4):
        message = (
            f"{path}: {problem} when the job began. A shard must not change while it is ranked: "
            f"run the job again."
        )
        with pytest.raises(IndexFormatError, match=line(message)):
            read(opened, part)


@pytest.mark.parametrize("change", ["vectors", "ids"])
def test_a_pair_that_changes_meanwhile_is_refused_by_each_part(tmp_path, change):
    write(tmp_path / "x.parquet", [2, 4])
    np.save(tmp_path / "x.npy", np.ones((6, 2), np.float32))
    opened = open_source(str(tmp_path))
    if change == "ids":
        write(tmp_path / "x.parquet", [2, 5])
    else:
        np.save(tmp_path / "x.npy", np.ones((7, 2), np.float32))
    for part in split(opened, 2):
        with pytest.raises(IndexFormatError, match=f"^{tmp_path}/x.npy: 7 .*but 6 .*must not ch"):
            list(read_blocks(opened, part, 2))


def test_a_part_beyond_the_end_is_refused(tmp_path):
    path = write(tmp_path / "a.parquet", [4, 3])
    opened = open_source(path)
    with pytest.raises(IndexFormatError, match=f"^{path}: rows 4 to 8 are no whole row groups"):
        read(opened, VectorPart(opened.files[0], 4, 5))
    np.save(tmp_path / "a.npy", np.arange(1, 8, dtype=np.float32).repeat(2).reshape(7, 2))
    opened = open_source(str(tmp_path))
    with pytest.raises(IndexFormatError, match=f"^{tmp_path}/a.npy: 3 rows, but 5 when the job"):
        read(opened, VectorPart(opened.files[0], 4, 5))


@pytest.mark.parametrize("kind", ["parquet", "npy"])
def test_an_error_in_a_part_names_the_row_of_the_file(tmp_path, kind):
    vectors = np.ones((10, 2), np.float32)
    vectors[8] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 2)
    ids = pa.array([f"{n}" if n != 5 else None for n in range(10)])
    pq.write_table(pa.table({"id": ids, "v": column}), tmp_path / "a.parquet", row_group_size=2)
    if kind == "npy":
        np.save(tmp_path / "a.npy", vectors)
    opened = open_source(str(tmp_path))
    by_row = {part.first_row: part for part in split(opened, 2)}
    for first_row, problem in ((8, f"a.{kind}, row 8: the vec"), (4, "a.parquet, row 5: no id;")):
        with pytest.raises(IndexFormatError, match=f"^{tmp_path}/{problem}"):
            list(read_blocks(opened, by_row[first_row], 1))
    assert [len(block.ids) for block in read_blocks(opened, by_row[6], 1)] == [1, 1]
