"""The report alone on stdout, whoever prints; closed, full or unread streams end no job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines.progress import announce, progress_line, status_line
from tests.conftest import make_index

CLI = str(Path(sys.executable).with_name("retrieval-cli"))

# A command whose job is another function: what it does is done within the whole command line.
AS_JOB = """
import ctypes, logging, os, subprocess, sys, types, warnings
from retrieval import maintenance
from pipelines.cli import main

def job(index):
    {body}
    return types.SimpleNamespace(to_json=lambda: {{"index": index}})

maintenance.describe_index = job
main(["status", {index!r}])
"""
NOISE = """
    print("python")
    sys.stdout.write("a part of a line")
    os.write(1, b"descriptor") if {is_said} else None
    ctypes.CDLL(None).printf(b"buffered by C")
    subprocess.run(["echo", "child"])
    print("error", file=sys.stderr)
    warnings.warn("a warning")
    logging.getLogger("anybody").error("logged")
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    path = tmp_path_factory.mktemp("streams") / "index"
    make_index(path, ["x"], np.ones((1, 4), np.float16))
    return path


def shell(command, **settings):
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60, **settings
    )


def noisy(index, *, is_said=True):
    return AS_JOB.format(body=NOISE.format(is_said=is_said), index=index)


def test_what_others_print_goes_to_stderr():
    command = [sys.executable, "-c", noisy("an index")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"index": "an index"}), done.stderr
    for said in ("python", "a part of a line", "descriptor", "buffered by C", "child", "error"):
        assert said in done.stderr


DEAD_LOGS = {"closed": "2>&-", "full": "2>/dev/full", "unread": "2> >(true)", "no stdin": "<&-"}


@pytest.mark.parametrize("dead", DEAD_LOGS.values(), ids=DEAD_LOGS.keys())
def test_a_log_that_takes_nothing_costs_no_report(dead, index):
    done = shell(f'sleep 0.1; "{CLI}" status {index} {dead}')
    assert done.returncode == 0
    assert json.loads(done.stdout)["rows"] == 1


@pytest.mark.parametrize("dead", DEAD_LOGS.values(), ids=DEAD_LOGS.keys())
def test_nor_does_whatever_a_job_says(dead):
    done = shell(
        f'"{sys.executable}" -c "$SCRIPT" {dead}',
        env={**os.environ, "SCRIPT": noisy("an index", is_said=False)},
    )
    assert (done.returncode, json.loads(done.stdout)) == (0, {"index": "an index"})


DEAD_STDOUTS = {
    "full": (">/dev/full", "No space left on device"),
    "closed": (">&-", "it is closed"),
    "unread": ("> >(true)", "Broken pipe"),
}


@pytest.mark.parametrize(("dead", "reason"), DEAD_STDOUTS.values(), ids=DEAD_STDOUTS.keys())
def test_a_report_that_cannot_be_written_is_one_line(dead, reason, index):
    done = shell(f'"{CLI}" status {index} {dead}')
    assert (done.returncode, done.stderr) == (
        1,
        f"Error: stdout: the report cannot be written ({reason}). Run the same command again with "
        f"another stdout.\n",
    )
    vacuum = shell(f'"{CLI}" vacuum {index} {dead}')
    told = f"({reason}). The job is done, and its result is in {index}.\n"
    assert (vacuum.returncode, vacuum.stderr) == (
        1,
        f"Error: stdout: the report cannot be written {told}",
    )


@pytest.mark.parametrize("arguments", ["--help", "rank --help", "--version", "nope"])
@pytest.mark.parametrize("stdout", [dead for dead, _ in DEAD_STDOUTS.values()])
def test_no_stream_brings_a_traceback(arguments, stdout):
    one = shell(f'"{CLI}" {arguments} {stdout}')
    assert one.returncode in (0, 1, 2)
    assert "Traceback" not in one.stderr
    assert "Exception" not in one.stderr
    both = shell(f'"{CLI}" {arguments} {stdout} {stdout.replace(">", "2>", 1)} <&-')
    assert both.returncode == one.returncode


def test_help_cut_short_is_no_fault():
    done = shell(f'set -o pipefail; "{CLI}" rank --help | head -1')
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage:")


def test_a_file_that_is_opened_is_never_what_stderr_was(tmp_path):
    """With stderr closed the first file that is opened gets its number, and what C prints."""
    body = f"""
    with open({str(tmp_path / "file")!r}, "w") as stream:
        os.write(2, b"noise")
"""
    script = AS_JOB.format(body=body, index="i")
    done = shell(f'"{sys.executable}" -c "$SCRIPT" 2>&-', env={**os.environ, "SCRIPT": script})
    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize(("locale", "coding"), [("C", ""), ("C.UTF-8", "ascii"), ("C", "latin-1")])
def test_a_report_is_utf_8_whatever_the_locale_and_the_names(locale, coding):
    name = "gallery-ü-\N{GRINNING FACE}"
    body = 'index += "-\\udcff"; print(index)'  # as of a file's name in a record
    script = AS_JOB.format(body=body, index=name)
    environment = {**os.environ, "LC_ALL": locale, "PYTHONIOENCODING": coding}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("utf-8")) == {"index": f"{name}-\udcff"}
    assert "ü" in done.stdout.decode("utf-8")


class Dead:
    """A stream that takes nothing."""

    def __init__(self, error):
        self._error = error

    def isatty(self):
        return True

    def write(self, text):
        raise self._error

    flush = write


@pytest.mark.parametrize(
    "stream", [None, Dead(BrokenPipeError(32, "Broken pipe")), Dead(ValueError("closed file"))]
)
def test_progress_that_cannot_be_shown_ends_no_job(monkeypatch, capsys, stream):
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("pipelines.progress._EVERY_S", 0.01)
    with status_line("working"), progress_line("embedded", "photos", 2, lambda: 1):
        announce("said")
        time.sleep(0.05)
    assert capsys.readouterr().out == ""  # print(file=None) would be heard here
