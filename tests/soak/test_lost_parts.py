"""What a cluster can lose in the middle of a night, and two nights at once: real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from pipelines.embed import EmbedConfig, run
from retrieval.index import open_index, read_index
from tests.conftest import photo_bytes
from tests.pipelines.logical_cluster import logical_cluster

pytestmark = pytest.mark.soak

SLOW = EmbedConfig(backbone="tests.fakes:slow", weights="none", labels="none", batch_size=4)
_RUN = """
import json
import sys
import pipelines.embed.executor as executor
import pipelines.embed.inputs as inputs
import pipelines.embed.job as job
from pipelines.embed import EmbedConfig
executor.BLOCK_ROWS = 8
inputs._SHARD_BYTES = 8 * 6
config = EmbedConfig(backbone="tests.fakes:slow", weights="none", labels="none", batch_size=4,
                     rebase=len(sys.argv) > 3)
print(json.dumps(job.run(sys.argv[1], sys.argv[2], config).to_json()))
"""


@pytest.fixture
def photos(tmp_path):
    """Sixty photos, each of a colour of its own, changed yesterday."""
    folder = tmp_path / "photos"
    folder.mkdir()
    yesterday = time.time() - 86_400
    for number in range(60):
        file = folder / f"{number:02d}.jpg"
        file.write_bytes(photo_bytes((4 * number, 255 - 4 * number, 99)))
        os.utime(file, (yesterday, yesterday))
    return folder


def check_whole(index, scratch, photos):
    """The index is what an undisturbed run makes."""
    run(str(photos), str(scratch), SLOW)
    ours, theirs = read_index(str(index)), read_index(str(scratch))
    assert ours.ids == theirs.ids
    assert len(ours.ids) == 60
    np.testing.assert_array_equal(ours.embeddings, theirs.embeddings)


def when_staged(index, count, act):
    """Do something as soon as so many receipts are there."""

    def wait():
        while len(list((index / "_staging").glob("*.json"))) < count:
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_node_that_is_lost(photos, tmp_path):
    index = tmp_path / "index"
    with logical_cluster() as cluster:
        cluster.add(num_cpus=2)
        lost = cluster.add(num_cpus=2)
        cluster.environment["RAY_ADDRESS"] = cluster.address
        killer = when_staged(index, 1, lambda: cluster.remove(lost))
        done = cluster.run(_RUN, str(photos), str(index), timeout_s=300)
        killer.join(1)
    assert not killer.is_alive()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["num_embedded"] == 60
    check_whole(index, tmp_path / "scratch", photos)


# Photos are decoded 32 at a time, so that there are two shards.
@pytest.mark.parametrize("count", [1, 2])
def test_a_driver_that_is_killed_while_shards_are_written(photos, tmp_path, count):
    index = tmp_path / "index"
    process = subprocess.Popen([sys.executable, "-c", _RUN, str(photos), str(index)])
    when_staged(index, count, process.kill).join(120)
    assert process.wait(30) == -signal.SIGKILL
    assert not (index / "_delta_log").exists()
    time.sleep(5)  # its workers see that it is gone
    staged = len(list((index / "_staging").glob("*.json")))
    assert staged >= count
    report = run(str(photos), str(index), SLOW).to_json()
    assert report["num_resumed"] >= 28 * count
    assert report["num_resumed"] + report["num_embedded"] == 60
    check_whole(index, tmp_path / "scratch", photos)


@pytest.mark.parametrize("rebase", [False, True])
def test_two_nights_at_once(photos, tmp_path, rebase):
    index = tmp_path / "index"
    command = [sys.executable, "-c", _RUN, str(photos), str(index), *(["rebase"] if rebase else [])]
    both = [subprocess.Popen(command, stdout=-1, stderr=-1) for _ in range(2)]
    ends = [(process.communicate(timeout=300), process.returncode) for process in both]
    codes = sorted(code for _, code in ends)
    assert codes == ([0, 0] if rebase else [0, 1]), ends
    if not rebase:
        (loser,) = (error.decode() for (_, error), code in ends if code)
        assert "another run has committed version 0 meanwhile" in loser
    assert open_index(str(index)).version == 0
    check_whole(index, tmp_path / "scratch", photos)
