"""Many ranking jobs on one Ray: nothing grows, and eight at once do not lock each other."""

from __future__ import annotations

import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from pipelines import rank
from pipelines.ray_runtime.cluster_options import Site
from tests.conftest import make_index
from tests.soak.rankings import CONFIG, rows_of

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

NUM_JOBS = int(os.environ.get("RETRIEVAL_JOBS", "200"))  # at least 40, for four quarters
AT_ONCE = 8


@pytest.fixture(scope="module")
def ray_address():
    """A Ray of two CPUs that outlives its jobs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Not in pytest's folder: the paths of Ray's sockets must be short.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(16))
        patch.setenv("RAY_TMPDIR", folder)
        command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block"]
        command += [f"--port={port}", "--num-cpus=2", "--node-ip-address=127.0.0.1"]
        command += ["--include-dashboard=false", "--disable-usage-stats"]
        log = Path(folder) / "log"
        with log.open("w") as output, subprocess.Popen(command, stdout=output) as process:
            while "Ray runtime started" not in log.read_text():
                assert process.poll() is None, log.read_text()
                time.sleep(0.2)
            try:
                yield f"127.0.0.1:{port}", process.pid
            finally:
                process.terminate()


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("sides"), np.random.default_rng(0)
    for name, rows in (("queries", 20), ("gallery", 400)):
        vectors = rng.standard_normal((rows, 16)).astype(np.float16)
        make_index(folder / name, [f"{name}{row}" for row in range(rows)], vectors, num_shards=4)
    return folder


def total(point, part):
    return sum(figures[part] for figures in point.values())


def test_many_jobs_one_after_the_other(ray_address, sides, tmp_path):
    address, ray_pid = ray_address
    paths = [sides / "queries", sides / "gallery", tmp_path / "ranking"]
    command = [sys.executable, "-m", "tests.soak.rankings", address, ray_pid, *paths, NUM_JOBS]
    seen = []
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as jobs:
        for line in jobs.stdout:
            number, point = json.loads(line)
            mib, files = total(point, 0) / 2**20, total(point, 1)
            print(f"  {number} jobs: {mib:.0f} MiB, {files} open files", flush=True)
            seen.append(point)
    assert jobs.returncode == 0
    for name, (memory, _) in seen[-1].items():
        print(f"  {name}: {seen[0].get(name, (0, 0))[0] / 2**20:.0f} → {memory / 2**20:.0f} MiB")
    early, late = seen[len(seen) // 4 : len(seen) // 2], seen[-len(seen) // 4 :]
    for part, slack in ((0, 1.10), (1, 1.05)):  # memory, open files
        before = statistics.median(total(point, part) for point in early)
        after = statistics.median(total(point, part) for point in late)
        assert after <= before * slack, (before, after)


def test_eight_jobs_at_once(ray_address, sides, tmp_path):
    address, _ = ray_address
    queries, gallery = str(sides / "queries"), str(sides / "gallery")
    rank.run(queries, gallery, str(tmp_path / "alone"), CONFIG, site=Site(address))
    command = [sys.executable, "-m", "pipelines.cli", "rank", queries, gallery]
    options = ["--top-k", "5", "--num-actors", "2", "--address", address]
    jobs = [
        subprocess.Popen([*command, str(tmp_path / f"{number}"), *options], stdout=-1, stderr=-1)
        for number in range(AT_ONCE)
    ]
    try:
        said = [job.communicate(timeout=600) for job in jobs]
    finally:
        for job in jobs:
            job.kill()
            job.wait()
    assert [job.returncode for job in jobs] == [0] * AT_ONCE, said
    for number, (out, _) in enumerate(said):
        assert json.loads(out)["num_rows"] == 100
        assert rows_of(str(tmp_path / f"{number}")) == rows_of(str(tmp_path / "alone"))
