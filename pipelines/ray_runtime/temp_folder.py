"""Where a Ray of this process keeps its sockets and logs: a short folder that may be written.

A path of a socket has at most 107 bytes, and Slurm's TMPDIR is long. Ray's own choice may also be
somebody else's, as /tmp/ray of the first user of a machine.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from retrieval.errors import ClusterError
from retrieval.private_folder import private_folder

__all__ = ["temp_folder"]

_SOCKET = "/session_2026-01-31_12-00-00_000000_4194304/sockets/plasma_store.10"
_MAX_BYTES = 107 - len(_SOCKET)
_PROBE_BYTES = 2**16  # more than a disk without room still takes


def temp_folder() -> str:
    """A folder for Ray's sockets and logs, which is there: RAY_TMPDIR's, TMPDIR's, or our own.

    Raises:
        ClusterError: RAY_TMPDIR names none that Ray could use, or there is none.
    """
    named = os.environ.get("RAY_TMPDIR")
    wanted = Path(named or os.environ.get("TMPDIR") or "/tmp", "ray").absolute()  # noqa: S108
    fault = _fault(wanted)
    if fault is None:
        return str(wanted)
    if named is None:
        for parent in ("/tmp", tempfile.gettempdir(), "/dev/shm"):  # noqa: S108
            own = private_folder("ray", parent)
            if own is not None and _fault(own) is None:
                return str(own)
    raise ClusterError(
        f"Ray on this machine: {wanted} cannot hold its sockets and logs ({fault}). Set RAY_TMPDIR "
        f"to a folder that you may write to, of at most {_MAX_BYTES - len('/ray')} bytes."
    )


def _fault(folder: Path) -> str | None:
    """Why Ray could not work in a folder; makes the folder."""
    num_bytes = len(os.fsencode(folder))
    if num_bytes > _MAX_BYTES:
        return f"its path has {num_bytes} bytes"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None
