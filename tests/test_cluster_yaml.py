"""cluster.yaml is what Ray's cluster launcher accepts."""

from pathlib import Path

import pytest
import yaml

FILE = Path(__file__).parents[1] / "cluster.yaml"


def validate(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


def test_ray_s_own_schema_accepts_the_file():
    validate(yaml.safe_load(FILE.read_text()))


def test_the_schema_would_notice_a_mistake():
    config = yaml.safe_load(FILE.read_text())
    config["available_node_types"]["head"]["resource"] = {}
    with pytest.raises(Exception, match="resource"):
        validate(config)


def test_the_head_runs_no_task_and_the_dashboard_stays_on_loopback():
    config = yaml.safe_load(FILE.read_text())
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0}
    start = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert all(
            "RAY_AUTH_MODE=token" in command for command in config[commands] if "start" in command
        )
