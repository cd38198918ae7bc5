"""The whole chain on several hosts gives the bits of one host, also where a host is lost."""

from __future__ import annotations

import json

import pytest

from retrieval.drawn import draw_gallery
from tests.hosts import why_not
from tests.ray_hosts import BUCKET, RayHosts

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

TRAIN = ["--weights", "none", "--image-size", "64", "--epochs", "3", "--num-workers", "2"]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """Two workers of one CPU each, so that they have as many as the host that they are held to."""
    drawn = draw_gallery(
        tmp_path_factory.mktemp("drawn"),
        num_classes=4, num_gallery_per_class=12, num_queries_per_class=3, num_distractors=4,
    )  # fmt: skip
    with RayHosts(tmp_path_factory.mktemp("logs"), num_cpus=1) as started:
        for name in ("gallery", "queries"):
            started.upload(getattr(drawn, name), name)
        yield started


@pytest.fixture(scope="module")
def one(hosts):
    """The chain on one host, with a Ray of its own for each command: its reports, by verb."""
    laptop = hosts.add_host("laptop")

    def run(*verb):
        return json.loads(laptop.run("python", "-m", "pipelines.cli", *verb, timeout=900))

    return chain(run, "one")


def chain(run, place):
    at = f"{BUCKET}/{place}"
    reports = {"train": run("train", f"{BUCKET}/gallery", f"{at}/model", *TRAIN)}
    for side in ("queries", "gallery"):
        run("embed", f"{BUCKET}/{side}", f"{at}/{side}", "--model", f"{at}/model")
    run("rank", f"{at}/queries", f"{at}/gallery", f"{at}/ranking")
    # A night that finds all that it would make is one without work: this one begins anew.
    night = ["--queries", f"{BUCKET}/queries", "--rankings", f"{at}/nightly-ranking"]
    run("reindex", f"{BUCKET}/gallery", f"{at}/nightly", "--model", f"{at}/model", *night)
    return reports


def bits(hosts, place, *names):
    uris = [f"{BUCKET}/{place}/{name}" for name in names]
    return dict(zip(names, json.loads(hosts.look("tests.soak.bits", *uris)), strict=True))


def figures(epoch):
    """All but how long it took."""
    return {name: value for name, value in epoch.items() if not name.endswith("_s")}


def trains_on_all(hosts):
    return all(host.processes("ray::RayTrainWorker") for host in hosts.workers)


def has_checkpoint(hosts, model):
    return any("checkpoint_" in key for key in hosts.keys(f"{model}/training"))


def test_the_chain_gives_the_bits_of_one_host(hosts, one):
    many = chain(hosts.submit, "many")
    assert many["train"]["fingerprint"] == one["train"]["fingerprint"]
    assert figures(many["train"]["best"]) == figures(one["train"]["best"])
    names = ("queries", "gallery", "ranking", "nightly", "nightly-ranking")
    assert bits(hosts, "many", *names) == bits(hosts, "one", *names)


def test_a_training_that_loses_a_host_makes_the_same_model(hosts, one):
    model = "lost/model"
    job = hosts.start_job("train", f"{BUCKET}/gallery", f"{BUCKET}/{model}", *TRAIN)
    hosts.wait_for(lambda: has_checkpoint(hosts, model), job, within_s=300)
    assert trains_on_all(hosts)
    hosts.workers[1].power_off()
    hosts.power_on(hosts.workers[1])
    out, err = job.communicate(timeout=900)
    assert job.returncode == 0, err
    assert json.loads(out)["fingerprint"] == one["train"]["fingerprint"]


@pytest.mark.parametrize("lost", ["an actor", "a host"])
def test_a_ranking_that_loses_something_is_the_same(hosts, one, lost):
    ranking = f"lost/ranking of {lost}"
    sides = [f"{BUCKET}/one/{side}" for side in ("queries", "gallery")]
    job = hosts.start_job("rank", *sides, f"{BUCKET}/{ranking}", "--num-actors", "2")
    victim = hosts.workers[0]
    hosts.wait_for(lambda: victim.processes("ray::Scorer"), job)
    if lost == "an actor":
        victim.kill("ray::Scorer")
    else:
        victim.power_off()
        hosts.power_on(victim)
    err = job.communicate(timeout=600)[1]
    assert job.returncode == 0, err
    assert bits(hosts, "lost", f"ranking of {lost}") == {
        f"ranking of {lost}": bits(hosts, "one", "ranking")["ranking"]
    }
