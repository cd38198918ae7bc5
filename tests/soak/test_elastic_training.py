"""A training whose nodes come and go: by one worker, then by two, then by one again.

The nodes have no GPU, which torch would look for; a worker books as many CPUs as only one of them
finds on a node.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict
from itertools import groupby

import pytest

from pipelines.ray_runtime.cluster_options import Site
from pipelines.train import TrainConfig, run
from tests.pipelines.logical_cluster import logical_cluster
from tests.training import draw_photos

pytestmark = pytest.mark.soak

CODE = "from tests.pipelines import placed\nplaced.main()"
# As in tests/pipelines/placed.py, without its sleep.
STEADY = TrainConfig(
    backbone="tests.training:plain", weights="none", epochs=60, batch_size=7, image_size=32,
    optimizer="sgd", dropout=0.0,
)  # fmt: skip


def epochs_of(model):
    file = model / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def wait_until(condition):
    deadline = time.monotonic() + 240
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)


def test_nodes_that_come_and_go_change_the_workers_and_not_the_model(tmp_path):
    photos, model = draw_photos(tmp_path / "photos"), tmp_path / "model"
    with logical_cluster() as cluster:
        cluster.add(num_cpus=3)

        def come_and_go():
            wait_until(lambda: epochs_of(model))
            guest = cluster.add(num_cpus=3)  # Ray looks for more every 60 s
            wait_until(lambda: epochs_of(model)[-1]["num_workers"] == 2)
            cluster.remove(guest)

        thread = threading.Thread(target=come_and_go)
        thread.start()
        wish = json.dumps(asdict(Site(cluster.address)))
        done = cluster.run(CODE, "train_elastically", str(tmp_path), wish, timeout_s=300)
        thread.join()
    assert done.returncode == 0, done.stderr
    run(str(photos), str(tmp_path / "steady"), STEADY)
    found, expected = epochs_of(model), epochs_of(tmp_path / "steady")
    changes = [workers for workers, _ in groupby(epoch["num_workers"] for epoch in found)]
    assert changes == [1, 2, 1]
    for epoch, steady in zip(found, expected, strict=True):
        assert epoch["epoch"] == steady["epoch"]
        for name in ("loss", "accuracy", "validation_loss", "validation_accuracy", "top_1"):
            assert epoch[name] == pytest.approx(steady[name], rel=1e-4), (epoch["epoch"], name)
    print(f"\n{len(found)} epochs, by {', '.join(map(str, changes))} workers")
