"""Several jobs on a cluster that is too small for them: each comes to its end."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest

from pipelines.ray_runtime.cluster_options import Site
from tests.conftest import draw_photos
from tests.pipelines.logical_cluster import logical_cluster
from tests.pipelines.placed import NOTES

pytestmark = pytest.mark.soak

CODE = "from tests.pipelines import placed\nplaced.main()"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("at-once")
    (folder / "notes").mkdir()
    for number in range(12):
        draw_photos(folder / "photos" / str(number))
    return folder


def reports(folder, *names, **node):
    """Of jobs that run at the same time on one node."""
    with logical_cluster(**{NOTES: str(folder / "notes")}) as cluster:
        cluster.add(**node)
        wish = json.dumps(asdict(Site(cluster.address)))

        def run(name):
            return cluster.run(CODE, name, str(folder), wish, timeout_s=400)

        with ThreadPoolExecutor(len(names)) as pool:
            done = list(pool.map(run, names))
    assert [job.returncode for job in done] == [0] * len(names), [job.stderr for job in done]
    return [json.loads(job.stdout) for job in done]


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_two_galleries_are_embedded_on_one_cpu(folder, num_gpus):
    # Were half of it booked by each network, there would be none to decode with. A GPU each of
    # them wants whole: one waits for the other.
    both = reports(folder, *["embed_slowly"] * 2, num_cpus=1, num_gpus=num_gpus)
    assert [report["num_embedded"] for report in both] == [120] * 2


def test_two_models_are_trained_beside_two_galleries_on_two_cpus(folder):
    jobs = ["train_on_photos", "train_on_photos", "embed_slowly", "embed_slowly"]
    *models, one, other = reports(folder, *jobs, num_cpus=2)
    assert models[0]["fingerprint"] == models[1]["fingerprint"]
    assert one["num_embedded"] == other["num_embedded"] == 120
