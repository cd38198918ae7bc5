"""cluster.yaml becomes machines as it says: Ray's AWS provider on a pretended AWS (moto)."""

from __future__ import annotations

import re
from pathlib import Path

import boto3
import pytest
import yaml
from moto import mock_aws

FILE = Path(__file__).parents[1] / "cluster.yaml"
REGION = "eu-central-1"


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    """By the name of their type: what AWS then has, and what such a machine has."""
    with pytest.MonkeyPatch.context() as patch, mock_aws():
        # Ray keeps the ssh key that it makes there.
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        yield start_one_of_each()


def start_one_of_each():
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config

    iam, ec2 = boto3.client("iam"), boto3.client("ec2", region_name=REGION)
    for role in ("retrieval-head", "retrieval-worker"):
        iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
        iam.create_instance_profile(InstanceProfileName=role)
        iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
    image = ec2.describe_images()["Images"][0]["ImageId"]
    text = FILE.read_text().replace("ami-00000000000000000", image)
    config = bootstrap_aws(prepare_config(yaml.safe_load(text)))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    found = {}
    for name, kind in config["available_node_types"].items():
        tags = {"ray-node-type": "worker", "ray-user-node-type": name, "ray-node-name": name}
        (made,) = provider.create_node(kind["node_config"], tags, 1)
        (reservation,) = ec2.describe_instances(InstanceIds=[made])["Reservations"]
        (machine,) = reservation["Instances"]
        asked = ec2.describe_instance_types(InstanceTypes=[machine["InstanceType"]])
        found[name] = machine | asked["InstanceTypes"][0]
    return found


def test_each_kind_of_node_is_a_machine_that_aws_takes(machines):
    types = {name: machine["InstanceType"] for name, machine in machines.items()}
    assert types == {"head": "m7i.xlarge", "decode": "c7i.4xlarge", "gpu": "g6.4xlarge"}
    assert {name: machine.get("InstanceLifecycle") for name, machine in machines.items()} == {
        "head": None, "decode": "spot", "gpu": "spot",
    }  # fmt: skip


def test_a_machine_has_what_the_file_says(machines):
    said = dict(re.findall(r"InstanceType: (\S+) +# (.*)", FILE.read_text()))
    for machine in machines.values():
        cpus = machine["VCpuInfo"]["DefaultVCpus"]
        gibibytes = machine["MemoryInfo"]["SizeInMiB"] // 1024
        assert said[machine["InstanceType"]].startswith(f"{cpus} vCPU, {gibibytes} GiB")
    gpus = {name: machine.get("GpuInfo", {}).get("Gpus") for name, machine in machines.items()}
    assert [name for name, found in gpus.items() if found] == ["gpu"]
    assert (gpus["gpu"][0]["Name"], gpus["gpu"][0]["Count"]) == ("L4", 1)


def test_each_node_has_the_role_by_which_it_reaches_the_store(machines):
    roles = {
        name: machine["IamInstanceProfile"]["Arn"].rpartition("/")[2]
        for name, machine in machines.items()
    }
    assert roles == {
        "head": "retrieval-head", "decode": "retrieval-worker", "gpu": "retrieval-worker",
    }  # fmt: skip
