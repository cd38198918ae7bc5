"""The line on a terminal, and the lines in a log."""

from __future__ import annotations

import io
import re
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from pipelines import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


# Not fixtures: pytest puts a stderr of its own in place before the test itself begins.
def see_terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_EVERY_S", 0.01)
    return terminal


def see_log(monkeypatch, every_s=0.01):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress, "_LOG_EVERY_S", every_s)
    return log


def wait_for(stream, text):
    deadline = time.monotonic() + 10
    while text not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert text in stream.getvalue()


def test_a_terminal_sees_the_line_grow_and_vanish(monkeypatch):
    terminal = see_terminal(monkeypatch)
    with progress.progress_line("embedded", "photos", 10, lambda: 4):
        wait_for(terminal, "4 of 10")
    drawn = terminal.getvalue().split("\r\033[K")
    assert drawn[1] == "embedded 0 of 10 photos"
    assert any(line.startswith("embedded 4 of 10 photos, ") for line in drawn)
    assert drawn[-1] == ""


def test_a_line_that_does_not_fit_is_cut_since_it_could_not_be_wiped_away(monkeypatch):
    terminal = see_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "30")
    with progress.status_line("listing s3://bucket/with/a/long/name"):
        pass
    assert terminal.getvalue().split("\r\033[K")[1] == "listing s3://bucket/with/a/lo"


def test_the_line_is_wiped_away_when_the_body_fails(monkeypatch):
    terminal = see_terminal(monkeypatch)
    with pytest.raises(KeyError), progress.status_line("loading"):
        raise KeyError
    assert terminal.getvalue().startswith("\r\033[Kloading\r\033[K")
    assert terminal.getvalue().endswith("\r\033[K")


def test_a_log_sees_nothing_of_what_is_short(monkeypatch):
    log = see_log(monkeypatch, every_s=5.0)
    with progress.progress_line("ranked", "shares", 3, lambda: 1), progress.status_line("a"):
        pass
    assert log.getvalue() == ""


def test_a_log_is_told_with_the_time_and_the_rates_and_at_the_end(monkeypatch):
    log = see_log(monkeypatch)
    with progress.progress_line("embedded", "photos", 10, lambda: {"embedded": 4, "decoded": 6}):
        wait_for(log, "(last ")
    lines = log.getvalue().splitlines()
    middle = re.compile(
        r"\d\d:\d\d:\d\d embedded 4 of 10 photos \(6 decoded, 2 waiting\), \d+\.\d/s"
        r"( \(last \d+ s: \d+\.\d/s\))?, about \d+ s left"
    )
    assert [line for line in lines[:-1] if not middle.fullmatch(line)] == []
    assert re.fullmatch(r"\d\d:\d\d:\d\d embedded 10 photos in \d+ s, \d+\.\d/s", lines[-1])


def test_a_log_is_told_no_end_of_what_failed(monkeypatch):
    log = see_log(monkeypatch)

    def fail():
        wait_for(log, "4 of 10")
        raise KeyError

    with pytest.raises(KeyError), progress.progress_line("embedded", "photos", 10, lambda: 4):
        fail()
    assert " in " not in log.getvalue()


def test_a_log_is_told_what_is_still_going_on(monkeypatch):
    log = see_log(monkeypatch)
    with progress.status_line("listing photos"):
        wait_for(log, "\n")
    assert re.match(r"\d\d:\d\d:\d\d still listing photos, \d+ s\n", log.getvalue())


def test_a_log_is_told_of_work_that_nobody_counts(monkeypatch):
    log = see_log(monkeypatch)
    with progress.progress_line("embedded", "photos", 10, lambda: None):
        wait_for(log, " 10 photos being embedded, ")


def test_of_lines_within_each_other_only_the_inner_one_is_told(monkeypatch):
    log = see_log(monkeypatch)
    with progress.status_line("comparing"):
        wait_for(log, "still comparing")
        with progress.status_line("hashing"):
            wait_for(log, "still hashing")
            before = log.getvalue().count("still comparing")
            time.sleep(0.1)  # ten times as long as it waits between two lines
            assert log.getvalue().count("still comparing") == before
        log.truncate(0)
        wait_for(log, "still comparing")


def test_a_night_of_eight_hours_does_not_fill_the_log(monkeypatch):
    log = see_log(monkeypatch, every_s=5.0)
    now = 0.0

    def wait(seconds):
        nonlocal now
        now += seconds + 0.002  # no thread wakes on time
        return now > 8 * 3600

    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    reporter = progress._Reporter("", lambda: f"{now:.0f} s")
    reporter._stop = SimpleNamespace(wait=wait)
    monkeypatch.setattr(progress, "_begun", [reporter])
    reporter._run()
    told = [int(line.split()[1]) for line in log.getvalue().splitlines()]
    assert told[:3] == [5, 10, 15]
    assert told[12] - told[11] == 30
    assert 900 < len(told) < 1000


def test_a_rate_of_late_forgets_what_was_before(monkeypatch):
    see_log(monkeypatch, every_s=5.0)
    pace = progress._Pace()
    assert pace.add(5.0, 0) is None  # since the start: the mean says it
    assert pace.add(10.0, 100) == (20.0, 5.0)
    assert pace.add(15.0, 110) == (2.0, 5.0)
    assert pace.add(100.0, 110) == (0.0, 85.0)
    for seconds in range(105, 200, 5):  # later in the run over a longer while
        rate = pace.add(float(seconds), 2 * seconds)
    assert rate == (2.0, 30.0)


def test_a_count_that_fails_stops_the_line_and_not_the_job(monkeypatch):
    log = see_log(monkeypatch)
    asked = threading.Event()

    def done():
        asked.set()
        raise ConnectionError("Ray has gone")

    with progress.progress_line("embedded", "photos", 10, done):
        assert asked.wait(10)
        time.sleep(0.05)  # the thread's error would be told here, and fail this test
    assert log.getvalue() == ""


def test_ctrl_c_ends_the_thread_too(monkeypatch):
    terminal = see_terminal(monkeypatch)
    before = threading.active_count()
    line = progress.progress_line("embedded", "photos", 10, lambda: 4)

    def interrupt():
        wait_for(terminal, "4 of 10")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), line:
        interrupt()
    assert threading.active_count() == before
    assert terminal.getvalue().endswith("\r\033[K")


def test_lines_of_several_threads_are_not_mixed_up(monkeypatch):
    class Slow(io.StringIO):
        def write(self, text):
            time.sleep(0.0005)  # another thread's turn
            return super().write(text)

    log = Slow()
    monkeypatch.setattr(sys, "stderr", log)

    def talk():
        for _ in range(20):
            progress.announce("a whole line")

    threads = [threading.Thread(target=talk) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.getvalue() == "a whole line\n" * 80
