"""The clusters of cluster.yaml and examples/cluster are what Ray's cluster launcher accepts."""

from __future__ import annotations

import copy
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CLOUD, OWN = "cluster.yaml", "examples/cluster/on-prem.yaml"
both = pytest.mark.parametrize("name", [CLOUD, OWN])

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
RAY = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]


def load(name):
    return yaml.safe_load((ROOT / name).read_text())


def validate(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(config)))


def starts(config):
    """The commands that start Ray, of the head and of the others."""
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    return [command for command in commands if "ray start" in command]


@both
def test_ray_s_own_schema_accepts_the_file(name):
    validate(load(name))


@pytest.mark.parametrize(
    ("name", "typo"),
    [
        (CLOUD, lambda config: config.update(max_worker=3)),
        (CLOUD, lambda config: config["available_node_types"]["gpu"].update(label={})),
        (CLOUD, lambda config: config["docker"].update(images="")),
        (OWN, lambda config: config.update(setup_command=[])),
        (OWN, lambda config: config["auth"].update(ssh_key="")),
    ],
)
def test_the_schema_notices_a_typo(name, typo):
    config = load(name)
    typo(config)
    with pytest.raises(Exception, match="Additional properties"):
        validate(config)


@both
def test_every_node_starts_with_the_token_and_sends_no_usage_stats(name):
    found = starts(load(name))
    assert len(found) == 2
    for command in found:
        before, start = command.split("ray start")
        assert "RAY_AUTH_MODE=token" in before
        assert "--disable-usage-stats" in start


def test_jobs_and_shells_of_the_cloud_find_the_token_by_the_container_s_environment():
    config = load(CLOUD)
    (folder,) = config["file_mounts"]
    options = " ".join(config["docker"]["run_options"])
    assert "-e RAY_AUTH_MODE=token" in options
    home = "/home/ray"  # of the user of Ray's image
    assert f"-e RAY_AUTH_TOKEN_PATH={folder.replace('~', home)}/auth_token" in options


def test_own_machines_find_the_token_where_it_is_copied_to():
    config = load(OWN)
    (folder,) = config["file_mounts"]
    for command in starts(config):
        assert f"RAY_AUTH_TOKEN_PATH={folder}/auth_token" in command.split("ray start")[0]


@both
def test_the_dashboard_stays_on_loopback(name):
    head, _ = starts(load(name))
    assert "--head" in head
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in (ROOT / name).read_text()


def test_the_head_runs_no_task():
    config = load(CLOUD)
    assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0}
    assert "--num-cpus=0" in starts(load(OWN))[0]  # the local provider has no node types


@both
def test_all_nodes_get_this_very_package_and_its_tested_versions(name):
    setup = " ".join(load(name)["setup_commands"])
    assert f"~/retrieval/retrieval_cli-{VERSION}-py3-none-any.whl" in setup
    assert "--constraint ~/retrieval/constraints.txt" in setup
    assert list(load(name)["file_mounts"]) == ["~/retrieval"]


def test_the_image_has_the_ray_of_the_tested_versions():
    assert load(CLOUD)["docker"]["image"] == f"rayproject/ray:{RAY}-py311"


def test_the_cluster_s_bounds_agree_and_workers_are_spot_but_the_head_is_not():
    config = load(CLOUD)
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert config["max_workers"] == sum(node["max_workers"] for node in types.values())
    assert "InstanceMarketOptions" not in head["node_config"]
    for node in types.values():
        assert node["min_workers"] == 0  # nothing is rented while nothing runs
        assert node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert node["node_config"]["IamInstanceProfile"]  # without it, no object store


def test_every_kind_of_node_has_a_label_that_jobs_can_choose_it_by():
    types = load(CLOUD)["available_node_types"]
    labels = {name: node["labels"]["retrieval/role"] for name, node in types.items()}
    assert labels == {name: name for name in ("head", "decode", "gpu")}


@pytest.mark.parametrize("name", [CLOUD, "examples/cluster/prometheus.yml"])
def test_every_line_with_a_number_of_its_own_says_its_unit_or_reason(name):
    number = re.compile(r":\s+\d")  # a key with a number, also within braces
    lines = [line for line in (ROOT / name).read_text().splitlines() if number.search(line)]
    assert lines
    assert [line for line in lines if "#" not in line] == []


def test_prometheus_reads_the_file_in_which_ray_lists_its_nodes():
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    (job,) = load("examples/cluster/prometheus.yml")["scrape_configs"]
    (files,) = job["file_sd_configs"]
    assert files["files"] == [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]


def test_own_machines_use_the_ports_that_the_guide_opens():
    guide = (ROOT / "docs" / "cluster.md").read_text()
    for command in starts(load(OWN)):
        for port in re.findall(r"-port=(\d+)", command):
            assert port in guide, port
