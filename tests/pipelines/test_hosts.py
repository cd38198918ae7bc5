"""A training and a night on hosts that share nothing but a store; a host and the driver are lost.

The long form is in tests/soak: test_hosts.py (the whole chain), test_chaos.py (all that can
break).
"""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.conftest import photo_bytes
from tests.hosts import why_not
from tests.ray_hosts import BUCKET, RayHosts
from tests.training import draw_photos

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

INDEX, RANKING = f"{BUCKET}/index", f"{BUCKET}/ranking"
EMBED = ["embed", f"{BUCKET}/photos", INDEX, "--backbone", "tests.fakes:slow", "--weights", "none"]
EMBED += ["--labels", "none", "--batch-size", "4"]

_READ = "print(client.get_object(Bucket='bucket', Key=sys.argv[1])['Body'].read().decode())"


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    with RayHosts(tmp_path_factory.mktemp("logs")) as started:
        yield started


@pytest.fixture(scope="module")
def photos(hosts, tmp_path_factory):
    """Forty photos in the store, and one file that is none: id → hash of its content."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(40):
        colour = (6 * number, 255 - 6 * number, 99)
        (folder / f"{number:02d}.jpg").write_bytes(photo_bytes(colour))
    (folder / "no-photo.jpg").write_bytes(b"no photo")
    hosts.upload(folder, "photos")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_who_has_no_token_is_not_let_in(hosts):
    path = f"{hosts.job_address}/api/jobs/"
    code = "import sys, urllib.request\nurllib.request.urlopen(sys.argv[1])"
    asked = hosts.store.start("python", "-c", code, path)
    assert "401" in asked.communicate(timeout=60)[1]
    command = ["retrieval-cli", "submit", "--address", hosts.job_address, "--", "status", INDEX]
    refused = hosts.store.start(*command, RAY_AUTH_MODE="disabled")
    out, err = refused.communicate(timeout=60)
    assert (refused.returncode, out) == (1, "")
    assert "export RAY_AUTH_MODE=token" in err
    assert hosts.token not in err


def test_a_training_has_a_worker_on_each_host_and_they_meet(hosts, tmp_path):
    hosts.upload(draw_photos(tmp_path / "classes"), "classes")
    small = ["--backbone", "tests.training:small", "--weights", "none", "--image-size", "32"]
    train = ["train", f"{BUCKET}/classes", f"{BUCKET}/model", *small, "--epochs", "2"]
    job = hosts.start_job(*train)
    name = "ray::RayTrainWorker"
    hosts.wait_for(lambda: all(host.processes(name) for host in hosts.workers), job)
    out, err = job.communicate(timeout=300)
    assert job.returncode == 0, err
    assert json.loads(out)["epochs"] == 2
    epochs = hosts.boto(_READ, "model/metrics.jsonl").strip().splitlines()
    assert [json.loads(line)["num_workers"] for line in epochs] == [2, 2]


def test_a_night_that_loses_a_host_and_then_its_driver_goes_on_where_it_was(hosts, photos):
    lost = hosts.workers[1]
    night = hosts.small_job(*EMBED, RETRIEVAL_BREAKPOINT="before commit")
    hosts.wait_for(lambda: all(host.processes("ray::MapWorker") for host in hosts.workers), night)
    lost.power_off()
    out, err = night.communicate(timeout=300)
    assert night.returncode == 1, out + err  # the driver has killed itself
    assert hosts.keys("index/_delta_log") == []
    report = hosts.submit(*EMBED)
    assert report["status"] == "committed"
    assert (report["num_resumed"], report["num_embedded"]) == (40, 0)
    found = json.loads(hosts.look("tests.soak.look", INDEX))
    assert found["faults"] == []
    assert found["contents"] == {
        name: sha for name, sha in photos.items() if name != "no-photo.jpg"
    }
    assert found["num_rejected"] == 1


def test_a_ranking_on_several_hosts_is_that_of_brute_force(hosts, photos):
    report = hosts.submit("rank", INDEX, INDEX, RANKING, "--top-k", "5")
    assert report["num_rows"] == 5 * 40
    verified = json.loads(hosts.look("pipelines.cli", "verify", RANKING, "--sample", "40"))
    assert verified["num_queries"] == 40
