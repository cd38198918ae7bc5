"""kill -9 at every step of a night: nothing is lost, doubled, or done twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal

import pytest

from retrieval.index import open_index
from tests.retrieval.nights import Gallery, check, one_night, rows_of

# Each place is passed once in the night below, or as often as is written behind it.
PLACES = [
    "compared", "shard written", "shard written:2", "staged", "staged:2", "embedded",
    "rewritten", "rewritten:2", "carried",
    "before commit", "entry written", "after commit", "discarded", "discarded:3",
    "published",
]  # fmt: skip
NUM_LOST = {"compared": 8, "shard written": 8, "shard written:2": 4, "staged": 4}
BEFORE = PLACES[: PLACES.index("after commit")]


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory):
    """An index, the gallery that it is of, and the gallery of the next day."""
    numbers, gallery = random.Random(5), Gallery()
    for number in range(30):
        gallery.put(f"{number % 4}/{number}", b"photo %d" % number)
    gallery.put("0/broken", b"bad")
    uri = str(tmp_path_factory.mktemp("yesterday") / "index")
    one_night(uri, gallery)
    old = Gallery(dict(gallery.photos), gallery.now_us)
    for number in range(0, 30, 5):
        gallery.put(f"0/new {number}", numbers.randbytes(9))
    gallery.put("1/bad too", b"bad as well")
    gallery.put("0/4", b"photo 4, edited")
    gallery.move("2/6", "3/six")
    del gallery.photos["3/7"]
    return uri, old, gallery


def _one_night(place, uri, gallery):
    os.environ["RETRIEVAL_BREAKPOINT"] = place
    one_night(uri, gallery)


def killed_night(place, uri, gallery):
    """A night in a process of its own, which ends at a place."""
    process = multiprocessing.get_context("spawn").Process(
        target=_one_night, args=(place, uri, gallery)
    )
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize("place", PLACES)
def test_a_night_that_is_killed_is_finished_by_the_next(tmp_path, yesterday, place):
    before, old, gallery = yesterday
    gallery = Gallery(dict(gallery.photos), gallery.now_us)
    uri = shutil.copytree(before, str(tmp_path / "index"))
    assert killed_night(place, uri, gallery) == -signal.SIGKILL
    is_committed = place not in BEFORE
    check(uri, gallery if is_committed else old)
    rows_before = rows_of(uri, 0)
    executor, candidate = one_night(uri, gallery)
    check(uri, gallery)
    assert rows_of(uri, 0) == rows_before
    assert candidate.is_unchanged == is_committed
    # Of eight photos to embed, in groups of four, those with a receipt are not embedded again.
    assert len(executor.embedded) == NUM_LOST.get(place, 0)
    executor, candidate = one_night(uri, gallery)
    assert (executor.embedded, candidate.is_unchanged) == ([], True)
    assert open_index(uri).version == 1


@pytest.mark.parametrize("seed", range(2))
def test_nights_killed_at_random_places_come_to_what_one_night_makes(tmp_path, seed):
    numbers, gallery, uri = random.Random(seed), Gallery(), str(tmp_path / "index")
    for number in range(20):
        gallery.put(f"{number % 4}/{number}", b"photo %d" % number)
    one_night(uri, gallery)
    for _ in range(5):
        killed_night(numbers.choice(PLACES), uri, gallery)
        gallery.change(numbers)
    one_night(uri, gallery)
    check(uri, gallery)
    scratch = str(tmp_path / "scratch")
    one_night(scratch, gallery)

    def by_id(row):
        return row["image_id"]

    assert sorted(rows_of(uri), key=by_id) == sorted(rows_of(scratch), key=by_id)
