"""What a report says of the time of each stage, and of what bounds the job."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import asdict

import pyarrow as pa
import pytest

from pipelines.embed.budget import STAGES, BusyTime, Stopwatch, budget, seconds_of
from pipelines.ray_runtime.nodes import Node, Resources

TWO_CPUS = Resources((Node(2),))


def test_a_budget_worked_by_hand():
    # 100 photos: of a core 0.5 s decoding, 0.1 handing over, 1.3 in the network, 0.1 writing
    parts = [
        Counter(read=4.0, decode=0.2, hand_over=0.1, forward=1.0),
        Counter(read=5.0, decode=0.3, forward=0.3, write=0.1),
    ]
    assert asdict(budget(parts, 100, seconds=3.25, start_s=2.0, there=TWO_CPUS)) == {
        "start_s": 2.0,
        "ms_per_photo": {
            "read": 90.0, "decode": 5.0, "hand_over": 1.0, "forward": 13.0, "write": 1.0,
        },
        "num_cpus": 2,
        "num_gpus": 0,
        "ceiling_photos_per_s": 100.0,  # two cores, 20 ms a photo
        "share_of_ceiling": 0.8,
        "bound_by": "forward",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "there", "ceiling", "share", "bound_by"),
    [
        (2.0, TWO_CPUS, 100.0, 0.5, "forward"),
        (2.1, TWO_CPUS, 100.0, 0.476, "waiting"),
        # the cores decode, hand over and write: 7 ms; the network has a GPU: 13 ms
        (1.5, Resources((Node(16, 1),)), 76.9, 0.867, "forward"),
        (0.5, Resources((Node(2, 4),)), 285.7, 0.7, "decode"),
    ],
)
def test_what_bounds_a_job(seconds, there, ceiling, share, bound_by):
    parts = [Counter(read=9.0, decode=0.5, hand_over=0.1, forward=1.3, write=0.1)]
    found = budget(parts, 100, seconds=seconds, start_s=0, there=there)
    assert found.ceiling_photos_per_s == ceiling
    assert found.share_of_ceiling == share
    assert found.bound_by == bound_by


def test_a_run_of_rejects_alone_has_no_rate_to_tell():
    """What they cost is in no photo's milliseconds; the stage that took most is told."""
    parts = [Counter(decode=1.9, hand_over=0.1)]
    found = budget(parts, 0, seconds=1.0, start_s=0, there=TWO_CPUS)
    assert found.ms_per_photo == dict.fromkeys(STAGES)
    assert (found.ceiling_photos_per_s, found.share_of_ceiling) == (None, None)
    assert found.bound_by == "decode"


def test_seconds_travel_with_the_rows_and_add_up_whichever_way_these_are_cut():
    table = pa.table({"x": range(4)})
    for stage, seconds in (("read", 0.02), ("decode", 0.04)):
        watch = Stopwatch()
        with watch.measure(stage, is_waiting=True):
            time.sleep(seconds)
        table = watch.add_to(table)
    assert table.column_names == ["x", *(f"{stage}_s" for stage in STAGES)]
    whole = seconds_of(table)
    assert 0.02 <= whole["read"] < whole["decode"]
    assert whole["decode"] >= 0.04
    assert whole["forward"] == 0
    halves = seconds_of(table.slice(0, 3)) + seconds_of(table.slice(3))
    assert halves["decode"] == pytest.approx(whole["decode"])
    assert halves["read"] == pytest.approx(3 / 4 * whole["read"] + whole["read"] / 4)


def test_waiting_is_no_work_of_a_core():
    watch = Stopwatch()
    with watch.measure("decode"):
        time.sleep(0.05)
    assert seconds_of(watch.add_to(pa.table({"x": [1]})))["decode"] < 0.04


def test_time_on_a_gpu_counts_once_where_calls_overlap():
    busy, meeting, taken = BusyTime(), threading.Barrier(3, timeout=30), []

    def call():
        meeting.wait()
        with busy:
            time.sleep(0.2)
        taken.append(busy.take())

    threads = [threading.Thread(target=call) for _ in range(3)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = time.perf_counter() - begun
    time.sleep(0.2)  # idle: counts for nobody
    with busy:
        pass
    assert 0.2 <= sum(taken) + busy.take() <= whole
    assert busy.take() == 0


def test_no_rows_have_no_seconds():
    watch = Stopwatch()
    with watch.measure("decode", is_waiting=True):
        pass
    table = watch.add_to(pa.table({"x": pa.array([], pa.int64())}))
    assert sum(seconds_of(table).values()) == 0
