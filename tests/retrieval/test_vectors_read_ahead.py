"""Read ahead, blocks come as they would; whatever happens, the thread ends and the file closes."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from retrieval.errors import IndexFormatError, UsageError
from retrieval.vectors import VectorBlock, open_source, read_ahead, read_blocks


def write(path, vectors, **settings):
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    ids = [f"{row}" for row in range(len(vectors))]
    pq.write_table(pa.table({"id": ids, "vector": column}), path, **settings)
    return open_source(str(path))


def rows_of(blocks):
    return [int(row_id) for block in blocks for row_id in block.ids.tolist()]


def block_of(number):
    return VectorBlock(np.array([b"%d" % number]), np.full((1, 2), number, np.float32))


class Reader:
    """Counts what it has read; tells when it is closed, and by which thread."""

    def __init__(self, num_blocks, error=None):
        self.num_read, self.closed_by = 0, None
        self.blocks = self._read(num_blocks, error)

    def _read(self, num_blocks, error):
        try:
            for number in range(num_blocks):
                self.num_read += 1
                yield block_of(number)
            if error:
                raise error
        finally:
            self.closed_by = threading.current_thread().name


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    assert not threads()
    yield
    assert not threads()


def settle(reader):
    """What has been read once the reader reads no further."""
    before = -1
    while before != reader.num_read:
        before = reader.num_read
        time.sleep(0.05)
    return before


@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("max_rows", [1, 30, 1000])
def test_blocks_of_a_file_come_as_without_a_thread(tmp_path, depth, max_rows):
    vectors = np.random.default_rng(0).standard_normal((200, 8), np.float32)
    opened = write(tmp_path / "a.parquet", vectors, row_group_size=70)
    plain = list(read_blocks(opened, opened.files[0], max_rows))
    ahead = list(read_ahead(read_blocks(opened, opened.files[0], max_rows), depth))
    assert [len(block.ids) for block in ahead] == [len(block.ids) for block in plain]
    assert rows_of(ahead) == list(range(200))
    assert b"".join(block.vectors.tobytes() for block in ahead) == vectors.tobytes()


def test_no_block_is_no_block():
    assert list(read_ahead(iter([]))) == []
    assert list(read_ahead(Reader(0).blocks)) == []


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_at_most_depth_blocks_are_read_beyond_the_one_in_hand(depth):
    reader = Reader(20)
    ahead = read_ahead(reader.blocks, depth)
    assert settle(reader) == 0  # nothing before the first is asked for
    for number in range(20):
        assert rows_of([next(ahead)]) == [number]
        assert settle(reader) == min(number + 1 + depth, 20)
    assert list(ahead) == []


def test_a_block_that_was_handed_over_is_let_go():
    seen = []

    def blocks():
        for number in range(10):
            block = block_of(number)
            seen.append(weakref.ref(block.vectors))
            yield block
            del block

    most = 0
    for block in read_ahead(blocks(), 1):
        time.sleep(0.02)
        most = max(most, sum(vectors() is not None for vectors in seen))
        del block
    assert most == 2


@pytest.mark.parametrize("num_blocks", [0, 1, 5])
@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), IndexFormatError("y")])
def test_an_error_of_the_reader_comes_unchanged_after_the_blocks_before_it(num_blocks, error):
    reader, found = Reader(num_blocks, error), []
    with pytest.raises(type(error)) as caught:
        found.extend(read_ahead(reader.blocks, 2))
    assert caught.value is error
    assert rows_of(found) == list(range(num_blocks))
    assert reader.closed_by == "read-ahead"


def test_a_bad_row_in_the_middle_of_a_file_is_named_after_the_rows_before_it(tmp_path):
    vectors = np.ones((100, 4), np.float32)
    vectors[57, 2] = np.nan
    opened = write(tmp_path / "a.parquet", vectors)
    found = []
    with pytest.raises(IndexFormatError, match=f"^{tmp_path}/a.parquet, row 57: the vector is NaN"):
        found.extend(read_ahead(read_blocks(opened, opened.files[0], 10)))
    assert rows_of(found) == list(range(50))


@pytest.mark.parametrize("num_taken", [0, 1, 3])
def test_closing_early_ends_the_thread_and_closes_the_reader(num_taken):
    reader = Reader(1000)
    ahead = read_ahead(reader.blocks)
    for _ in range(num_taken):
        next(ahead)
    ahead.close()
    assert not threads()
    assert reader.num_read <= num_taken + 2
    assert reader.closed_by == ("read-ahead" if num_taken else None)
    assert list(ahead) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_of_the_consumer_ends_the_thread(tmp_path, error):
    opened = write(tmp_path / "a.parquet", np.ones((100, 4), np.float32))

    def consume():
        for _ in read_ahead(read_blocks(opened, opened.files[0], 1)):
            raise error

    with pytest.raises(error) as caught:
        consume()
    del caught  # its traceback holds the iterator
    gc.collect()
    assert not threads()


def test_closing_waits_for_no_more_than_the_block_that_is_being_read():
    reading, go_on = threading.Event(), threading.Event()

    def blocks():
        yield block_of(0)
        reading.set()
        go_on.wait(10)
        yield block_of(1)
        pytest.fail("read on after the iterator was closed")

    ahead = read_ahead(blocks(), 1)
    next(ahead)
    reading.wait(10)
    threading.Timer(0.1, go_on.set).start()
    start = time.monotonic()
    ahead.close()
    assert time.monotonic() - start < 5


def test_reading_goes_on_while_the_consumer_works():
    def slow():
        for number in range(8):
            time.sleep(0.05)
            yield block_of(number)

    start = time.monotonic()
    for _ in read_ahead(slow()):
        time.sleep(0.05)
    assert time.monotonic() - start < 0.7  # 0.8 one after another


def test_a_depth_of_none_is_refused_at_once():
    with pytest.raises(UsageError, match=r"^depth = 0: reading ahead needs at least 1 block\.$"):
        read_ahead(iter([]), 0)
