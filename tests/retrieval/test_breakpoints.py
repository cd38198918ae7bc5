"""A place ends the process when the environment names it, and never else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

SCRIPT = """
from retrieval.failpoints import reached
for number in range(4):
    reached("other")
    print(number, flush=True)
    reached("here")
"""


@pytest.mark.parametrize(
    ("wanted", "printed"),
    [(None, "0123"), ("", "0123"), ("nowhere", "0123"), ("here", "0"), ("here:3", "012")],
)
def test_the_process_ends_at_the_place_that_is_named(wanted, printed):
    environment = {**os.environ, "RETRIEVAL_BREAKPOINT": wanted or ""}
    if wanted is None:
        del environment["RETRIEVAL_BREAKPOINT"]
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.stdout.split() == list(printed)
    assert ended.returncode == (0 if printed == "0123" else -signal.SIGKILL)
