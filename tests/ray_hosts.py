"""A Ray cluster whose nodes are hosts of their own, and an object store that is all they share."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hosts import SCRATCH, Host, Network

__all__ = ["BUCKET", "RayHosts", "report_of"]

REPOSITORY = Path(__file__).parents[1]
BUCKET = "s3://bucket"
_BIN = Path(sys.executable).parent
_RAY_PORT, _JOB_PORT, _STORE_PORT, _PROXY_PORT = 6379, 8265, 9000, 9001


class RayHosts:
    """A store, a head that runs no work, and workers; a context.

    Attributes:
        store: The host of the S3 server; jobs are submitted from there.
        head: The host of the head node; no CPU of it is Ray's.
        workers: The hosts that work.
        token: What every node and every client must show.
    """

    def __init__(
        self, logs: Path, *, num_workers: int = 2, num_cpus: int = 2, faults: str | None = None
    ) -> None:
        """Nothing starts yet.

        Args:
            logs: Folder for what Ray and the store say.
            num_workers: Hosts that work.
            num_cpus: Of each of them.
            faults: Options of `tests.faulty_store`, which then stands before the store.
        """
        self.token = secrets.token_hex(16)
        self._num_workers, self._num_cpus, self._faults = num_workers, num_cpus, faults
        self._network = Network(logs)

    def __enter__(self) -> RayHosts:
        self._network.__enter__()
        try:
            self._switch_on()
        except BaseException:
            self._network.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._network.__exit__()

    def _switch_on(self) -> None:
        self.store = self._network.add("store", **self._environment("10.77.0.1"))
        self._start_store()
        self.head = self._network.add("head", **self._environment(self.store.address))
        self.start_ray(self.head, num_cpus=0, is_head=True)
        self.workers = []
        for number in range(self._num_workers):
            self.workers.append(self.add_host(f"worker{number}"))
            self.start_ray(self.workers[-1], num_cpus=self._num_cpus)

    def add_host(self, name: str) -> Host:
        """One more host, without Ray."""
        return self._network.add(name, **self._environment(self.store.address))

    def _environment(self, store: str) -> dict[str, str]:
        port = _STORE_PORT if self._faults is None else _PROXY_PORT
        return {
            "PYTHONPATH": str(REPOSITORY),
            "PATH": f"{_BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "AWS_ENDPOINT_URL": f"http://{store}:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_TMPDIR": f"{SCRATCH}/ray",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        }

    def _start_store(self) -> None:
        server = ["python", "-m", "moto.server", "-H", "0.0.0.0", "-p", str(_STORE_PORT)]
        self.store.serve(*server)
        if self._faults is not None:
            proxy = ["python", "-m", "tests.faulty_store", "--host", "0.0.0.0"]
            proxy += ["--port", str(_PROXY_PORT)]
            proxy += ["--upstream", f"http://127.0.0.1:{_STORE_PORT}", *self._faults.split()]
            self.store.serve(*proxy)
        self.boto(
            "import time, botocore\n"
            "for attempt in range(100):\n"
            "    try: client.create_bucket(Bucket='bucket'); break\n"
            "    except botocore.exceptions.EndpointConnectionError: time.sleep(0.3)"
        )

    def boto(self, code: str, *arguments: str) -> str:
        """Run Python on the store's host, past the proxy, with a `client` of the store."""
        url = f"http://127.0.0.1:{_STORE_PORT}"
        start = f"import boto3, sys\nclient = boto3.client('s3', endpoint_url={url!r})\n"
        return self.store.run("python", "-c", start + code, *arguments)

    def start_ray(self, host: Host, *, num_cpus: int, is_head: bool = False) -> None:
        """Start Ray on a host and wait until it has joined."""
        command = ["ray", "start", "--block", f"--num-cpus={num_cpus}", "--disable-usage-stats"]
        command += [f"--node-ip-address={host.address}", "--object-store-memory=400000000"]
        if is_head:
            command += ["--head", f"--port={_RAY_PORT}", f"--temp-dir={SCRATCH}/ray"]
            command += [f"--dashboard-host={host.address}", f"--dashboard-port={_JOB_PORT}"]
        else:
            command += [f"--address={self.head.address}:{_RAY_PORT}"]
        host.serve(*command, until="Ray runtime started")

    def small_job(
        self, *verb: str, id: str | None = None, **variables: str
    ) -> subprocess.Popen[str]:
        """Start a command line with small parts as a job, by Ray's own command; its log is stdout.

        Args:
            verb: What follows `retrieval-cli`.
            id: Of the job.
            variables: Of the job's environment.
        """
        command = ["ray", "job", "submit", "--address", self.job_address, "--log-style=record"]
        if id is not None:
            command += ["--submission-id", id]
        if variables:
            command += ["--runtime-env-json", json.dumps({"env_vars": variables})]
        return self.store.start(*command, "--", "python", "-m", "tests.small_parts", *verb)

    def start_job(self, *verb: str) -> subprocess.Popen[str]:
        """Start a command line as a job, by our own command: its report is stdout."""
        return self.store.start(*self._submit, *verb)

    def submit(self, *verb: str, timeout: float = 600) -> dict[str, Any]:
        """Run a command line as a job, by our own command; returns its report."""
        return json.loads(self.store.run(*self._submit, *verb, timeout=timeout))

    @property
    def _submit(self) -> list[str]:
        return ["retrieval-cli", "submit", "--address", self.job_address, "--"]

    def wait_for(
        self, is_so: Callable[[], bool], process: subprocess.Popen[str], within_s: float = 180
    ) -> None:
        """Wait until something is so, while a process runs that has to bring it about."""
        deadline = time.monotonic() + within_s
        while not is_so():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                out, err = process.communicate()
                raise AssertionError(f"it did not come about\n{out}\n{err}")
            time.sleep(0.1)

    def upload(self, folder: Path, prefix: str) -> None:
        """Make the keys under a prefix those of a folder's files; what is the same stays."""
        self.boto(_UPLOAD, str(folder), prefix)

    def keys(self, prefix: str) -> list[str]:
        """The keys under a prefix, past the proxy."""
        return json.loads(self.boto(_KEYS, prefix))

    def look(self, module: str, *arguments: str) -> str:
        """Run a module on the store's host, past the proxy; what it says."""
        url = f"http://127.0.0.1:{_STORE_PORT}"
        return self.store.run("python", "-m", module, *arguments, AWS_ENDPOINT_URL=url)

    def faults(self) -> dict[str, int]:
        """What the proxy before the store has done so far, by kind."""
        code = (
            "import sys, urllib.request\nprint(urllib.request.urlopen(sys.argv[1]).read().decode())"
        )
        url = f"http://127.0.0.1:{_PROXY_PORT}/_faults"
        return json.loads(self.store.run("python", "-c", code, url))["faults"]

    def plug(self, host: Host, *, is_in: bool) -> None:
        """Pull a host's cable, or put it back."""
        self._network.plug(host, is_in=is_in)

    def power_on(self, worker: Host) -> None:
        """Start a worker that was off, and Ray on it."""
        worker.power_on()
        self.start_ray(worker, num_cpus=self._num_cpus)

    @property
    def job_address(self) -> str:
        """Of the job server."""
        return f"http://{self.head.address}:{_JOB_PORT}"


def report_of(log: str) -> dict[str, Any]:
    """The report in a job's log: the block from a line "{" to a line "}"."""
    start = log.index("\n{\n") + 1
    return json.loads(log[start : log.index("\n}\n", start) + 2])


_LISTED = """
import hashlib, json, pathlib
pages = client.get_paginator('list_objects_v2')
pages = pages.paginate(Bucket='bucket', Prefix=sys.argv[-1] + '/')
found = [item for page in pages for item in page.get('Contents', [])]
there = {item['Key']: item['ETag'].strip('"') for item in found}
"""
_KEYS = _LISTED + "print(json.dumps(sorted(there)))"
_UPLOAD = (
    _LISTED
    + """
folder, prefix = pathlib.Path(sys.argv[1]), sys.argv[2]
files = [file for file in folder.rglob('*') if file.is_file()]
wanted = {f'{prefix}/{file.relative_to(folder)}': file.read_bytes() for file in files}
for key, content in wanted.items():
    if there.get(key) != hashlib.md5(content).hexdigest():
        client.put_object(Bucket='bucket', Key=key, Body=content)
for key in there.keys() - wanted.keys():
    client.delete_object(Bucket='bucket', Key=key)
"""
)
