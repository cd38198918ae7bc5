"""A faulty store for one test: the proxy of faulty_store.py before an S3 server, and its remote."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


class FaultyStore:
    """What goes wrong in the store, set and counted.

    Attributes:
        uri: A folder of the test's own in the bucket.
        url: Where the proxy listens.
    """

    def __init__(self, uri, url):
        self.uri, self.url = uri, url

    def set(self, *rules, seed=0, rate=0.0):
        """Let go wrong what rules say and, by a seed, a share of the rest; counts begin anew."""
        self._ask({"seed": seed, "rate": rate, "rules": rules})

    def fail(self, action, method="", substring="", count=1, skip=0):
        """Let only this go wrong: the next requests that fit; None for all of them."""
        rule = {"action": action, "method": method, "substring": substring}
        self.set({**rule, "count": count, "skip": skip})

    def told(self):
        """Counts: "faults" by action, "requests" by method, "bytes" up and down."""
        return self._ask()

    def faults(self):
        return self.told()["faults"]

    def _ask(self, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/_faults", data=data)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def faulty_store(s3, folder, *, patience_s=60):
    """Stand between the clients of this process and the S3 server while the body runs.

    Args:
        s3: The bucket of the fixture `s3`.
        folder: In the bucket.
        patience_s: About how long clients try again.
    """
    # The clients of the proxy are others than those of the server: they find it by the
    # environment, when they are made.
    from retrieval.storage import clients

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    upstream = os.environ["AWS_ENDPOINT_URL"]
    command = [sys.executable, "-m", "tests.faulty_store", "--upstream", upstream]
    with (
        subprocess.Popen([*command, "--port", str(port)], cwd=ROOT) as proxy,
        pytest.MonkeyPatch.context() as patch,
    ):
        try:
            patch.setenv("AWS_ENDPOINT_URL", url)
            clients._object_store.cache_clear()
            patch.setattr(clients, "_RETRY_S", patience_s)
            patch.setattr(clients, "_MAX_ATTEMPTS", int(math.log2(patience_s / 0.025)))
            store = FaultyStore(f"{s3}/{folder}", url)
            _wait(proxy, store)
            yield store
        finally:
            proxy.terminate()
            clients._object_store.cache_clear()


def _wait(proxy, store):
    deadline = time.monotonic() + 30
    while proxy.poll() is None and time.monotonic() < deadline:
        try:
            store.told()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the proxy does not answer at {store.url} (exit code {proxy.poll()})")
