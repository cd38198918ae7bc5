"""Stores whose client may end or stop its process are tried in another process first.

Arrow's client of Azure aborts where it finds no credentials, and that of HDFS starts a Java
machine: a worker that met such an address would die, and the next one after it, without end. The
clients of S3 and of Google answer with an error, and are used at once.
"""

from __future__ import annotations

import subprocess
import sys
from threading import Lock

from retrieval.errors import StorageError

__all__ = ["check_store_answers"]

_TRIED_FIRST = frozenset({"abfs", "abfss", "hdfs", "viewfs"})
_TRIAL_S = 60.0
_TRIAL = """
import sys
import pyarrow.fs
try:
    store, path = pyarrow.fs.FileSystem.from_uri(sys.argv[1])
    store.open_input_stream(path).read(1)
except Exception:
    pass  # an answer, which whoever asks in earnest gets too
"""
_one_at_a_time = Lock()
_tried: dict[str, str] = {}


def check_store_answers(uri: str) -> None:
    """Find out whether asking a store would end or stop this process.

    Costs a second for each container; nothing for what is local, on s3:// or on gs://.

    Args:
        uri: Of a file; the first one of a bucket or container decides for all of them.

    Raises:
        StorageError: its client ended the other process, or gave no answer in a minute.
    """
    scheme, _, rest = uri.partition("://")
    if scheme not in _TRIED_FIRST:
        return
    with _one_at_a_time:
        problem = _tried.get(store := f"{scheme}://{rest.partition('/')[0]}")
        if problem is None:
            problem = _tried[store] = _try(uri)
    if problem:
        raise StorageError(f"{uri}: the client of {scheme}:// {problem}.")


def _try(uri: str) -> str:
    """What is wrong; empty if nothing is."""
    try:
        exit_code = subprocess.run(  # noqa: S603 - our own program; the address is its argument
            [sys.executable, "-P", "-c", _TRIAL, uri],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TRIAL_S,
            check=False,
        ).returncode
    except subprocess.TimeoutExpired:
        return f"gives no answer in {_TRIAL_S:g} s"
    return f"ends its process (exit code {exit_code}), as without credentials" if exit_code else ""
