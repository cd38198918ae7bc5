"""Streams started ahead give what they would give in turn; nothing of them is left behind."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
import torch

from pipelines.train import TrainConfig, worker
from pipelines.train.prefetcher import StreamsAhead
from retrieval.errors import StorageError, TrainingError


class Streams:
    """Streams of the given lengths; keeps account of what is done with them.

    Items are pairs (stream, number). Reading `broken` raises `error`.
    """

    def __init__(self, *lengths, broken=None, error=None):
        self.lengths, self.broken, self.error = lengths, broken, error
        self.started, self.ended, self.num_read = [], [], 0

    def __iter__(self):
        for number, length in enumerate(self.lengths):
            yield self._stream(number, length)

    def _stream(self, number, length):
        self.started.append(number)
        assert len(self.started) == len(self.ended) + 1  # one at a time
        try:
            for item in range(length):
                if (number, item) == self.broken:
                    raise self.error
                self.num_read += 1
                yield number, item
        finally:
            self.ended.append(number)

    def items(self, number):
        return [(number, item) for item in range(self.lengths[number])]


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "streams-ahead"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    assert not threads()
    yield
    assert not threads()


def wait_until(is_so):
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def settle(streams):
    """What has been read once the thread reads no further."""
    before = -1
    while before != streams.num_read:
        before = streams.num_read
        time.sleep(0.1)
    return before


@pytest.mark.parametrize("depth", [1, 2, 7])
@pytest.mark.parametrize("lengths", [(), (3,), (5, 2, 5, 2), (0, 4, 0, 0, 1), (1, 1, 1)])
def test_streams_come_in_turn_and_whole(depth, lengths):
    streams = Streams(*lengths)
    with StreamsAhead(streams, depth) as ahead:
        for number in range(len(lengths)):
            assert list(ahead.next_stream()) == streams.items(number)
    assert streams.started == streams.ended == list(range(len(lengths)))


def test_a_stream_starts_while_the_one_before_is_still_worked_on():
    streams = Streams(5, 3, 5)
    with StreamsAhead(streams, 3) as ahead:
        training = ahead.next_stream()
        for _ in range(4):
            next(training)
        wait_until(lambda: streams.started == [0, 1])  # one batch waits, and the end of them
        assert list(training) == [(0, 4)]
        validation = ahead.next_stream()
        assert [next(validation), next(validation)] == [(1, 0), (1, 1)]
        wait_until(lambda: streams.started == [0, 1, 2])
        assert list(validation) == [(1, 2)]
        assert list(ahead.next_stream()) == streams.items(2)


def test_the_next_stream_starts_with_no_item_of_it_asked_for():
    streams = Streams(2, 2)
    with StreamsAhead(streams, 4) as ahead:
        list(ahead.next_stream())
        wait_until(lambda: streams.num_read == 4)  # as while a checkpoint is written


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_no_more_than_depth_items_are_read_beyond_the_one_in_hand(depth):
    streams = Streams(10)
    with StreamsAhead(streams, depth) as ahead:
        assert settle(streams) == depth
        for number, _ in enumerate(ahead.next_stream(), 1):
            assert settle(streams) == min(number + depth, 10)


def test_nothing_is_read_before_the_context_is_entered():
    streams = Streams(2)
    ahead = StreamsAhead(streams, 2)
    time.sleep(0.05)
    assert not threads()
    with ahead:
        wait_until(lambda: streams.num_read == 2)


@pytest.mark.parametrize("error", [StorageError("x: gone"), KeyError("y"), KeyboardInterrupt()])
@pytest.mark.parametrize("broken", [(0, 0), (1, 2), (2, 0)])
def test_an_error_comes_as_it_is_in_its_stream_after_the_items_before_it(error, broken):
    streams, found = Streams(3, 3, 3, broken=broken, error=error), []

    def consume(ahead):
        for _ in range(3):
            found.extend(ahead.next_stream())

    with pytest.raises(type(error)) as caught, StreamsAhead(streams, 4) as ahead:
        consume(ahead)
    assert caught.value is error
    assert found == [(number, item) for number in range(3) for item in range(3)][
        : 3 * broken[0]
    ] + [(broken[0], item) for item in range(broken[1])]
    assert streams.started == streams.ended == list(range(broken[0] + 1))


def test_an_error_of_what_makes_the_streams_comes_where_its_stream_would():
    def streams():
        yield from Streams(2)
        raise StorageError("x: no second one")

    with StreamsAhead(streams(), 4) as ahead:
        assert list(ahead.next_stream()) == [(0, 0), (0, 1)]
        with pytest.raises(StorageError, match=r"^x: no second one$"):
            next(ahead.next_stream())


def test_asking_for_a_stream_after_the_last_is_an_error_and_no_hang():
    with StreamsAhead(Streams(1), 2) as ahead:
        list(ahead.next_stream())
        with pytest.raises(RuntimeError, match="no stream after the last"):
            next(ahead.next_stream())


@pytest.mark.parametrize("num_taken", [0, 1, 4])
def test_leaving_early_closes_the_stream_and_starts_no_other(num_taken):
    streams = Streams(100, 100)

    def diverge(ahead):
        batches = ahead.next_stream()
        for _ in range(num_taken):
            next(batches)
        settle(streams)
        raise TrainingError("the loss is nan by step 4")

    with pytest.raises(TrainingError), StreamsAhead(streams, 3) as ahead:
        diverge(ahead)
    assert streams.started == streams.ended == [0]
    assert streams.num_read == num_taken + 3


def test_leaving_waits_for_no_more_than_the_item_that_is_being_read():
    reading, go_on = threading.Event(), threading.Event()

    def slow():
        yield 0
        reading.set()
        go_on.wait(10)
        yield 1
        pytest.fail("read on after the consumer had left")

    with StreamsAhead(iter([slow(), slow()]), 5):
        reading.wait(10)
        threading.Timer(0.1, go_on.set).start()
    assert go_on.is_set()


class Trainee:
    """A worker whose training is reading; counts its epochs."""

    def __init__(self, num_done, streams, error=None):
        self.progress = SimpleNamespace(history=[{}] * num_done)
        self.photos = SimpleNamespace(streams=self._streams)
        self.made, self.error, self.epochs, self.kept = streams, error, None, []

    def _streams(self, epochs):
        self.epochs = list(epochs)
        return self.made

    def run_epoch(self, epoch, streams):
        list(streams.next_stream())
        if self.error and epoch == 2:
            raise self.error
        list(streams.next_stream())
        return {"epoch": epoch + 1}

    def keep(self, record):
        self.kept.append(record["epoch"])


def train(trainee, monkeypatch, epochs):
    monkeypatch.setattr(worker, "_Worker", lambda plan, journal: trainee)
    plan = SimpleNamespace(config=TrainConfig(epochs=epochs), num_threads=torch.get_num_threads())
    return worker.train_worker({"plan": plan, "journal": None})


def test_a_training_reads_the_streams_of_the_epochs_that_are_left_and_no_other(monkeypatch):
    trainee = Trainee(1, Streams(5, 2, 5, 2))
    assert train(trainee, monkeypatch, epochs=3) == {"diverged": None}
    assert trainee.epochs == [1, 2]
    assert trainee.kept == [2, 3]
    assert trainee.made.ended == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "found",
    [
        "the loss is nan by step 3",
        "the validation loss is inf",
        "the network gives features that are not finite",
    ],
)
def test_a_diverged_training_says_where_and_leaves_no_stream_behind(monkeypatch, found):
    trainee = Trainee(1, Streams(5, 2, 5, 200, 5, 200), TrainingError(found))
    assert train(trainee, monkeypatch, epochs=4) == {"diverged": f"in epoch 3 {found}"}
    assert trainee.kept == [2]
    assert trainee.made.started == trainee.made.ended
    assert not threads()
