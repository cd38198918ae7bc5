"""A Ray cluster of several nodes on this machine, with GPUs that are only counted.

In a process of its own, which ends the nodes when its standard input is closed: the tests beside
it have a Ray, with a token, of their own. Each line on its input adds a node or removes one.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
_STORE_BYTES = 100 * 2**20


class LogicalCluster:
    """The cluster as the tests see it.

    Attributes:
        address: For `Site`.
        environment: For a driver.
    """

    def __init__(self, process, environment):
        self._process = process
        self.environment = environment
        self.address = self._answer()

    def add(self, **node):
        """Add a node (num_cpus, num_gpus, labels); gives its id."""
        return self._ask({"add": node})

    def remove(self, node_id):
        self._ask({"remove": node_id})

    def run(self, code, *arguments, timeout_s=120):
        """Run some Python as a driver of its own; gives what it printed, and how it ended."""
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], env=self.environment, cwd=ROOT,
            capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def _ask(self, question):
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self):
        answer = self._process.stdout.readline()
        assert answer, self._process.wait(10)
        return json.loads(answer)


@contextmanager
def logical_cluster(**more):
    """A head that runs no work, and nothing else yet; `more` is in the environment of its nodes."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": "1",
        **more,
    }
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "tests.pipelines.logical_cluster"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, cwd=ROOT, text=True, **pipes) as process:
        try:
            yield LogicalCluster(process, environment)
        finally:
            process.stdin.close()
            process.wait(60)


def _serve():
    from ray.cluster_utils import Cluster

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no answer

    def answer(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    head = {"num_cpus": 0, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = {}
    try:
        answer(cluster.address)
        for line in sys.stdin:
            question = json.loads(line)
            if "add" in question:
                node = cluster.add_node(object_store_memory=_STORE_BYTES, **question["add"])
                nodes[node.node_id] = node
                answer(node.node_id)
            else:
                cluster.remove_node(nodes.pop(question["remove"]), allow_graceful=False)
                answer(None)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    _serve()
