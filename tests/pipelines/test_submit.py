"""`retrieval-cli submit` and `ray job submit` to a real job server that asks for a token."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from pipelines.cli import main
from tests.conftest import COLOURS, make_index, photo_bytes
from tests.pipelines.cut_proxy import CutProxy
from tests.pipelines.job_server import BIN, finish, job_server, run_python, wait_until

HERE = ["--python", sys.executable]
SESSION = """
import sys
import ray
from pipelines.ray_runtime.session import session
from pipelines.ray_runtime.cluster_options import Site
from retrieval.errors import RetrievalError
try:
    with session(Site(address=sys.argv[1])):
        print(ray.get(ray.remote(lambda: 6 * 7).remote()), file=sys.__stdout__)
except RetrievalError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def head():
    with job_server() as started:
        yield started


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("submit") / "an index"  # a shell must not take it apart
    make_index(folder, ["x", "y"], np.eye(2, 4, dtype=np.float16))
    return folder


@pytest.fixture(scope="module")
def few_photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name, colour in COLOURS.items():
        (folder / f"{name}.jpg").write_bytes(photo_bytes(colour))
    return folder


@pytest.fixture(scope="module")
def first(head, index):
    """Jobs that do not meddle with each other, all at once: a job takes seconds to start."""
    tree = index.parent / "tree" / "pipelines" / "cli"
    tree.mkdir(parents=True)
    for folder in (tree.parent, tree):
        (folder / "__init__.py").touch()
    (tree / "__main__.py").write_text('print("{\\n  \\"shipped\\": true\\n}")')
    missing = index.parent / "missing"
    started = {
        "status": head.start("--submission-id", "status", *HERE, "--", "status", index),
        "fails": head.start("--submission-id", "fails", *HERE, "--", "status", missing),
        "no python": head.start("--python", "/no/python", "--", "status", index),
        "tree": head.start(
            *HERE,
            "--driver-node",
            "role=driver",
            "--working-dir",
            tree.parents[1],
            "--",
            "status",
            index,
        ),
        "by ray": subprocess.Popen(
            [BIN / "ray", "job", "submit", "--", BIN / "retrieval-cli", "status", index],
            env=head.environment(RAY_AUTH_MODE="token", RAY_API_SERVER_ADDRESS=head.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ),
    }
    yield {name: finish(process) for name, process in started.items()}
    for process in started.values():
        process.kill()  # does nothing to those that have ended


def test_a_job_gives_the_report_and_the_exit_code_of_its_verb(first, index):
    here = CliRunner().invoke(main, ["status", str(index)])
    assert first["status"].returncode == 0, first["status"].stderr
    assert first["status"].stdout == here.stdout
    assert "Running entrypoint" in first["status"].stderr
    assert '"version"' not in first["status"].stderr


def test_a_job_that_fails_gives_its_one_line_and_its_exit_code(first, index):
    done = first["fails"]
    assert (done.returncode, done.stdout) == (1, "")
    assert f"\nError: {index.parent}/missing: no index there." in done.stderr
    assert done.stderr.endswith("job fails: failed with exit code 1.\n")


def test_an_interpreter_that_the_cluster_has_not_is_named(first):
    done = first["no python"]
    assert (done.returncode, done.stdout) == (127, "")
    assert "exit code 127. /no/python is not on the PATH that Ray was started" in done.stderr


def test_a_source_tree_that_is_shipped_is_what_runs_on_the_node_that_is_asked_for(first):
    assert first["tree"].returncode == 0, first["tree"].stderr
    assert json.loads(first["tree"].stdout) == {"shipped": True}


def test_ray_job_submit_works_as_well(first, index):
    assert first["by ray"].returncode == 0, first["by ray"].stderr
    assert f'"index": "{index}"' in first["by ray"].stdout


def test_what_has_succeeded_is_not_run_again(head, first, index):
    again = head.submit("--submission-id", "status", *HERE, "--", "status", index)
    assert (again.returncode, again.stdout) == (0, first["status"].stdout)
    assert again.stderr == f"job status: had already succeeded ({head.url})\n"


def test_an_id_belongs_to_one_command(head, first, index):
    other = head.submit("--submission-id", "status", *HERE, "--", "vacuum", index)
    assert (other.returncode, other.stdout) == (1, "")
    assert other.stderr.startswith("Error: --submission-id status: already the id of another")
    assert "pipelines.cli status" in other.stderr
    assert "pipelines.cli vacuum" in other.stderr
    assert other.stderr.count("\n") == 1


def test_what_has_failed_runs_again_under_the_same_id(head, first, index):
    missing = index.parent / "missing"
    command = ["--submission-id", "fails", *HERE, "--", "status", missing]
    make_index(missing, ["x"], np.ones((1, 4), np.float16))
    again = head.submit(*command)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["rows"] == 1
    assert "job fails~2: submitted" in again.stderr
    assert "no index there" not in again.stderr  # of the first run's log
    assert head.submit(*command).stderr.startswith("job fails~2: had already succeeded")


def test_a_job_submitted_twice_over_a_bad_line_left_alone_and_stopped(head, few_photos, tmp_path):
    flag, environment = tmp_path / "flag", tmp_path / "environment.json"
    environment.write_text(json.dumps({"env_vars": {"ENDLESS_FLAG": str(flag)}}))
    command = ["--submission-id", "endless", "--runtime-env", environment, *HERE]
    command += ["--", "embed", few_photos, tmp_path / "index"]
    command += ["--backbone", "tests.fakes:endless", "--weights", "none", "--labels", "none"]
    with CutProxy(head.url) as proxy:
        # At the same moment; the later --address is the one that counts.
        one, other = head.start(*command), head.start("--address", proxy.url, *command)
        wait_until(flag.exists, 120)
        proxy.cut(2)
        assert proxy.num_cut

        one.send_signal(signal.SIGTERM)
        left = finish(one)
        assert (left.returncode, left.stdout) == (143, "")
        assert "Error: Interrupted; job endless runs on. Follow it again: retrieval-cli submit" in (
            left.stderr
        )
        assert f"ray job stop --address {head.url} endless\n" in left.stderr

        seen = json.loads(head.submit("--no-wait", *command).stdout)
        assert (seen["submission_id"], seen["status"], seen["is_new"]) == (
            "endless",
            "RUNNING",
            False,
        )
        code, shown = on_a_terminal(head, command)
        assert code == 130, shown
        assert "Stop job endless too? [y/N]" in shown
        assert "Nothing unfinished was published" in shown  # the verb has ended by itself
        assert "Error: job endless: was stopped." in shown

        followed = finish(other)
    assert (followed.returncode, followed.stdout) == (1, "")
    assert sorted("job endless: submitted" in done.stderr for done in (left, followed)) == [
        False,
        True,
    ]
    assert "job endless: connection lost (" in followed.stderr
    for once in ("Running entrypoint", "Nothing unfinished was published", "was stopped."):
        assert followed.stderr.count(once) == 1, followed.stderr


def on_a_terminal(head, arguments):
    """Follow on a terminal until the log comes, press ctrl-C, answer y; exit code and text."""
    ours, theirs = pty.openpty()
    command = [BIN / "retrieval-cli", "submit", "--address", head.url, *arguments]
    # Where the tests run in the background of a shell, their children would ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        list(map(str, command)), stdin=theirs, stdout=theirs, stderr=theirs, env=head.environment()
    )
    signal.signal(signal.SIGINT, before)
    os.close(theirs)
    shown = ""
    try:
        for awaited, answer in (("Running entrypoint", None), ("[y/N]", b"y\n"), (None, None)):
            while awaited is None or awaited not in shown:
                try:
                    shown += os.read(ours, 65536).decode()
                except OSError:  # the other side is closed
                    break
            if answer:
                os.write(ours, answer)
            elif awaited:
                process.send_signal(signal.SIGINT)
        return process.wait(60), shown
    finally:
        process.kill()
        os.close(ours)


def test_without_the_right_token_nobody_is_let_in(head, index):
    wrong = head.start(*HERE, "--", "status", index, RAY_AUTH_TOKEN="wrong")
    none = head.start(*HERE, "--", "status", index, RAY_AUTH_TOKEN=None, HOME="/nowhere")
    for process, found in (
        (wrong, "refuses the token of RAY_AUTH_TOKEN."),
        (none, "asks for a token, and there is none."),
    ):
        done = finish(process)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"Error: Ray {head.url}: {found} Set the cluster's token")
        assert done.stderr.count("\n") == 1


def test_a_session_needs_the_token_of_the_cluster(head):
    wrong = "hush-" + "5" * 40
    done = run_python(SESSION, head.address, RAY_AUTH_TOKEN=head.token)
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    for address in (head.address, head.client_address):
        done = run_python(SESSION, address, RAY_AUTH_TOKEN=wrong)
        assert done.stdout.startswith(f"Ray {address}: refuses the token of RAY_AUTH_TOKEN. ")
        assert wrong not in done.stdout + done.stderr
    done = run_python(SESSION, head.client_address, HOME="/nowhere")
    assert done.stdout.startswith(f"Ray {head.client_address}: asks for a token, and there is none")


def test_the_token_is_nowhere_in_what_is_written(head, first):
    """Run last, over all logs of Ray and all that was printed."""
    for done in first.values():
        assert head.token not in done.stdout + done.stderr
    logs = [file for file in head.folder.rglob("*") if file.is_file()]
    assert any(file.name.startswith("job-driver-") for file in logs)
    assert [file for file in logs if head.token.encode() in file.read_bytes()] == []
