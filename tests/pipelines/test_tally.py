"""The count behind a progress line: by workers, and only where somebody looks."""

from __future__ import annotations

import time

import ray

from pipelines import tally


def test_what_workers_add_is_counted_where_there_is_a_terminal(ray_session, monkeypatch):
    monkeypatch.setattr(tally, "is_shown", lambda: True)
    count = tally.Tally()
    assert count.total() == 0

    @ray.remote
    def work(number):
        count.add(number)

    ray.get([work.remote(number) for number in (1, 20, 300)])
    deadline = time.monotonic() + 60
    while count.total() < 321 and time.monotonic() < deadline:  # they do not wait for the count
        time.sleep(0.05)
    assert count.total() == 321


def test_without_a_terminal_no_process_is_started(ray_session, monkeypatch):
    monkeypatch.setattr(tally, "is_shown", lambda: False)
    monkeypatch.setattr(tally._Counter, "remote", None)  # an error, if it were called
    count = tally.Tally()
    count.add(5)
    assert count.total() == 0
