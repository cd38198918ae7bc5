"""The examples of a nightly schedule are what cron, systemd, KubeRay, Airflow and we accept."""

from __future__ import annotations

import configparser
import copy
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from datetime import UTC
from pathlib import Path
from types import ModuleType

import click
import pytest
import yaml

from pipelines.cli import main
from tests.kuberay import arguments, pods, schema_errors

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "nightly"
CLI = Path(sys.executable).with_name("retrieval-cli")


def cron_jobs():
    """(minute, hour, day, month, weekday, command) of each line of the crontab."""
    lines = (FOLDER / "crontab").read_text().splitlines()
    jobs = [line for line in lines if line and not re.match(r"#|[A-Z]+=", line)]
    return [job.split(maxsplit=5) for job in jobs]


def unit(name):
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str
    parser.read_string((FOLDER / name).read_text())
    return parser


def ray_cron_job():
    return next(yaml.safe_load_all((FOLDER / "raycronjob.yaml").read_text()))


class Dag:
    """Airflow's, as far as the example uses it: another argument is a mistake."""

    def __init__(self, *, dag_id, schedule, start_date, catchup, max_active_runs, default_args):
        self.schedule, self.start_date, self.default_args = schedule, start_date, default_args
        self.catchup, self.max_active_runs = catchup, max_active_runs

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


class BashOperator:
    def __init__(self, *, task_id, bash_command, append_env, execution_timeout=None):
        self.task_id, self.bash_command = task_id, bash_command
        self.append_env, self.execution_timeout = append_env, execution_timeout
        self.after = []

    def __rshift__(self, other):
        other.after.append(self)
        return other


def airflow_example():
    """What the file defines, by name."""
    bash = "airflow.providers.standard.operators.bash"
    names = ["airflow", "airflow.sdk", *(bash.rsplit(".", cut)[0] for cut in (3, 2, 1)), bash]
    modules = {name: ModuleType(name) for name in names}
    modules["airflow.sdk"].DAG, modules[bash].BashOperator = Dag, BashOperator
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        return runpy.run_path(str(FOLDER / "airflow_dag.py"))


def command_lines():
    """(example, command line) of all that the examples run."""
    service = unit("retrieval-nightly.service")["Service"]["ExecStart"].replace("\\\n", " ")
    found = [("crontab", job[5]) for job in cron_jobs()]
    found += [
        ("systemd", service),
        ("kuberay", ray_cron_job()["spec"]["jobTemplate"]["entrypoint"]),
    ]
    tasks = [task for task in airflow_example().values() if isinstance(task, BashOperator)]
    return found + [("airflow", task.bash_command) for task in tasks]


@pytest.mark.parametrize(("example", "line"), command_lines())
def test_the_command_line_accepts_what_the_examples_run(example, line):
    name, *rest = arguments(line)
    context = main.commands[name].make_context(name, rest)
    places = [each.name for each in context.command.params if isinstance(each, click.Argument)]
    assert all(Path(context.params[place]).name in ("photos", "index") for place in places)


def test_each_example_runs_the_same_night():
    nights = {example: arguments(line) for example, line in command_lines() if "reindex" in line}
    options = {name: re.findall(r"--[a-z0-9-]+", " ".join(night)) for name, night in nights.items()}
    assert set(options) == {"crontab", "systemd", "kuberay", "airflow"}
    assert "--min-top-1" in options["crontab"]
    assert all(found == options["crontab"] for found in options.values())


def test_the_guide_names_commands_options_and_folders_that_exist():
    guide = (ROOT / "docs" / "nightly.md").read_text()
    commands = set(re.findall(r"retrieval-cli ([a-z-]+)", guide))
    assert {"reindex", "restore", "vacuum"} <= commands <= set(main.commands)
    params = [param for command in main.commands.values() for param in command.params]
    options = {option for param in params for option in param.opts}
    named = set(re.findall(r"--[a-z][a-z0-9-]*", guide))
    assert "--rebase" in named
    assert named <= options
    library = [path.read_text() for path in ROOT.glob("retrieval/index/*.py")]
    jobs = [path.read_text() for path in ROOT.glob("pipelines/reindex/*.py")]
    folders = set(re.findall(r"`(_[a-z_]+)/", guide))
    assert "_staging" in folders
    made = folders - {"_queries", "_probe"}  # these are "_" and the name of a side
    assert all(any(f'"{folder}"' in text for text in library + jobs) for folder in made)


def test_all_but_systemd_take_a_lock_of_their_own():
    for example, line in command_lines():
        assert line.startswith("flock ") == (example != "systemd")


# --------------------------------------------------------------------------------------- crontab


def test_the_crontab_has_five_times_and_a_command_that_cron_does_not_cut():
    jobs = cron_jobs()
    assert [len(job) for job in jobs] == [6, 6]
    for *times, command in jobs:
        assert all(re.fullmatch(r"[\d*]+", time) for time in times)
        assert "%" not in command  # cron takes it for the end of the line


@pytest.fixture
def machine(tmp_path):
    """Where the paths of the examples are; retrieval-cli is a script that a test writes."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "srv").mkdir()

    def shell(line, script):
        command = tmp_path / "bin" / "retrieval-cli"
        command.write_text(f"#!/bin/sh\n{script}\n")
        command.chmod(0o755)
        return subprocess.run(
            ["/bin/sh", "-c", line.replace("/srv/retrieval", str(tmp_path / "srv"))],
            env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}, cwd=tmp_path / "srv",
            capture_output=True, text=True, check=False, timeout=60,  # not for ever for a lock
        )  # fmt: skip

    shell.lock = tmp_path / "srv" / "nightly.lock"
    shell.log = tmp_path / "srv" / "nightly.log"
    return shell


NEEDS_FLOCK = pytest.mark.skipif(not shutil.which("flock"), reason="flock is not installed")


@NEEDS_FLOCK
def test_cron_s_night_writes_a_log_and_prints_only_what_went_wrong(machine):
    night = cron_jobs()[0][5]
    assert machine(night, "echo '{}'; echo progress >&2").stdout == ""
    assert machine.log.read_text() == "{}\nprogress\n"
    failed = machine(night, "echo 'Error: the gate.' >&2; exit 1")
    assert failed.stdout == "night failed with 1: Error: the gate.\n"


@NEEDS_FLOCK
def test_a_night_leaves_at_once_where_another_is_at_work(machine):
    airflow = airflow_example()
    for line, code in ((cron_jobs()[0][5], 75), (airflow["reindex"].bash_command, 99)):
        inner = f"{{ {line}; }}; echo left with $? >&2"
        first = f"flock {machine.lock} sh -c {shlex.quote(inner)}"
        found = machine(first, "touch ran")
        assert f" with {code}" in found.stdout + found.stderr
        assert not (machine.lock.parent / "ran").exists()


# --------------------------------------------------------------------------------------- systemd


def test_the_timer_starts_the_service_once_a_night_and_makes_up_for_a_missed_one():
    timer, service = unit("retrieval-nightly.timer"), unit("retrieval-nightly.service")
    assert timer["Timer"]["OnCalendar"] == "*-*-* 03:30:00"
    assert timer["Timer"].getboolean("Persistent")
    assert timer["Install"]["WantedBy"] == "timers.target"
    # A oneshot is "activating" until its command ends, and is not started again meanwhile.
    assert service["Service"]["Type"] == "oneshot"


def test_the_service_may_write_where_its_command_writes():
    service = unit("retrieval-nightly.service")["Service"]
    assert service["ProtectSystem"] == "strict"
    command = service["ExecStart"].replace("\\\n", " ")
    _, _, index, *options = arguments(command)
    rankings = options[options.index("--rankings") + 1]
    for path in (index, rankings):
        assert Path(path).is_relative_to(service["ReadWritePaths"])
    assert service["Environment"] == f"NUMBA_CACHE_DIR=/var/cache/{service['CacheDirectory']}"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_accepts_the_units(tmp_path):
    def verify(change=lambda text: text):
        for name in ("retrieval-nightly.service", "retrieval-nightly.timer"):
            text = (FOLDER / name).read_text().replace("/opt/retrieval/bin/retrieval-cli", str(CLI))
            (tmp_path / name).write_text(change(text))
        command = ["systemd-analyze", "verify", *map(str, tmp_path.glob("retrieval-*"))]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = found.stderr.splitlines()
        return [line for line in lines if str(tmp_path) in line or found.returncode]

    assert verify() == []
    assert verify(lambda text: text.replace("ProtectClock=yes", "ProtectClok=yes"))
    assert verify(lambda text: text.replace("03:30:00", "03:90:00"))


# --------------------------------------------------------------------------------------- KubeRay


def test_the_ray_cron_job_has_the_fields_of_its_crd():
    document = ray_cron_job()
    assert schema_errors(document) == []
    wrong = copy.deepcopy(document)
    wrong["spec"]["concurrencyPolicy"] = "Forbid"  # that is what the other CronJob has
    assert schema_errors(wrong) == [
        "Additional properties are not allowed ('concurrencyPolicy' was unexpected)"
    ]


def test_the_ray_cron_job_ends_before_the_next_one_and_runs_the_ray_of_this_package():
    spec = ray_cron_job()["spec"]
    assert spec["schedule"] == "30 3 * * *"
    assert spec["jobTemplate"]["activeDeadlineSeconds"] < 24 * 3600
    pinned = re.search(r"ray\[.*\]>=([\d.]+)", (ROOT / "pyproject.toml").read_text())[1]
    assert spec["jobTemplate"]["rayClusterSpec"]["rayVersion"].startswith(pinned)


def test_the_volumes_of_its_pods_are_there_and_the_lock_lies_on_one_that_all_heads_share():
    template = ray_cron_job()["spec"]["jobTemplate"]
    found = pods(template["rayClusterSpec"])
    for pod in found.values():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    words = shlex.split(template["entrypoint"])
    folder = str(Path(words[words.index("retrieval-cli") - 1]).parent)
    mounts = found["head"]["containers"][0]["volumeMounts"]
    (name,) = [mount["name"] for mount in mounts if mount["mountPath"] == folder]
    (claim,) = [volume for volume in found["head"]["volumes"] if volume["name"] == name]
    _, shared = yaml.safe_load_all((FOLDER / "raycronjob.yaml").read_text())
    assert claim["persistentVolumeClaim"]["claimName"] == shared["metadata"]["name"]
    assert shared["spec"]["accessModes"] == ["ReadWriteMany"]


# --------------------------------------------------------------------------------------- Airflow


def test_the_dag_runs_one_night_at_a_time_and_then_removes_what_no_version_needs():
    found = airflow_example()
    (dag,) = [value for value in found.values() if isinstance(value, Dag)]
    assert (dag.schedule, dag.max_active_runs, dag.catchup) == ("30 3 * * *", 1, False)
    assert dag.start_date.tzinfo == UTC
    assert found["vacuum"].after == [found["reindex"]]
    assert found["reindex"].append_env
    assert found["reindex"].execution_timeout.total_seconds() < 24 * 3600
