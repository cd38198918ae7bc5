"""The parts of `submit` that need no cluster: what is sent, refused, and told from a log."""

from __future__ import annotations

import io
import json

import aiohttp
import pytest
from click.testing import CliRunner
from ray.job_submission import JobDetails

from pipelines.cli import main
from pipelines.submit import (
    Follower,
    JobServer,
    ReportSplitter,
    Request,
    exit_code,
    following,
    read_runtime_env,
)
from pipelines.submit.server import ServerError
from retrieval.errors import ClusterError, UsageError

REPORT = json.dumps({"rows": 2, "runs": [{"version": 0}], "empty": {}}, indent=2) + "\n"


def submit(*arguments, **environment):
    return CliRunner().invoke(main, ["submit", *map(str, arguments)], env=environment)


def test_a_dry_run_tells_what_would_be_sent_and_asks_nobody(tmp_path):
    file = tmp_path / "environment.yaml"
    file.write_text("env_vars: {OMP_NUM_THREADS: '1'}\nconfig: {setup_timeout_seconds: 60}")
    done = submit(
        *("--dry-run", "--address", "http://127.0.0.1:1", "--python", "/opt/a b/python"),
        *("--runtime-env", file, "--driver-node", "role=driver", "--submission-id", "night-1"),
        *("--", "rank", "s3://a b/q", "g", "r", "--top-k", "1"),
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "submission_id": "night-1",
        "entrypoint": "'/opt/a b/python' -m pipelines.cli rank 's3://a b/q' g r --top-k 1",
        "address": "http://127.0.0.1:1",
        "runtime_env": {
            "env_vars": {"OMP_NUM_THREADS": "1"},
            "config": {"setup_timeout_seconds": 60},
        },
        "node": {"role": "driver"},
    }


def test_an_id_of_its_own_names_the_verb_and_differs_each_time():
    ids = [json.loads(submit("--dry-run", "--", "status", "a").stdout) for _ in range(2)]
    first, second = (about["submission_id"] for about in ids)
    assert first != second
    verb, when, digits = first.split("-")
    assert (verb, len(when), len(digits)) == ("status", len("20260131T235959"), 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["--", "no-verb"], "'no-verb' is no verb to submit."),
        (["--", "submit", "--", "status", "a"], "'submit' is no verb to submit."),
        (["--", "rank", "a"], "Missing argument 'GALLERY'."),
        (["--", "rank", "a", "b", "c", "--metric", "hamming"], "'hamming' is none of"),
        (["--", "rank", "a", "b", "c", "--address", "auto"], "leave --address out."),
        (["--address", "10.0.0.1:6379", "--", "status", "a"], "http://HOST:8265; not the"),
        (["--address", "ray://10.0.0.1:10001", "--", "status", "a"], "http://HOST:8265; not the"),
        (["--address", "http://me:x@head:8265", "--", "status", "a"], "no user or password"),
        (["--submission-id", "a~2", "--", "status", "a"], "'a~2': letters, digits,"),
        (["--submission-id", "a/b", "--", "status", "a"], "'a/b': letters, digits,"),
        (["--driver-node", "gpu", "--", "status", "a"], "gpu"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(arguments, message):
    done = submit(*arguments)
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split())


def test_the_job_server_of_the_environment_is_the_default():
    named = submit("--dry-run", "--", "status", "a", RAY_API_SERVER_ADDRESS="http://head:8265")
    assert json.loads(named.stdout)["address"] == "http://head:8265"


def test_the_help_of_a_verb_is_its_own():
    done = submit("--", "status", "--help")
    assert (done.exit_code, done.stdout.split("\n")[0]) == (
        0,
        "Usage: main status [OPTIONS] INDEX",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env_var: {A: b}", "'env_var' unknown. Ray knows conda, config, "),
        ("_ray_commit: x", "'_ray_commit' unknown."),
        ("- a", "no mapping of keys"),
        ("a: [", "cannot be read: "),
        ("!!python/object/apply:os.system ['true']", "cannot be read: "),
        ("env_vars: {OMP_NUM_THREADS: 1}", "must be of type Dict[str, str]"),
        ("env_vars: [A]", "must be of type Dict[str, str]"),
        ("env_vars: {MY_PASSWORD: 1234}", "MY_PASSWORD looks like a credential"),
        ("env_vars: {AWS_SECRET_ACCESS_KEY: x}", "AWS_SECRET_ACCESS_KEY looks like a credential"),
        ("env_vars: {AWS_ACCESS_KEY_ID: x}", "AWS_ACCESS_KEY_ID looks like a credential"),
        ("env_vars: {RAY_AUTH_TOKEN: x}", "RAY_AUTH_TOKEN looks like a credential"),
        ("env_vars: {pgpassword: x}", "pgpassword looks like a credential"),
        ("env_vars: {AZURE_STORAGE_KEY: x}", "AZURE_STORAGE_KEY looks like a credential"),
    ],
)
def test_a_runtime_environment_that_is_none_is_refused_in_one_line(tmp_path, text, message):
    file = tmp_path / "environment.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_runtime_env(str(file))
    assert str(refused.value).startswith(f"`runtime_env` {file}: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_names_that_only_look_a_little_like_credentials_may_pass(tmp_path):
    names = ["TOKENIZERS_PARALLELISM", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_PROFILE", "KEYS"]
    file = tmp_path / "environment.json"
    file.write_text(json.dumps({"env_vars": dict.fromkeys(names, "x")}))
    assert list(read_runtime_env(str(file))["env_vars"]) == names


@pytest.mark.parametrize(
    "url",
    ["https://me:hush@host/photos", "https://h/p?X-Amz-Signature=hush", "gs://h/p?a=1&sig=hush"],
)
def test_secrets_in_the_command_are_refused_and_not_repeated(tmp_path, url):
    file = tmp_path / "environment.json"
    file.write_text(json.dumps({"pip": ["a", f"--index-url={url}"]}))
    for arguments in (["--", "status", url], ["--runtime-env", file, "--", "status", "a"]):
        done = submit("--dry-run", *arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "everybody who sees Ray's dashboard would read" in done.stderr
        assert "hush" not in done.stderr


def test_a_folder_that_is_no_source_tree_is_refused(tmp_path):
    done = submit("--dry-run", "--working-dir", tmp_path, "--", "status", "a")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: --working-dir {tmp_path}: pipelines/cli is not there.")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_report_is_told_from_the_log_however_it_is_cut(size):
    log = ["starting", "{", "  not json", "}", "{", "half a report", "{}", " {", "}", "last"]
    text = "\n".join(log[:-1]) + "\n" + REPORT + log[-1]
    report, rest = io.StringIO(), io.StringIO()
    splitter = ReportSplitter(report, rest)
    for start in range(0, len(text), size):
        splitter.write(text[start : start + size])
    splitter.close()
    assert report.getvalue() == REPORT
    assert rest.getvalue().splitlines() == log


def test_a_log_is_passed_on_at_once_and_a_report_cut_short_is_no_report():
    report, rest = io.StringIO(), io.StringIO()
    splitter = ReportSplitter(report, rest)
    splitter.write("one\ntwo\nthr")
    assert rest.getvalue() == "one\ntwo\n"
    splitter.write('ee\n{\n  "rows": 2')
    splitter.close()
    assert (report.getvalue(), rest.getvalue()) == ("", 'one\ntwo\nthree\n{\n  "rows": 2\n')


def test_what_is_nested_too_deep_is_no_report_and_ends_nothing():
    text = '{\n  "a": ' + "[" * 100_000 + "\n}\nlast\n"
    report, rest = io.StringIO(), io.StringIO()
    splitter = ReportSplitter(report, rest)
    splitter.write(text)
    splitter.close()
    assert (report.getvalue(), rest.getvalue()) == ("", text)


class FakeServer:
    """A server whose log breaks off where it is told to; a real one cannot be made to."""

    url = "http://fake"
    text = "one\ntwo\n" + REPORT + "three\n"

    def __init__(self, *breaks):
        self.breaks = list(breaks)  # after so many characters

    async def tail(self, run_id):
        end = self.breaks.pop(0) if self.breaks else len(self.text)
        yield self.text[: end // 2]
        yield self.text[end // 2 : end]
        if end < len(self.text):
            raise aiohttp.ServerDisconnectedError

    def log(self, run_id):
        return self.text

    def info(self, run_id):
        return details("RUNNING" if self.breaks else "SUCCEEDED")


class DeadServer(FakeServer):
    def info(self, run_id):
        raise ServerError("nobody answers")


def details(status, **more):
    return JobDetails(
        type="SUBMISSION",
        submission_id="night",
        status=status,
        entrypoint="/opt/python -m pipelines.cli status a",
        **more,
    )


def test_no_line_comes_twice_or_is_lost_over_lost_connections(monkeypatch, capsys):
    monkeypatch.setattr(following, "_LONGEST_PAUSE_S", 0.0)
    report, rest = io.StringIO(), io.StringIO()
    server = FakeServer(2, 30, 5, 0, 12)
    assert Follower(server, "night", ReportSplitter(report, rest)).wait().status == "SUCCEEDED"
    assert (report.getvalue(), rest.getvalue()) == (REPORT, "one\ntwo\nthree\n")
    assert "job night: connection lost (Server disconnected); trying" in capsys.readouterr().err


def test_a_server_that_stays_away_is_given_up(monkeypatch, capsys):
    monkeypatch.setattr(following, "_LONGEST_PAUSE_S", 0.0)
    monkeypatch.setattr(following, "_PATIENCE_S", 0.01)
    follower = Follower(DeadServer(), "night", ReportSplitter(io.StringIO(), None))
    with pytest.raises(ClusterError, match=r"no word of job night for .* It may run on\."):
        follower.wait()
    assert capsys.readouterr().err.count("connection lost") == 1


class RacingClient:
    """Ray's client, to which a job comes between the look and the submission; and a busy head."""

    def __init__(self):
        self.answers = [
            "no agent, please try again later",
            "Job with submission_id night~2 already",
        ]
        self.jobs = {"night": details("FAILED")}

    def get_job_info(self, run_id):
        if run_id not in self.jobs:
            raise RuntimeError("Request failed with status code 404: no such job")
        return self.jobs[run_id]

    def submit_job(self, *, submission_id, **settings):
        answer = self.answers.pop(0)
        if "already" in answer:
            self.jobs[submission_id] = details("RUNNING")
        raise RuntimeError(f"Request failed with status code 500: {answer} exists.")


def test_whoever_submits_a_moment_too_late_gets_the_job_of_the_other(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server = JobServer.__new__(JobServer)  # connects to nobody
    server.url, server._client = "http://fake", RacingClient()
    request = Request("night", details("RUNNING").entrypoint)
    placed, is_new = server.place(request)
    assert (placed.status, is_new) == ("RUNNING", False)
    assert server._client.answers == []


@pytest.mark.parametrize(
    ("ended", "code", "said"),
    [
        (details("SUCCEEDED", driver_exit_code=0), 0, ""),
        (details("FAILED", driver_exit_code=2), 2, "job night: failed with exit code 2.\n"),
        (details("FAILED", driver_exit_code=-9), 137, "job night: failed with exit code 137.\n"),
        (
            details("FAILED", driver_exit_code=1, message="x\nNo module named 'pipelines')\n"),
            1,
            "job night: failed with exit code 1. /opt/python of the cluster has no retrieval-cli: "
            "install it there, name the interpreter that has it by `python`, or ship a checkout by "
            "`working_dir`\n",
        ),
    ],
)
def test_the_exit_code_is_the_one_of_the_job(ended, code, said, capsys):
    assert exit_code(ended) == code
    assert capsys.readouterr().err == said


def test_a_job_without_an_exit_code_says_why_in_one_line():
    with pytest.raises(ClusterError, match=r"^job night: was stopped\."):
        exit_code(details("STOPPED"))
    with pytest.raises(ClusterError, match=r"^job night: failed\. no such package$"):
        exit_code(details("FAILED", message="no such\n  package\n"))
