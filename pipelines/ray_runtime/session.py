"""The one door to Ray: connect, and turn what Ray raises back into our errors."""

from __future__ import annotations

import gc
import io
import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from pipelines.progress import status_line
from pipelines.ray_runtime.auth import admit
from pipelines.ray_runtime.cluster_options import Site
from pipelines.ray_runtime.code_paths import (
    WorkersImportAsTheDriver,
    no_folder_of_uv,
    starting_here,
)
from pipelines.ray_runtime.nodes import LOCAL_CPUS, local_store_bytes, resources
from pipelines.ray_runtime.wait import wait_for_nodes
from retrieval.errors import ClusterError, RetrievalError
from retrieval.private_folder import private_folder

__all__ = ["quiet_data", "session", "temp_folder"]

_ACTORS_START_S = 600  # torch and a network, on a machine that has just come

# For a Ray that this process starts; a user's own setting wins.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no ping to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default; silences its warning
    # Each epoch of a training is a Ray Data job of its own. Its workers are kept for the next
    # one: by default those above one a CPU end after a second, and starting one takes seconds.
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
    # Its C++ side otherwise prints a harmless line per actor pool (ray-project/ray#57733).
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


@contextmanager
def session(site: Site = Site(), *, waits: bool = True) -> Iterator[None]:
    """Run a job on Ray; leaves a Ray that was already connected as it is.

    Args:
        site: The cluster, and the nodes that are waited for. A Ray of this process alone ends
            with it.
        waits: Whether to wait for the nodes; not so where nothing is to run.

    Raises:
        ClusterError: the cluster cannot be reached, it is not loopback and there is no token, its
            nodes do not come, or Ray gave up.
        RetrievalError: what a worker raised, as if it had been raised here.
    """
    if ray.is_initialized():
        # A job before this one may have left a cycle of dataset, executor and error behind, which
        # keeps its actors and their CPUs until Python happens to look for cycles: we would wait.
        gc.collect()
        with _our_errors():
            if waits:
                wait_for_nodes(site)
            yield
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    address = site.address or os.environ.get("RAY_ADDRESS")
    if address:
        admit(address)
    with redirect_stdout(_RayMessages()):  # a thread of Ray's prints from the first moment
        _connect(address)
        try:
            with _our_errors():
                if waits:
                    wait_for_nodes(site, can_grow=bool(address))
                yield
        finally:
            ray.shutdown()


def _connect(address: str | None) -> None:
    """Connect to a cluster, or start a Ray of this process alone; SIGTERM stays what it was."""
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        with status_line("connecting to Ray" if address else "starting Ray"), _no_native_stderr():
            _start(address)
    except (OSError, RuntimeError, ValueError) as error:
        where = address or "on this machine"
        raise ClusterError(
            f"Ray {where}: cannot be reached ({str(error).splitlines()[0]}). Check the address, "
            f"and that RAY_AUTH_MODE and RAY_AUTH_TOKEN are set as on the cluster."
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray's own prints a stack and exits


def _start(address: str | None) -> None:
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    # Its errors are raised as well, without the pages of stack that it logs.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    no_folder_of_uv()
    if address:
        ray.init(address=address, job_config=WorkersImportAsTheDriver(), **quiet)
        return
    # Ray protects a local cluster by a token. One of its own for this process needs no
    # writable HOME. (The mode itself must be left to ray.init: set here it comes too late.)
    # Without one, whoever reaches this machine could run code in it: its ports are open to all.
    os.environ.pop("RAY_AUTH_MODE", None)
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with starting_here():
        ray.init(
            address="local",
            num_cpus=LOCAL_CPUS,
            object_store_memory=local_store_bytes(),
            include_dashboard=False,
            _temp_dir=temp_folder(),
            job_config=WorkersImportAsTheDriver(),
            **quiet,
        )


class _RayMessages(io.TextIOBase):
    """Where Ray's own messages go: to stderr, for they would spoil the report on stdout."""

    # Said of any small machine where a few actors live beside the tasks.
    _HARMLESS = "worker processes have been started on node"

    def __init__(self) -> None:
        self._is_dropped = False

    def write(self, text: str) -> int:
        """Pass on all but the harmless; what ends a line comes in a call of its own."""
        if text != "\n":
            self._is_dropped = self._HARMLESS in text
        if not self._is_dropped:
            sys.stderr.write(text)
        return len(text)


@contextmanager
def _no_native_stderr() -> Iterator[None]:
    """Drop what Ray's C++ side prints while it starts; its errors come as exceptions."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


@contextmanager
def _our_errors() -> Iterator[None]:
    """Raise the RetrievalError inside what Ray wrapped around it."""
    try:
        yield
        return
    except RayError as error:
        ours = _inner_error(error)
    # Outside the handler: as its context the old error would keep the job's frames alive, and
    # through them actors that book CPUs which the next job on this Ray needs.
    raise ours


def _inner_error(error: RayError) -> RetrievalError:
    cause: BaseException | None = error
    # Ray's wrapper poses as a subclass of what it wraps; only the inner one is ours.
    while cause is not None:
        if isinstance(cause, RetrievalError) and not isinstance(cause, RayError):
            # Ray appends lines of advice on retries to the message of what it wrapped.
            return type(cause)(str(cause).splitlines()[0])
        cause = getattr(cause, "cause", None) or cause.__cause__
    if isinstance(error, GetTimeoutError) and "starting actors" in str(error):
        return ClusterError(
            f"Ray: not all actors of this job have started within {_ACTORS_START_S} s: most "
            f"likely other jobs hold the GPUs that it needs. Nothing was published. Run it again "
            f"when they are free, or look at what holds them: ray status -v."
        )
    inner = getattr(error, "cause", None) or error
    what = (str(inner).strip().splitlines() or [""])[0]
    return ClusterError(
        f"Ray gave up: {type(inner).__name__}: {what}. Nothing was published; the whole story is "
        f"in Ray's logs (/tmp/ray/session_latest/logs of the machine it happened on)."
    )


def quiet_data(site: Site, *, in_order: bool = False, actors_first: bool = False) -> None:
    """Set Ray Data up for our jobs: our own progress line, our own errors, our nodes.

    Args:
        site: All tasks and actors of Ray Data keep to the nodes with its labels.
        in_order: Whether batches come out in the order of their rows.
        actors_first: Whether tasks wait until all actors run, so that they cannot take the
            CPUs that these book.
    """
    from ray.data import (  # not for `rank`: it takes as long to load as Ray itself
        DataContext,
        ExecutionResources,
    )

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # ours, not Ray's wrapper, which loses it
    context.execution_no_progress_timeout_s = 600  # a stuck job ends; Ray's default is 30 min
    context.execution_options.preserve_order = in_order
    context.execution_options.label_selector = dict(site.labels) or None
    context.wait_for_min_actors_s = _ACTORS_START_S if actors_first else -1
    limits = ExecutionResources.for_limits()
    if site.labels:  # else it would fill the object stores of these nodes by the size of all
        there = resources(site)
        store_bytes = sum(node.store_bytes for node in there.nodes) // 2  # as Ray Data does
        limits = ExecutionResources.for_limits(there.num_cpus, there.num_gpus, store_bytes)
    context.execution_options.resource_limits = limits


_SOCKET = "/session_2026-01-31_12-00-00_000000_4194304/sockets/plasma_store.10"
_MAX_BYTES = 107 - len(_SOCKET)
_PROBE_BYTES = 2**16  # more than a disk without room still takes


def temp_folder() -> str:
    """A folder for Ray's sockets and logs, which is there: RAY_TMPDIR's, TMPDIR's, or our own.

    A path of a socket has at most 107 bytes, and Slurm's TMPDIR is long. Ray's own choice may
    also be somebody else's, as /tmp/ray of the first user of a machine.

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
