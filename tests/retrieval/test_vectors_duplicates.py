"""An id that occurs twice is found wherever it lies, in any memory, under any hash."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import IndexFormatError, UsageError
from retrieval.vectors import Duplicate, duplicates, find_duplicate, open_source
from retrieval.vectors.duplicates import hash_ids
from tests.conftest import make_index

VECTOR = pa.array([[1.0, 2.0]], pa.list_(pa.float32()))
MEMORY = 10**9


def write(folder, **files):
    for name, ids in files.items():
        vectors = pa.concat_arrays([VECTOR[:0], *[VECTOR] * len(ids)])
        table = pa.table({"id": pa.array(ids, pa.string()), "vector": vectors})
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=3)
    return open_source(str(folder))


def counted(source, monkeypatch):
    """A list that grows by one for each reading of the source."""
    readings, read = [], duplicates._id_blocks
    monkeypatch.setattr(duplicates, "_id_blocks", lambda source: readings.append(1) or read(source))
    return readings


def same_hash(ids):
    return np.zeros(len(ids), np.uint64)


def few_hashes(ids):
    """Seven hashes, at both ends and in the middle of the range."""
    places = np.array([0, 1, 2**62, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1], np.uint64)
    return places[hash_ids(ids) % np.uint64(7)]


def test_ids_that_differ_are_no_duplicate(tmp_path):
    source = write(tmp_path, a=["x", "y", ""], b=["X", "xy", "x "], c=[])
    assert find_duplicate(source, MEMORY) is None


def test_two_in_one_file_and_two_in_different_files_worked_by_hand(tmp_path):
    source = write(tmp_path, a=["p", "q", "é", "r", "é"])
    uri = f"{tmp_path}/a.parquet"
    assert find_duplicate(source, MEMORY) == Duplicate("é", (uri, 2), (uri, 4))
    # In b the array is wider, so that the id is padded otherwise.
    source = write(tmp_path, a=["p", "q", "long", "r"], b=["s", "t" * 30, "long", "u"])
    expected = Duplicate("long", (uri, 2), (f"{tmp_path}/b.parquet", 2))
    assert find_duplicate(source, MEMORY) == expected
    source = write(tmp_path, a=["", "b"], b=["c" * 9, ""])
    assert find_duplicate(source, MEMORY).first == (uri, 0)


@pytest.mark.parametrize("block_rows", [1, 2, 100])
@pytest.mark.parametrize("memory", [16, 50, 160, MEMORY])
@pytest.mark.parametrize("hash_of", [None, same_hash, few_hashes])
def test_it_is_found_in_any_memory_under_any_hash(
    tmp_path, monkeypatch, memory, hash_of, block_rows
):
    monkeypatch.setattr(duplicates, "_BLOCK_ROWS", block_rows)
    monkeypatch.setattr(duplicates, "_SUSPECTS", 2)
    ids = [f"{n}" for n in range(20)]
    source = write(tmp_path, a=ids[:7], b=ids[7:])
    assert find_duplicate(source, memory, hash_of=hash_of) is None
    source = write(tmp_path, a=ids[:7], b=[*ids[7:], "5"])
    places = ((f"{tmp_path}/a.parquet", 5), (f"{tmp_path}/b.parquet", 13))
    assert find_duplicate(source, memory, hash_of=hash_of) == Duplicate("5", *places)


def test_no_collision_hides_a_duplicate_behind_it(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "_SUSPECTS", 1)
    ids = [f"{n}" for n in range(20)]
    hashes = few_hashes(np.array(ids, "S"))
    assert len(np.unique(hashes)) == 7  # each of several ids, looked up one after another
    for row, row_id in enumerate(ids):
        source = write(tmp_path, a=[*ids, row_id])
        uri = f"{tmp_path}/a.parquet"
        expected = Duplicate(row_id, (uri, row), (uri, 20))
        assert find_duplicate(source, MEMORY, hash_of=few_hashes) == expected


def test_there_are_as_many_passes_as_the_memory_asks_for(tmp_path, monkeypatch):
    source = write(tmp_path, a=[f"{n}" for n in range(20)])
    readings = counted(source, monkeypatch)
    for memory, num_passes in ((MEMORY, 1), (320, 1), (319, 2), (160, 2), (16, 20)):
        readings.clear()
        assert find_duplicate(source, memory) is None
        assert len(readings) == num_passes
    message = r"^memory_bytes = 15: at least 16 are needed\.$"
    with pytest.raises(UsageError, match=message):
        find_duplicate(source, 15)


def test_a_pass_holds_its_share_of_the_hashes(tmp_path, monkeypatch):
    source = write(tmp_path, a=[f"photo {n}" for n in range(4000)])
    sizes = []
    find = duplicates._repeated_hashes

    def measured(source, hash_of, low, high):
        seen = []
        found = find(source, lambda ids: seen.append(hash_of(ids)) or seen[-1], low, high)
        hashes = np.concatenate(seen)
        sizes.append(int(((hashes >= low) & (hashes <= high)).sum()))
        return found

    monkeypatch.setattr(duplicates, "_repeated_hashes", measured)
    assert find_duplicate(source, 16 * 1000) is None
    assert sum(sizes) == 4000
    assert max(sizes) < 1150


@given(
    files=st.lists(st.lists(st.text("abé", max_size=3), max_size=8), min_size=1, max_size=3),
    memory=st.integers(16, 400),
    hash_of=st.sampled_from([None, same_hash, few_hashes]),
)
def test_what_a_dict_finds_is_found(tmp_path_factory, files, memory, hash_of):
    if not any(files):
        return
    folder = tmp_path_factory.mktemp("ids")
    source = write(folder, **{f"f{n}": ids for n, ids in enumerate(files)})
    places = {}
    for file, ids in zip(source.files, files, strict=True):
        for row, row_id in enumerate(ids):
            places.setdefault(row_id, []).append((file.uri, row))
    twice = {row_id: found for row_id, found in places.items() if len(found) > 1}
    found = find_duplicate(source, memory, hash_of=hash_of)
    if not twice:
        assert found is None
    else:
        assert [found.first, found.second] == twice[found.row_id][:2]


def test_an_index_and_pairs_are_searched_too(tmp_path):
    vectors = np.ones((4, 2), np.float16)
    make_index(tmp_path / "good", ["a", "b", "c", "d"], vectors, num_shards=2)
    assert find_duplicate(open_source(str(tmp_path / "good")), MEMORY) is None
    make_index(tmp_path / "bad", ["a", "b", "b", "d"], vectors, num_shards=2)
    source = open_source(str(tmp_path / "bad"))
    found = find_duplicate(source, MEMORY)
    assert found.row_id == "b"
    assert [found.first[0], found.second[0]] == [file.uri for file in source.files]
    np.save(tmp_path / "x.npy", vectors)
    write(tmp_path, x=["a", "b", "c", "b"])
    source = open_source(f"{tmp_path}/x*")
    uri = f"{tmp_path}/x.npy"
    assert find_duplicate(source, MEMORY) == Duplicate("b", (uri, 1), (uri, 3))


def test_a_file_without_an_id_is_refused(tmp_path):
    source = write(tmp_path, a=["x", None])
    with pytest.raises(IndexFormatError, match=f"^{tmp_path}/a.parquet, row 1: no id;"):
        find_duplicate(source, MEMORY)


def plain_hash(row_id):
    """The same in Python's integers, word by word."""

    def mix(word):
        word ^= word >> 33
        word = word * 0xFF51AFD7ED558CCD % 2**64
        word ^= word >> 33
        word = word * 0xC4CEB9FE1A85EC53 % 2**64
        return word ^ word >> 33

    total = 0
    for place in range(0, len(row_id), 8):
        word = int.from_bytes(row_id[place : place + 8], "little")
        total += mix(word * (mix(place // 4 + 1) | 1) % 2**64)
    return mix(total % 2**64)


@given(
    ids=st.lists(st.binary(max_size=40).map(lambda text: text.replace(b"\0", b"x"))),
    width=st.integers(0, 50),
)
def test_a_hash_is_that_of_a_loop_whatever_the_width(ids, width):
    wide = np.array([*ids, b"x" * width])
    assert hash_ids(wide)[: len(ids)].tolist() == [plain_hash(row_id) for row_id in ids]


def test_the_known_hash_of_a_word():
    # By the finaliser of MurmurHash3, whose value of 1 is published with it.
    assert plain_hash(b"") == 0
    assert duplicates._mix(np.array([1], np.uint64)).tolist() == [0xB456BCFC34C2CB2C]


def test_hashes_of_like_ids_differ_and_fill_the_range():
    ids = np.array([f"class_{n // 100:05}/photo_{n:08}.jpg" for n in range(100_000)], "S")
    hashes = hash_ids(ids)
    assert len(np.unique(hashes)) == len(ids)
    for bits in (hashes >> np.uint64(56), hashes & np.uint64(255)):
        counts = np.bincount(bits.astype(int), minlength=256)
        assert 290 < counts.min() <= counts.max() < 490  # 391 ± 5 standard deviations
