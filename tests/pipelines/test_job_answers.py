"""A job server that answers wrongly, half or not at all costs one line; a bad log costs no job."""

from __future__ import annotations

import io
import json
import threading

import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.submit import Follower, JobServer, ReportSplitter, following, server
from tests.pipelines.fake_job_server import VERSION, answering, job

REPORT = json.dumps({"rows": 2}, indent=2)
LOG, RAW = "/api/jobs/night/logs", "/api/v0/logs/file"
NOT_UTF8 = (
    500,
    b"Traceback (most recent call last):\n  File x\n"
    b"UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe9 in position 3\n",
)


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(following, "_LONGEST_PAUSE_S", 0.0)


def follow(answers):
    """Follow job "night" to its end; the job, its report, the rest of its log, and the paths."""
    report, rest = io.StringIO(), io.StringIO()
    with answering({"/api/version": VERSION, **answers}) as (url, asked):
        ended = Follower(JobServer(url), "night", ReportSplitter(report, rest)).wait()
    return ended, report.getvalue(), rest.getvalue(), asked


def test_a_log_that_is_not_utf_8_is_read_from_its_file(capsys):
    raw = b"Running entrypoint\r\ncaf\xe9\n" + REPORT.encode() + b"\nlast"
    ended, report, rest, asked = follow(
        {"/api/jobs/night": job("SUCCEEDED"), LOG: NOT_UTF8, RAW: (200, raw)}
    )
    assert (ended.status, report) == ("SUCCEEDED", REPORT + "\n")
    assert rest == "Running entrypoint\ncaf\\xe9\nlast\n"
    assert capsys.readouterr().err == ""
    [file] = [path for path in asked if path.startswith(RAW)]
    assert f"node_id={'ab' * 28}&filename=job-driver-night.log&lines=-1" in file


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED"])
def test_a_log_that_nobody_can_read_changes_no_end_of_a_job(status, capsys):
    ended, report, rest, _ = follow(
        {"/api/jobs/night": job(status, driver_exit_code=3), LOG: NOT_UTF8, RAW: (500, b"gone")}
    )
    assert (ended.status, ended.driver_exit_code, report, rest) == (status, 3, "", "")
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("job night: its log cannot be read (")
    assert "job-driver-night.log in the folder of Ray's logs" in line
    assert "on the node http://10.0.0.7:52365" in line


def test_a_job_that_runs_is_followed_though_its_log_breaks_off(monkeypatch, capsys):
    looks = iter(["RUNNING"] * 3 + ["SUCCEEDED"] * 9)

    def answer(handler):
        status, body = job(next(looks))
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    raw = b"caf\xe9\nhalf \xc3"  # the rest of the letter is not yet written
    _, _, rest, _ = follow({"/api/jobs/night": answer, LOG: NOT_UTF8, RAW: (200, raw)})
    assert rest == "caf\\xe9\nhalf \\xc3\n"
    assert capsys.readouterr().err.count("connection lost") == 1


PAGE = b"<html><head><title>x</title></head><body>Please\n log in</body></html>"


def submit(*arguments):
    return CliRunner().invoke(main, ["submit", *arguments, "--", "status", "a"])


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"/api/version": (401, b"who?")}, "asks for a token, and there is none."),
        ({"/api/version": (403, b"no")}, "refuses|asks for a token"),
        ({}, "Version check returned 404"),
        ({"/api/version": (500, PAGE)}, "somebody answers there, but not as Ray's job server"),
        ({"/api/version": (502, b"")}, "somebody answers there, but not as Ray's job server"),
        ({"/api/version": (200, PAGE)}, "somebody answers there, but not as Ray's job server"),
        ({"/api/version": (200, b"[1]")}, "somebody answers there, but not as Ray's job server"),
        ({"/api/version": (200, b'{"ray_version": "2.')}, "somebody answers there"),
        ({"/api/version": (200, b"{}")}, "ray_version"),
        ({"/api/version": (200, b'{"ray_version": "\\u202e"}')}, r"\\u202e"),
    ],
)
def test_a_wrong_answer_is_told_in_one_line(answers, said):
    with answering(answers) as (url, _):
        done = submit("--address", url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: Ray {url}: ") or done.stderr.startswith(
        f"Error: Ray jobs {url}: "
    )
    assert any(each in done.stderr for each in said.replace("\\\\", "\\").split("|")), done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_page_with_a_traceback_is_told_by_its_last_line(capsys):
    with answering({"/api/version": VERSION, "/api/jobs/night": NOT_UTF8}) as (url, _):
        done = submit("--address", url, "--submission-id", "night")
    assert done.exit_code == 1
    assert "status code 500: UnicodeDecodeError: 'utf-8' codec" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_is_silent_and_one_that_sends_half(monkeypatch):
    monkeypatch.setattr(server, "_TIMEOUT_S", 0.3)
    over = threading.Event()

    def half(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"{")

    def elsewhere(handler):
        handler.send_response(302)
        handler.send_header("Location", "/api/version")
        handler.end_headers()

    for answer in (lambda handler: over.wait(5), half, elsewhere):
        with answering({"/api/version": answer}) as (url, _):
            done = submit("--address", url)
            over.set()
        assert done.exit_code == 1
        assert done.stderr.startswith(f"Error: Ray jobs {url}: nobody answers there.")
        assert done.stderr.count("\n") == 1


def test_what_a_server_says_is_shown_without_credentials():
    body = b"password=hush-hush for https://me:hush-hush@h/ failed"
    with answering({"/api/version": VERSION, "/api/jobs/night": (500, body)}) as (url, _):
        done = submit("--address", url, "--submission-id", "night")
    assert done.exit_code == 1
    assert "failed" in done.stderr
    assert "hush" not in done.stderr


def test_a_log_cannot_steer_a_terminal_and_a_report_stays_the_same():
    lines = ["\x1b[36m(pid=1)\x1b[0m a\tb\r", "\x1b]0;title\x07", "gpj.\u202ea", "50 %\r100 %"]
    report = {"name\u202e": "\x9b2J", "nan": float("nan"), "many": ["\u2028"] * 10_000}
    shown, rest = io.StringIO(), io.StringIO()
    splitter = ReportSplitter(shown, rest)
    splitter.write("\n".join([*lines, json.dumps(report, indent=2, ensure_ascii=False), ""]))
    splitter.close()
    assert rest.getvalue().splitlines() == [
        "(pid=1) a       b",
        r"\x1b]0;title\x07",
        r"gpj.\u202ea",
        r"50 %\r100 %",
    ]
    found = json.loads(shown.getvalue())
    assert {**found, "nan": None} == {**report, "nan": None}
    assert shown.getvalue().replace("\n", "").isprintable()
