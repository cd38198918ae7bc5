"""A photo that ends or stops its process costs that one photo; processes here really die."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retrieval.errors import ImageError, RetrievalError
from retrieval.images import Preprocessing, Reason
from retrieval.images import subprocess_decode as isolation
from retrieval.images.fetch import open_photo
from retrieval.images.subprocess_decode import IsolatedOpener
from tests.openers import (
    CRASHES,
    EXITS,
    HANGS,
    HOLDS_LOCK,
    PROCESS_ID,
    RAISES,
    STOPS,
    NotThere,
    Told,
    deadly,
)
from tests.retrieval.photos import encode, noise

ROOT = Path(__file__).parents[2]
SMALL = Preprocessing(size=8)
GOOD = [encode(noise(seed), "PNG") for seed in range(3)]
KILLED = "the decoder ended its process (SIGSEGV)"
LATE = "the decoder did not come to an end in 1 s"


def is_running(process_id):
    """Whether it is there and no zombie, which waits in vain for a parent that is gone."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(process_id):
    deadline = time.monotonic() + 20
    while is_running(process_id):
        assert time.monotonic() < deadline, f"process {process_id} is still there"
        time.sleep(0.05)


def child_of(opener):
    with pytest.raises(Told) as caught:
        opener.open(PROCESS_ID, SMALL)
    return caught.value.args[0]


def outcome(photo):
    pixels = None if photo.pixels is None else photo.pixels.tobytes()
    return {**vars(photo), "pixels": pixels}


def refused(content, reason, message):
    sha256 = hashlib.sha256(content).hexdigest()
    return {
        "sha256": sha256, "width": 0, "height": 0, "pixels": None,
        "reason": reason, "message": message,
    }  # fmt: skip


def test_good_and_refused_photos_come_out_as_without_isolation():
    contents = [*GOOD, b"", b"no photo", GOOD[0][:-30], ImageError(Reason.MISSING, "gone")]
    with IsolatedOpener(60) as opener:
        found = [outcome(opener.open(content, SMALL)) for content in contents]
    assert found == [outcome(open_photo(content, SMALL)) for content in contents]


@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        (CRASHES, Reason.CRASHED, KILLED),
        (EXITS, Reason.CRASHED, "the decoder ended its process (exit code 1)"),
        (HANGS, Reason.TIMED_OUT, LATE),
        (HOLDS_LOCK, Reason.TIMED_OUT, LATE),
    ],
    ids=["crashes", "exits", "hangs", "holds the interpreter's lock"],
)
def test_a_photo_that_ends_or_stops_its_process_costs_no_neighbour(content, reason, message):
    with IsolatedOpener(1, deadly) as opener:
        found = [opener.open(each, SMALL) for each in (GOOD[0], content, content, GOOD[1])]
    first, *bad, last = map(outcome, found)
    assert bad == [refused(content, reason, message)] * 2
    assert first == outcome(open_photo(GOOD[0], SMALL))
    assert last == outcome(open_photo(GOOD[1], SMALL))


def test_a_child_whose_own_watchdog_does_not_bite_is_killed(monkeypatch):
    monkeypatch.setattr(isolation, "_SLACK_S", 0.5)
    with IsolatedOpener(1, deadly) as opener:
        child = child_of(opener)
        assert outcome(opener.open(STOPS, SMALL)) == refused(STOPS, Reason.TIMED_OUT, LATE)
        assert not is_running(child)
        assert opener.open(GOOD[0], SMALL).reason is None


def test_one_child_serves_all_photos_until_one_ends_it_and_none_is_left():
    with IsolatedOpener(60, deadly) as opener:
        first = child_of(opener)
        assert first != os.getpid()
        opener.open(GOOD[0], SMALL)
        assert child_of(opener) == first
        opener.open(CRASHES, SMALL)
        second = child_of(opener)
    assert first != second
    assert not is_running(first)
    assert not is_running(second)


def test_a_child_that_was_killed_between_two_photos_is_not_the_next_one_s_fault():
    with IsolatedOpener(60, deadly) as opener:
        opener.open(GOOD[0], SMALL)
        child = opener._child.process
        child.kill()
        child.join()
        assert outcome(opener.open(GOOD[1], SMALL)) == outcome(open_photo(GOOD[1], SMALL))


def test_what_an_opener_raises_is_raised_and_the_next_photo_is_opened():
    with IsolatedOpener(60, deadly) as opener:
        with pytest.raises(ZeroDivisionError, match="a bug"):
            opener.open(RAISES, SMALL)
        assert opener.open(GOOD[0], SMALL).reason is None


def test_a_child_that_cannot_start_is_an_error_and_not_a_bad_photo():
    with (
        IsolatedOpener(60, NotThere()) as opener,
        pytest.raises(RetrievalError, match=r"did not start \(exit code 1\)\. Its own words"),
    ):
        opener.open(GOOD[0], SMALL)


def test_photos_larger_than_a_pipe_go_through():
    content = encode(noise(1, 600, 700), "BMP")  # 1.2 MB
    size = Preprocessing(size=500)
    with IsolatedOpener(60) as opener:
        assert outcome(opener.open(content, size)) == outcome(open_photo(content, size))


PARENT = """
import sys
from retrieval.errors import ImageError
from retrieval.images import Preprocessing
from retrieval.images.subprocess_decode import IsolatedOpener
from tests.openers import HANGS, PROCESS_ID, Told, deadly

opener = IsolatedOpener(3, deadly)
try:
    opener.open(PROCESS_ID, Preprocessing())
except Told as told:
    print(told.args[0], flush=True)
if sys.argv[1] == "hangs":
    opener.open(HANGS, Preprocessing())
sys.stdin.read()
"""


@pytest.mark.parametrize("state", ["waits", "hangs"])
def test_no_child_outlives_a_process_that_is_killed(state):
    # The child's words of its end go to stderr.
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-c", PARENT, state]
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as parent:
        child = int(parent.stdout.readline())
        time.sleep(0.5)  # until the photo that hangs is in the child's hands
        assert is_running(child)
        parent.send_signal(signal.SIGKILL)
    wait_until_gone(child)
