"""When an index was last found to be like its gallery, by the records of its runs."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import asdict
from importlib.metadata import version

import pytest

from retrieval.errors import GateError, StorageError
from retrieval.index import (
    failures_recorded,
    last_check_us,
    open_index,
    read_records,
    write_record,
)
from retrieval.index.records import provenance
from retrieval.storage import list_files
from tests.retrieval.commits import commit, make_shard

NOON = 1_700_000_000_000_000


@pytest.fixture
def index(tmp_path):
    """Version 1 of an index, committed by a run that listed its photos at noon."""
    first = make_shard(tmp_path, "a")
    commit(tmp_path, [first], None, listed_us=NOON - 9, run_id="0")
    commit(tmp_path, [first, make_shard(tmp_path, "b")], 0, listed_us=NOON, run_id="1")
    return open_index(str(tmp_path))


def record(index, name, **entries):
    write_record(index.uri, name, entries, pytest.fail)


def test_without_records_it_is_when_the_run_that_committed_it_listed(index):
    assert last_check_us(index) == NOON
    assert last_check_us(open_index(index.uri, 0)) == NOON - 9


def test_without_any_word_of_it_nobody_knows(tmp_path):
    commit(tmp_path, [make_shard(tmp_path, "a")], None)
    index = open_index(str(tmp_path))
    assert last_check_us(index) == 0
    record(index, "1", version_after=0, listed_us=7)
    assert last_check_us(index) == 7


def test_a_later_run_that_had_nothing_to_commit_counts(index):
    record(index, "20260101", version_after=1, listed_us=NOON)
    assert last_check_us(index) == NOON
    record(index, "20260102", version_after=1, listed_us=NOON + 1)
    record(index, "20260103", version_after=1, listed_us=NOON + 2)
    assert last_check_us(index) == NOON + 2


def test_a_record_that_is_older_than_the_commit_does_not(index):
    record(index, "20260101", version_after=1, listed_us=NOON - 1)
    assert last_check_us(index) == NOON


def test_runs_that_failed_were_refused_or_are_of_another_version_do_not_count(index):
    record(index, "20260101", version_after=1, listed_us=NOON + 1)
    record(index, "20260102", status="failed", message="no")
    record(index, "20260103", status="refused", listed_us=NOON + 2)
    record(index, "20260104", version_after=2, listed_us=NOON + 3)
    record(index, "20260105", version_after=0, listed_us=NOON + 4)
    record(index, "20260106", version_after="1", listed_us=NOON + 5)
    record(index, "20260107", version_after=None, listed_us=NOON + 6)
    assert last_check_us(index) == NOON + 1
    assert last_check_us(open_index(index.uri, 0)) == NOON + 4


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"7", b"\xff", b'"version_after"'], ids=repr
)
def test_a_record_that_cannot_be_read_is_passed_over(index, tmp_path, content):
    record(index, "20260101", version_after=1, listed_us=NOON + 1)
    (tmp_path / "_runs" / "20260102.json").write_bytes(content)
    assert last_check_us(index) == NOON + 1


@pytest.mark.parametrize("listed_us", [None, "1", 2.5, [], {}], ids=repr)
def test_a_record_that_does_not_say_when_says_nothing(index, listed_us):
    record(index, "20260102", version_after=1, listed_us=listed_us)
    assert last_check_us(index) == NOON


@pytest.mark.parametrize(("num_failed", "is_found"), [(9, True), (10, False)])
def test_a_few_failures_are_looked_past_but_not_a_year_of_them(index, num_failed, is_found):
    record(index, "20260101", version_after=1, listed_us=NOON + 1)
    for number in range(num_failed):
        record(index, f"202602{number:02d}", status="failed")
    assert last_check_us(index) == NOON + is_found


def test_a_record_is_read_by_people_and_takes_the_place_of_one_of_the_same_run(tmp_path):
    write_record(str(tmp_path), "run", {"status": "begun"}, pytest.fail)
    second = {"photos": "/é", "counts": {"num_listed": 3}}
    said = write_record(str(tmp_path), "run", second, pytest.fail)
    assert list_files(str(tmp_path / "_runs")) == [f"{tmp_path}/_runs/run.json"]
    text = (tmp_path / "_runs" / "run.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "photos": "/é",\n  "counts": {\n    "num_listed": 3\n  },\n')
    assert json.loads(text) == {**second, **asdict(said)}


def test_a_record_says_when_where_and_by_which_versions(tmp_path, monkeypatch):
    config = {"metadata": {"job_submission_id": "night-7"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(config))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "never-told")
    said = write_record(str(tmp_path), "run", {}, pytest.fail)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", said.ended_at)
    made_by = said.made_by
    assert made_by["host"] == socket.gethostname()
    assert made_by["submission_id"] == "night-7"
    assert made_by["versions"]["ray"] == version("ray")
    assert made_by["versions"]["retrieval-cli"] == version("retrieval-cli")
    assert "never-told" not in (tmp_path / "_runs" / "run.json").read_text()
    for odd in ("", "{", "[]", '{"metadata": null}', '{"metadata": {"job_submission_id": 7}}'):
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", odd)
        assert provenance()["submission_id"] is None


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (StorageError("the disk is full"), "failed", "the disk is full"),
        (KeyboardInterrupt(), "interrupted", "stopped by ctrl-C or SIGTERM"),
    ],
)
def test_a_run_that_fails_or_is_stopped_has_a_record_too(index, error, status, message):
    with (
        pytest.raises(type(error)),
        failures_recorded(index.uri, {"photos": "/photos"}, pytest.fail),
    ):
        raise error
    (record,) = read_records(index.uri, 10)
    assert (record["status"], record["message"], record["photos"]) == (status, message, "/photos")
    assert record["run_id"].endswith("-failed")


def test_where_there_is_no_index_no_record_of_a_failure_makes_a_folder(tmp_path):
    with pytest.raises(StorageError), failures_recorded(str(tmp_path), {}, pytest.fail):
        raise StorageError("no photos")
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_the_gate_refuses_has_its_record_from_elsewhere(index):
    with pytest.raises(GateError), failures_recorded(index.uri, {}, pytest.fail):
        raise GateError("too few are found")
    assert list(read_records(index.uri, 10)) == []


def test_the_last_records_come_newest_first_without_those_that_nobody_can_read(index, tmp_path):
    for number in range(4):
        record(index, f"2026010{number}", number=number)
    (tmp_path / "_runs" / "20260109.json").write_bytes(b"{")
    assert [each["number"] for each in read_records(index.uri, 3)] == [3, 2]


def test_a_record_is_no_file_of_the_table(index):
    before = list_files(index.uri)
    record(index, "run", version_after=1)
    assert list_files(index.uri) == before


def test_a_record_that_cannot_be_written_is_told_and_no_error(tmp_path):
    (tmp_path / "_runs").write_bytes(b"a file")
    said = []
    write_record(str(tmp_path), "run", {}, said.append)
    (message,) = said
    where = f"{tmp_path}/_runs/run.json"
    assert message.startswith(f"The record of this run is lost: {where}: cannot be written (")
    assert "\n" not in message
