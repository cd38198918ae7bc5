"""The counts behind a progress line: by workers, and only where somebody looks."""

from __future__ import annotations

import os
import time

import pytest
import ray

from pipelines.ray_runtime import counter as tally
from pipelines.ray_runtime.nodes import beside_the_driver

MANY = tally._FEW_ITEMS + 1


def started(num_items):
    """A tally whose counter has begun, which takes seconds on a busy machine."""
    count = tally.Tally(num_items)
    ray.get(count._counter.counts.remote())
    return count


def test_what_workers_add_is_counted(ray_session):
    count = started(MANY)
    assert count.counts() == {}

    @ray.remote
    def work(number):
        count.add(number, "embedded", [str(number)])
        count.add(2 * number, "decoded", [str(number)])

    ray.get([work.remote(number) for number in (1, 20, 300)])
    deadline = time.monotonic() + 60
    while count.counts()["decoded"] < 642 and time.monotonic() < deadline:  # none waits for it
        time.sleep(0.05)
    assert count.counts() == {"embedded": 321, "decoded": 642}


def test_work_that_ray_repeats_counts_once(ray_session, tmp_path):
    """As after a lost worker or node: the task has counted, and does all of it again."""
    count = started(MANY)

    @ray.remote(max_retries=1)
    def work():
        count.add(5, "embedded", ["a.jpg"])
        ray.get(count._counter.counts.remote())  # it is told
        if not (tmp_path / "was-here").exists():
            (tmp_path / "was-here").touch()
            os._exit(1)

    ray.get(work.remote())
    count.add(2, "embedded", ["b.jpg"])
    count.add(5, "decoded", ["a.jpg"])  # another stage has the same batches
    assert count.counts() == {"embedded": 7, "decoded": 5}


def test_for_a_few_items_in_a_log_no_process_is_started(ray_session, monkeypatch):
    monkeypatch.setattr(tally._Counter, "options", None)  # an error, if it were called
    count = tally.Tally(MANY - 1)
    count.add(5, "embedded", ["a.jpg"])
    assert count.counts() is None


def test_a_terminal_is_told_of_a_few_items_too(ray_session, monkeypatch):
    monkeypatch.setattr(tally, "is_shown", lambda: True)
    count = started(1)
    count.add(1, "embedded", ["a.jpg"])
    assert count.counts() == {"embedded": 1}


def test_a_counter_that_is_slow_holds_nobody_up(ray_session, monkeypatch):
    count = started(MANY)
    count.add(5, "embedded", ["a.jpg"])
    assert count.counts() == {"embedded": 5}
    monkeypatch.setattr(tally, "_PATIENCE_S", 0.05)
    blocked = count._counter.__ray_call__.remote(lambda self: time.sleep(2))
    count.add(5, "embedded", ["b.jpg"])
    assert count.counts() == {"embedded": 5}
    ray.get(blocked)


def test_a_counter_that_has_gone_is_an_error_which_the_line_expects(ray_session):
    count = started(MANY)
    ray.kill(count._counter)
    with pytest.raises(ray.exceptions.RayError):
        _ask_for_ever(count)  # a call that overtakes the kill is still answered


def test_the_counter_is_asked_to_live_beside_the_driver(ray_session, monkeypatch):
    asked, options = [], tally._Counter.options
    monkeypatch.setattr(
        tally._Counter, "options", lambda **given: asked.append(given) or options(**given)
    )
    tally.Tally(MANY)
    assert asked == [beside_the_driver()]


def _ask_for_ever(count):
    while True:
        count.counts()
