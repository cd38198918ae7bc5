"""The command line of `rank`, in this process and in one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner

from pipelines.cli import main
from tests.retrieval.ranks import marks_of

CLI = str(Path(sys.executable).with_name("retrieval-cli"))


def invoke(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


@contextmanager
def started(arguments, ranking, num_parts):
    """A process of the command line that has written some parts; killed at the end."""
    # Where the tests run in the background of a shell, their children would ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [CLI, *map(str, arguments)], start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
    )  # fmt: skip
    signal.signal(signal.SIGINT, before)
    try:
        deadline = time.monotonic() + 120
        while len(marks_of(ranking)) < num_parts and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
