"""Several hosts on one machine, as far as Linux can tell them apart.

Each has a network, processes and mounts of its own: an address on a switch, its own list of
processes, a read-only view of the machine, and a few folders that it can write and nobody else
sees. Nothing is shared but the program and what goes over the switch. Needs root.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO

__all__ = ["SCRATCH", "Host", "Network", "why_not"]

# The only places where a host can write; in memory, and gone with it.
SCRATCH = "/mnt"
_PRIVATE = (SCRATCH, "/dev/shm")
# But for what Numba has compiled of the program: each host would compile it anew, for a minute.
_COMPILED = Path(__file__).parents[1] / "retrieval" / "search" / "__pycache__"
_KEEP = shlex.join(["mount", "--bind", str(_COMPILED), str(_COMPILED)])

# The first process of a host: prepares the mounts, then collects the children that lose their
# parents, as the first process of any system must.
_INIT = (
    f"set -e; {_KEEP}; mount -o remount,bind,ro /; "
    + "; ".join(f"mount -t tmpfs tmpfs {folder}" for folder in _PRIVATE)
    + f"; mkdir {SCRATCH}/home {SCRATCH}/tmp; echo ready; while :; do sleep 3600 & wait; done"
)


def why_not() -> str | None:
    """Why this machine cannot play several hosts, or None if it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"try-{uuid.uuid4().hex[:6]}"
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"network namespaces are not allowed here ({error})"
    _ip("netns", "del", name)
    return None


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


class Network:
    """A switch, and the hosts that hang on it; a context."""

    def __init__(self, logs: Path) -> None:
        """Nothing exists yet.

        Args:
            logs: Folder for what the hosts' servers say.
        """
        self._name = f"net-{uuid.uuid4().hex[:6]}"
        self._logs = logs
        self._hosts: list[Host] = []

    def __enter__(self) -> Network:
        _ip("netns", "add", self._name)
        for link in (["lo"], ["switch", "type", "bridge"]):
            if len(link) > 1:
                _ip("-n", self._name, "link", "add", *link)
            _ip("-n", self._name, "link", "set", link[0], "up")
        return self

    def __exit__(self, *error: object) -> None:
        for host in self._hosts:
            host.power_off()
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", host.namespace)
        _ip("netns", "del", self._name)

    def add(self, name: str, **environment: str) -> Host:
        """Switch on one more host; its processes see these variables."""
        number = len(self._hosts) + 1
        host = Host(f"{self._name}-{name}", f"10.77.0.{number}", environment, self._logs)
        cable = f"cable{number}"
        _ip("netns", "add", host.namespace)
        ends = ["peer", "name", "eth0", "netns", host.namespace]
        _ip("-n", self._name, "link", "add", cable, "type", "veth", *ends)
        _ip("-n", self._name, "link", "set", cable, "master", "switch", "up")
        for setting in (
            ["link", "set", "lo", "up"],
            ["addr", "add", f"{host.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
        ):
            _ip("-n", host.namespace, *setting)
        self._hosts.append(host)
        host.power_on()
        return host

    def plug(self, host: Host, *, is_in: bool) -> None:
        """Pull a host's cable, or put it back."""
        cable = f"cable{self._hosts.index(host) + 1}"
        _ip("-n", self._name, "link", "set", cable, "up" if is_in else "down")


class Host:
    """One host.

    Attributes:
        namespace: Name of its network namespace.
        address: On the switch.
        environment: What its processes see, and nothing else.
    """

    def __init__(
        self, namespace: str, address: str, environment: dict[str, str], logs: Path
    ) -> None:
        self.namespace, self.address = namespace, address
        home = {"HOME": f"{SCRATCH}/home", "TMPDIR": f"{SCRATCH}/tmp"}
        self.environment = {"PATH": os.environ["PATH"], **home, **environment}
        self._logs = logs
        self._init: subprocess.Popen[str] | None = None
        self._servers: list[subprocess.Popen[str]] = []

    def power_on(self) -> None:
        """Start its first process."""
        _COMPILED.mkdir(exist_ok=True)
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        self._init = subprocess.Popen(
            ["ip", "netns", "exec", self.namespace, *own, "sh", "-c", _INIT],
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._init.stdout.readline() != "ready\n":
            raise RuntimeError(f"{self.namespace}: the host did not start")

    def power_off(self) -> None:
        """As if its power were cut: every process ends at once, and its folders are gone."""
        if self._init is not None:
            self._init.kill()
            self._init.wait()
            self._init.stdout.close()
            self._init = None
        while self._servers:
            self._servers.pop().wait()

    def start(
        self, *command: str, output: int | IO[str] = subprocess.PIPE, **variables: str
    ) -> subprocess.Popen[str]:
        """Start a process on the host; its two streams are pipes, or go to a file."""
        (first,) = (
            Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        )
        inside = ["nsenter", "--target", first, "--mount", "--pid", "--net", f"--wd={SCRATCH}"]
        return subprocess.Popen(
            [*inside, *command],
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
        )

    def serve(self, *command: str, until: str = "", within_s: float = 120) -> None:
        """Start a process that ends with the host, and wait until it says something."""
        log = self._logs / f"{self.namespace}-{len(self._servers)}.log"
        with log.open("a") as output:
            server = self.start(*command, output=output)
        self._servers.append(server)
        deadline = time.monotonic() + within_s
        while until not in (said := log.read_text()):
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{shlex.join(command)}: did not start\n{said}")
            time.sleep(0.1)

    def run(self, *command: str, timeout: float = 300, **variables: str) -> str:
        """Run a process to its end; returns what it wrote to stdout, or fails with all it said."""
        process = self.start(*command, **variables)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{shlex.join(command)}: hangs\n{out}\n{err}") from None
        assert process.returncode == 0, f"{shlex.join(command)}: {process.returncode}\n{out}\n{err}"
        return out

    def processes(self, part: str) -> list[int]:
        """Ids, as this machine counts them, of the host's processes with this in their command."""
        found = subprocess.run(
            ["ip", "netns", "pids", self.namespace], check=True, capture_output=True, text=True
        )
        return [int(pid) for pid in found.stdout.split() if part in _command_of(int(pid))]

    def kill(self, part: str, *, at_most: int = 1, within_s: float = 60) -> list[int]:
        """Send SIGKILL to processes with this in their command, as soon as there is one."""
        deadline = time.monotonic() + within_s
        while not (found := self.processes(part)[:at_most]):
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.namespace}: no process {part!r} in {within_s} s")
            time.sleep(0.1)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except (OSError, UnicodeDecodeError):
        return ""
