"""A Ray with a job server and a token, in processes of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray._private.services import get_node_ip_address

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """A head node.

    Attributes:
        url: Of its job server.
        address: Of the cluster, HOST:PORT.
        client_address: Of the cluster, for Ray's client.
        token: Which it asks for.
        folder: Where Ray keeps its session.
    """

    url: str
    address: str
    client_address: str
    token: str
    folder: Path

    def environment(self, **changes):
        """That of a client: with the token, and a RAY_ADDRESS that is none; None takes one out."""
        mine = {"RAY_AUTH_TOKEN": self.token, "RAY_ADDRESS": "192.0.2.9:1", **changes}
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return plain | {name: value for name, value in mine.items() if value is not None}

    def start(self, *arguments, **changes):
        """Start `retrieval-cli submit` to this server; ends with `finish`."""
        command = [BIN / "retrieval-cli", "submit", "--address", self.url, *arguments]
        return subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(**changes),
        )

    def submit(self, *arguments, **changes):
        """Run `retrieval-cli submit` to its end; a CompletedProcess."""
        return finish(self.start(*arguments, **changes))


def finish(process, timeout=120):
    stdout, stderr = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def run_python(code, *arguments, **environment):
    """Run code in a process of its own: Ray reads its mode and its token once in a process."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
        env=plain | environment,
    )


@contextmanager
def job_server():
    """Start one, and leave nothing of it behind."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # its sockets need a short path
    token = f"token-{secrets.token_hex(24)}"
    cluster, dashboard, client = free_ports(3)
    options = {
        "port": cluster,
        "dashboard-port": dashboard,
        "ray-client-server-port": client,
        "dashboard-agent-listen-port": 0,
        "dashboard-host": "127.0.0.1",
        "include-dashboard": "true",
        "temp-dir": folder,
        "num-cpus": 2,
        "object-store-memory": 200_000_000,
        "labels": "role=driver",
    }
    command = [BIN / "ray", "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--{name}={value}" for name, value in options.items()]
    environment = {name: value for name, value in os.environ.items() if name[:4] != "RAY_"} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_niceness": "0",
        "PYTHONPATH": str(ROOT),  # for tests.fakes
    }
    start_log = folder / "start.log"
    with start_log.open("w") as log:
        process = subprocess.Popen(
            list(map(str, command)), stdout=log, stderr=log, env=environment, cwd=folder
        )
    try:
        url = f"http://127.0.0.1:{dashboard}"
        # The dashboard answers before there is a node; that one comes late on a busy machine.
        wait_until(lambda: "Ray runtime started" in start_log.read_text(), 150, process)
        wait_until(lambda: answers(url, token), 60, process)
        at = f"{get_node_ip_address()}:{cluster}", f"ray://127.0.0.1:{client}"
        yield Head(url, *at, token, folder)
    finally:
        end(process)
        shutil.rmtree(folder)


def free_ports(count):
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def answers(url, token):
    request = urllib.request.Request(
        f"{url}/api/version", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        return urllib.request.urlopen(request, timeout=5).status == 200
    except OSError:
        return False


def end(process):
    """End a head and all that it has started; a raylet with actors waits half a minute for them."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=3)
    for one in alive:
        one.kill()
    _, alive = psutil.wait_procs(family, timeout=30)
    process.wait(30)
    assert not alive


def wait_until(is_so, seconds, process=None):
    """Wait for something, as long as a process runs."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert process is None or process.poll() is None, "the process has ended"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
