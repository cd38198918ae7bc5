"""ctrl-C and SIGTERM: one line and a shell's exit code, whatever they hit, once or again."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from pipelines.cli import INTERRUPTED

# A command whose job is another function: what it does is done within the whole command line.
AS_JOB = """
import atexit, sys, time
from retrieval import maintenance
from pipelines.cli import main

def ready():
    print("ready", file=sys.stderr, flush=True)

def job(index):
    {body}

maintenance.describe_index = job
main(["status", "index"])
"""
# What a signal may hit, and how many must come until nothing is left to hit.
HITS = {
    "work": ("ready(); time.sleep(60)", 1),
    "an import that makes another error of it": (
        """
    try:
        ready(); time.sleep(60)
    except BaseException:
        raise ImportError("numpy.core.multiarray failed to import")""",
        1,
    ),
    "a handler of somebody's that only passes": (
        """
    try:
        ready(); time.sleep(60)
    except BaseException:
        raise OSError("a cluster that has gone")""",
        1,
    ),
    "the cleaning up": (
        """
    try:
        ready(); time.sleep(60)
    finally:
        ready(); time.sleep(60)""",
        2,
    ),
    "a destructor": (
        """
    class Slow:
        def __del__(self):
            ready(); time.sleep(60)
    slow = Slow()
    del slow
    ready(); time.sleep(60)""",
        2,
    ),
    "the end of the process": (
        """
    atexit.register(lambda: (ready(), time.sleep(60)))
    ready(); time.sleep(60)""",
        2,
    ),
}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(("body", "num_signals"), HITS.values(), ids=HITS.keys())
def test_a_signal_is_one_line_and_its_exit_code(body, num_signals, number, code):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # children inherit SIG_IGN
    command = [sys.executable, "-c", AS_JOB.format(body=body)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    told = ""
    with subprocess.Popen(command, **pipes) as process:
        signal.signal(signal.SIGINT, before)
        try:
            for _ in range(num_signals):
                while (line := process.stderr.readline()) != "ready\n":
                    assert line, told
                    told += line
                process.send_signal(number)
            output, rest = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == code
    assert (output, told + rest) == ("", f"Error: {INTERRUPTED}\n")


def test_a_signal_after_the_command_ends_the_process_at_once():
    """As while Python waits for threads or frees what is left."""
    ending = """
try:
    main(["status", "index"])
finally:
    ready(); time.sleep(60)
"""
    answer = 'return type("Status", (), {"to_json": lambda self: {}})()'
    script = AS_JOB.format(body=answer).replace('main(["status", "index"])\n', ending)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # children inherit SIG_IGN
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", script], **pipes) as process:
        signal.signal(signal.SIGINT, before)
        try:
            assert process.stderr.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            output, told = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, output, told) == (130, "{}\n", "")
