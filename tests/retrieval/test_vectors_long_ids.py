"""Ids of any length: their order is kept by what stands for them, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import UsageError
from retrieval.ranking.sides import sum_ids
from retrieval.vectors import LongIdError, LongIds, find_duplicate, open_source, read_ids
from retrieval.vectors.duplicates import hash_ids
from retrieval.vectors.ids import pad, pieces

# Many beginnings of 47 to 50 bytes in common, some of them cut within a character.
WORDS = st.builds(
    lambda head, tail: head + tail,
    st.sampled_from(["", "a", "a" * 47, "a" * 48, "a" * 49, "é" * 24, "a" + "é" * 24, "猫" * 17]),
    st.text(st.sampled_from("ab0fé猫~"), max_size=4),
)


def texts(ids):
    return pa.array(ids, pa.large_string())


@given(st.lists(WORDS, min_size=1, max_size=12))
def test_what_stands_for_long_ids_sorts_and_compares_as_they_do(ids):
    long_ids = LongIds.collect([texts(ids[:5]), texts(ids[5:])], 10**6)
    found = long_ids.shorten(texts(ids), pad)
    assert found.dtype.itemsize <= long_ids.width
    assert long_ids.expand(found).to_pylist() == ids
    expected = sorted(range(len(ids)), key=lambda row: (ids[row].encode(), row))
    assert np.argsort(found, kind="stable").tolist() == expected
    for row, row_id in enumerate(ids):
        assert (found == found[row]).tolist() == [other == row_id for other in ids]


def test_the_limit_rises_until_the_long_ids_keep_to_the_memory():
    ids = ["x" * 60, "y" * 150, "z" * 700]
    blocks = [texts(ids), texts(ids)]  # each counts once
    for most, limit in ((910, 48), (909, 96), (849, 192), (700, 192)):
        assert LongIds.collect(blocks, most).limit == limit
    with pytest.raises(UsageError, match="ids of more than 384 bytes take more than"):
        LongIds.collect(blocks, 699)


def test_an_id_that_was_not_collected_is_not_confused_with_another():
    long_ids = LongIds.collect([texts(["x" * 60])], 100)
    with pytest.raises(LongIdError):
        long_ids.shorten(texts(["x" * 61]), pad)


@given(st.lists(st.integers(0, 3000), max_size=60))
def test_pieces_are_all_of_the_texts_and_padded_to_twice_their_bytes(lengths):
    ids = [f"{row}"[:length] + "x" * (length - 2) for row, length in enumerate(lengths)]
    found = list(pieces(texts(ids)))
    assert [row_id for piece in found for row_id in piece.to_pylist()] == ids
    for piece in found:
        sizes = [len(each) for each in piece.to_pylist()]
        assert len(piece) == 1 or len(piece) * max(sizes) <= max(2 * sum(sizes), 2**20)


def test_texts_beside_a_long_one_are_not_padded_to_its_width():
    ids = [*(f"{n}" for n in range(500)), "x" * 100_000, *(f"{n}" for n in range(500))]
    found = list(pieces(texts(ids)))
    assert [row_id for piece in found for row_id in piece.to_pylist()] == ids
    assert sum(pad(piece).nbytes for piece in found) < 2**21


def gallery(path, ids):
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(2 * len(ids), "f4")), 2)
    pq.write_table(pa.table({"id": ids, "embedding": vectors}), path)
    return open_source(str(path))


def test_one_long_id_does_not_take_the_memory_of_many(tmp_path):
    ids = [f"{n}" for n in range(30_000)]
    ids[7] = "long" * 50_000  # 30,000 times as long would be 6 GB
    source = gallery(tmp_path / "a.parquet", ids)
    tracemalloc.start()
    assert find_duplicate(source, 10**9) is None
    total = sum_ids(source)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
    some = [hash_ids(np.array([row_id], "S")).sum() for row_id in ids]
    assert total == f"{sum(map(int, some)) % 2**64:016x}"
    ids[9] = ids[7]
    found = find_duplicate(gallery(tmp_path / "a.parquet", ids), 10**9)
    assert (found.row_id, found.first[1], found.second[1]) == (ids[7], 7, 9)


def test_reading_says_that_an_id_is_long(tmp_path):
    source = gallery(tmp_path / "a.parquet", ["a" * 256, "b"])
    assert [len(ids) for ids in read_ids(source, source.files[0], 10)] == [2]
    source = gallery(tmp_path / "a.parquet", ["a" * 257, "b"])
    with pytest.raises(LongIdError, match="more than 256 bytes"):
        list(read_ids(source, source.files[0], 10))
