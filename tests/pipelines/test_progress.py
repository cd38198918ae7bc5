"""The line on a terminal, and its absence in a log."""

from __future__ import annotations

import io
import sys
import time

import pytest

from pipelines import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_the_line_grow_and_vanish(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "_EVERY_S", 0.01)
    with progress.progress_line("embedded", "photos", 10, lambda: 4):
        deadline = time.monotonic() + 10
        while "4 of 10" not in terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    drawn = terminal.getvalue().split("\r\033[K")
    assert drawn[1] == "embedded 0 of 10 photos"
    assert any(line.startswith("embedded 4 of 10 photos, ") for line in drawn)
    assert drawn[-1] == ""


def test_a_log_sees_nothing(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress.progress_line("ranked", "shares", 3, lambda: 1), progress.status_line("a"):
        pass
    assert log.getvalue() == ""


def test_the_line_is_wiped_away_when_the_body_fails(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(KeyError), progress.status_line("loading"):
        raise KeyError
    assert terminal.getvalue() == "\r\033[Kloading\r\033[K"
