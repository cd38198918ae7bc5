"""The examples for Kubernetes are what KubeRay and our own commands accept."""

from __future__ import annotations

import copy
import re
import tomllib

import pytest

from pipelines.cli import main
from tests.kuberay import ROOT, arguments, documents, pods, schema_errors

FOLDER = ROOT / "examples" / "kubernetes"
NAMES = sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != "podmonitor.yaml")
NIGHTLY = ROOT / "examples" / "nightly" / "raycronjob.yaml"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
RAY = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]


def load(name):
    (document,) = documents(FOLDER / name)
    return document


def cluster_of(document):
    """The cluster that a document starts, or that a job names."""
    if document["kind"] == "RayCluster":
        return document["spec"]
    if "rayClusterSpec" in document["spec"]:
        return document["spec"]["rayClusterSpec"]
    standing = load("raycluster.yaml")
    named = document["spec"]["clusterSelector"]["ray.io/cluster"]
    assert named == standing["metadata"]["name"]
    return standing["spec"]


def clusters():
    """(file, its cluster) of all that start one, the night's too."""
    found = [(name, load(name)) for name in NAMES]
    found = [(name, cluster_of(each)) for name, each in found if "clusterSelector" not in str(each)]
    night = documents(NIGHTLY)[0]["spec"]["jobTemplate"]["rayClusterSpec"]
    return [*found, ("raycronjob.yaml", night)]


def jobs():
    """(file, RayJob) of all jobs."""
    return [(name, load(name)) for name in NAMES if load(name)["kind"] == "RayJob"]


# ----------------------------------------------------------------------------------- KubeRay's part


def controller_errors(document):
    """What KubeRay's controller refuses beyond the CRD (validation.go of its utils)."""
    spec, name = document["spec"], document["metadata"]["name"]
    cluster = spec if document["kind"] == "RayCluster" else spec.get("rayClusterSpec")
    standing = "clusterSelector" in spec
    rules = {
        "name": len(name) <= 47 and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name),
        "one of rayClusterSpec or clusterSelector": bool(cluster) != standing,
        "no retry, for that takes a new cluster": not (standing and spec.get("backoffLimit")),
        "ttl needs shutdownAfterJobFinishes": (
            "ttlSecondsAfterFinished" not in spec or spec.get("shutdownAfterJobFinishes")
        ),
    }
    if cluster:
        version = [int(number) for number in cluster.get("rayVersion", "0").split(".")]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        rules |= {
            "a token needs a version from 2.52.0": version >= [2, 52, 0],
            "autoscaler v2 restarts no pod": all(
                pod.get("restartPolicy", "Never") == "Never" for pod in pods(cluster).values()
            ),
            "labels have a field": all("labels" not in g["rayStartParams"] for g in groups),
            "minReplicas up to maxReplicas": all(
                g["minReplicas"] <= g["replicas"] <= g["maxReplicas"] for g in groups[1:]
            ),
        }
    return [rule for rule, holds in rules.items() if not holds]


@pytest.mark.parametrize("name", NAMES)
def test_kuberay_accepts_the_file(name):
    document = load(name)
    assert schema_errors(document) == []
    assert controller_errors(document) == []


def worker(spec):
    return spec["rayClusterSpec"]["workerGroupSpecs"][0]


MISTAKES = {
    "a field of a job": lambda spec: spec.update(backOffLimit=1),
    "a field of a cluster": lambda spec: spec["rayClusterSpec"].update(authOption={}),
    "a field of a group": lambda spec: worker(spec).update(maxreplicas=3),
    "a field of a pod": lambda spec: worker(spec)["template"]["spec"].update(toleration=[]),
    "a number for a text": lambda spec: worker(spec).update(rayStartParams={"num-cpus": 4}),
    "a mode": lambda spec: spec.update(submissionMode="K8SJobMode"),
    "a ttl of a cluster that stays": lambda spec: spec.pop("shutdownAfterJobFinishes"),
    "a retry on a standing cluster": lambda spec: (
        spec.pop("rayClusterSpec"),
        spec.update(clusterSelector={"ray.io/cluster": "retrieval"}),
    ),
    "no cluster": lambda spec: spec.pop("rayClusterSpec"),
    "an old Ray": lambda spec: spec["rayClusterSpec"].update(rayVersion="2.51.0"),
    "more than the most": lambda spec: worker(spec).update(replicas=99),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_job_is_noticed(mistake):
    document = copy.deepcopy(load("train.yaml"))
    MISTAKES[mistake](document["spec"])
    assert schema_errors(document) + controller_errors(document)


# ------------------------------------------------------------------------------------- the clusters


@pytest.mark.parametrize(("name", "cluster"), clusters())
def test_a_cluster_asks_for_a_token_and_its_head_runs_no_task(name, cluster):
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["autoscalerOptions"]["version"] == "v2"


@pytest.mark.parametrize(("name", "cluster"), clusters())
def test_every_pod_has_the_image_of_this_version_and_room_for_shared_objects(name, cluster):
    assert cluster["rayVersion"] == RAY
    for pod in pods(cluster).values():
        (container,) = pod["containers"]
        assert container["image"].endswith(f"/retrieval:{VERSION}")
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        paths = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        shm = volumes[paths["/dev/shm"]]["emptyDir"]
        assert shm["medium"] == "Memory"
        # What lies there counts as the pod's own memory.
        most = gibibytes(container["resources"]["limits"]["memory"])
        assert 0 < gibibytes(shm["sizeLimit"]) < most / 2


def gibibytes(quantity):
    return int(re.fullmatch(r"(\d+)Gi", quantity)[1])


def test_groups_of_one_name_are_the_same_in_all_files():
    standing = cluster_of(load("raycluster.yaml"))
    for name in ("reindex.yaml", "train.yaml"):
        cluster = cluster_of(load(name))
        for key in cluster.keys() - {"workerGroupSpecs"}:
            assert cluster[key] == standing[key], f"{name}: {key}"
        for group in cluster["workerGroupSpecs"]:
            assert group in standing["workerGroupSpecs"], f"{name}: {group['groupName']}"


def test_the_image_is_of_the_same_ray():
    text = (FOLDER / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{RAY}-py311\n" in text
    assert f"retrieval:{VERSION} " in text
    copied = re.findall(r"^COPY --chown=ray (.+) /home/ray/source", text, re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert {"pyproject.toml", "constraints.txt", "retrieval", "pipelines"} <= names
    assert all((ROOT / name).exists() for name in names)


# ----------------------------------------------------------------------------------------- the jobs


def test_every_verb_that_makes_something_of_photos_has_a_job():
    verbs = {arguments(job["spec"]["entrypoint"])[0]: name for name, job in jobs()}
    made = ("augment", "embed", "evaluate", "experiment", "rank", "reindex", "report", "train")
    assert verbs == {verb: f"{verb}.yaml" for verb in made}
    assert {job["metadata"]["name"] for _, job in jobs()} == {f"retrieval-{verb}" for verb in made}


@pytest.mark.parametrize(("name", "job"), jobs())
def test_our_command_line_accepts_what_a_job_runs(name, job):
    verb, *rest = arguments(job["spec"]["entrypoint"])
    context = main.commands[verb].make_context(verb, rest)
    assert "s3://" in str(context.params)  # nothing is shared but the store


@pytest.mark.parametrize(("name", "job"), jobs())
def test_the_cluster_can_grow_to_what_a_job_waits_for(name, job):
    words = arguments(job["spec"]["entrypoint"])
    groups = cluster_of(job)["workerGroupSpecs"]
    if "--node" in words:
        key, _, value = words[words.index("--node") + 1].partition("=")
        groups = [group for group in groups if group["labels"].get(key) == value]
        assert groups
    for option, (part, resource) in {
        "--min-cpus": ("requests", "cpu"),
        "--min-gpus": ("limits", "nvidia.com/gpu"),
    }.items():
        if option in words:
            most = sum(
                group["maxReplicas"] * int(each["resources"][part].get(resource, 0))
                for group in groups
                for each in group["template"]["spec"]["containers"]
            )
            assert 0 < int(words[words.index(option) + 1]) <= most


@pytest.mark.parametrize(("name", "job"), jobs())
def test_a_job_is_ended_before_it_hangs_for_good(name, job):
    assert job["spec"]["activeDeadlineSeconds"] <= 7 * 24 * 3600
    assert job["spec"]["submissionMode"] == "K8sJobMode"


@pytest.mark.parametrize("name", NAMES)
def test_every_number_is_told_its_unit_or_reason_once(name):
    lines = (FOLDER / name).read_text().splitlines()
    if name in ("reindex.yaml", "train.yaml"):  # the cluster's comments are in raycluster.yaml
        lines = lines[: lines.index("  rayClusterSpec:")]
    numbers = [n for n, line in enumerate(lines) if re.search(r":\s*\d+\s*(#.*)?$", line)]
    told = [n for n in numbers if "#" in lines[n] or "#" in lines[n - 1]]
    zero = [n for n in numbers if re.search(r"replicas: 0$", lines[n])]
    assert set(numbers) == {*told, *zero}


def test_the_night_s_probe_has_the_bounds_of_every_night():
    night = arguments(documents(NIGHTLY)[0]["spec"]["jobTemplate"]["entrypoint"])
    once = arguments(load("reindex.yaml")["spec"]["entrypoint"])
    assert once[: len(night)] == night


def test_the_files_say_how_they_are_run_again():
    for name, _ in jobs():
        text = (FOLDER / name).read_text()
        assert f"kubectl replace --force --filename examples/kubernetes/{name}" in text
