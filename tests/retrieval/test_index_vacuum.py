"""What `vacuum` removes, and that no version of the days to keep is ever touched."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from retrieval.errors import UsageError
from retrieval.index import open_index, read_index
from retrieval.index.folder import stored_files
from retrieval.index.staging import read_receipts, stage
from retrieval.maintenance import vacuum
from retrieval.maintenance.check import check_index
from retrieval.maintenance.restore import restore_index
from retrieval.maintenance.vacuum import KINDS, vacuum_index
from retrieval.storage import join, write_bytes
from tests.conftest import make_spec
from tests.versions import (
    DAY_S,
    PRESENT_S,
    add_rejects,
    add_shard,
    commit,
    date_commit,
    date_file,
    entry,
    old_index,
    rows_of,
)

NONE = {kind: {"files": 0, "bytes": 0} for kind in KINDS}


def shard_names(uri):
    return {file.name for file in stored_files(str(uri)) if file.name.startswith("shard-")}


def clean(path, keep_days=7, **settings):
    return vacuum_index(str(path), keep_days, now_s=PRESENT_S, **settings).to_json()


def test_versions_that_were_current_in_the_days_to_keep_stay(tmp_path):
    shards = old_index(tmp_path, [30, 20, 10, 5, 1])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    dry = clean(tmp_path, dry_run=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    report = clean(tmp_path)
    # Version 2 was current from ten days ago until five days ago, so within the last seven.
    assert shard_names(tmp_path) == {shard.path for shard in shards[2:]}
    assert report == {**dry, "dry_run": False}
    assert report["oldest_readable"] == 2
    assert report["removed"] == {
        **NONE,
        "rejects": {"files": 2, "bytes": report["removed"]["rejects"]["bytes"]},
        "shards": {"files": 2, "bytes": sum(shard.size_bytes for shard in shards[:2])},
    }
    assert sorted(path.name for path in (tmp_path / "_rejects").iterdir()) == [
        "run2", "run3", "run4"
    ]  # fmt: skip
    for version in (2, 3, 4):
        assert check_index(open_index(str(tmp_path), version)).faults == []
    assert clean(tmp_path)["removed"] == NONE
    with pytest.raises(UsageError, match=r"version 1 cannot be restored.*Versions 2 to 5 can be"):
        restore_index(str(tmp_path), 1)


def test_an_index_that_has_not_changed_for_long_loses_nothing(tmp_path):
    old_index(tmp_path, [400])
    assert clean(tmp_path)["removed"] == NONE
    assert clean(tmp_path)["oldest_readable"] == 0


def test_a_shard_that_came_back_stays(tmp_path):
    shards = old_index(tmp_path, [30, 20])
    restore_index(str(tmp_path), 0)
    date_commit(tmp_path, 2, PRESENT_S - 10 * DAY_S)
    assert clean(tmp_path)["removed"]["shards"]["files"] == 1
    assert shard_names(tmp_path) == {shards[0].path}
    assert check_index(open_index(str(tmp_path))).faults == []


@pytest.mark.parametrize("seed", range(10))
def test_every_version_that_was_current_can_be_read_afterwards(tmp_path, seed):
    rng = np.random.default_rng(seed)
    ages = np.sort(rng.integers(0, 40, 12))[::-1].tolist()
    shards, contents = [], []
    for number, age in enumerate(ages):
        shards.append(add_shard(tmp_path, {f"p{number}": str(number)}))
        date_file(tmp_path / shards[-1].path, PRESENT_S - age * DAY_S)
        held = rng.permutation(len(shards))[: rng.integers(1, 5)]
        contents.append({shards[place].path for place in held})
        commit(tmp_path, [shards[place] for place in held])
        date_commit(tmp_path, number, PRESENT_S - age * DAY_S)
    keep_days = int(rng.integers(1, 30))
    current = [n for n in range(12) if n == 11 or ages[n + 1] < keep_days]
    report = clean(tmp_path, keep_days)
    there = shard_names(tmp_path)
    wanted = set().union(*(contents[number] for number in current))
    young = {shards[n].path for n in range(12) if ages[n] < keep_days}
    assert there == wanted | young
    assert report["oldest_readable"] <= current[0]
    for number in range(report["oldest_readable"], 12):
        assert contents[number] <= there
    if report["oldest_readable"]:
        assert not contents[report["oldest_readable"] - 1] <= there


def test_commits_of_a_machine_whose_clock_is_wrong_are_not_lost(tmp_path):
    # Version 2 came after version 1, so it is no older, whatever it says.
    shards = old_index(tmp_path, [40, 3, 15])
    for shard in shards:
        date_file(tmp_path / shard.path, PRESENT_S - 50 * DAY_S)
    assert clean(tmp_path)["removed"]["shards"]["files"] == 0
    assert clean(tmp_path, 2)["removed"]["shards"]["files"] == 2


def test_a_commit_that_does_not_say_when_it_was_made_counts_as_young(tmp_path):
    shards = old_index(tmp_path, [40, 30])
    path = entry(tmp_path, 1)
    whole = path.read_text()
    path.write_text(re.sub(r'"timestamp": *\d+, *', "", whole, count=1))
    assert len(path.read_text()) < len(whole)
    assert clean(tmp_path)["removed"]["shards"]["files"] == 0
    assert shard_names(tmp_path) == {shard.path for shard in shards}


def stage_work(path, name, age_days, run_id="night"):
    """A shard and a receipt as a night leaves them before it commits."""
    rejects = rows_of({}).slice(0, 0)  # none
    receipt = stage(str(path), make_spec(2), (run_id, 1), rows_of({name: "1"}), rejects)
    when = PRESENT_S - age_days * DAY_S
    for part in (receipt.shard.path, receipt.path):
        date_file(path / part, when)
    return receipt


def test_work_of_a_night_that_never_went_on_is_removed_whole(tmp_path):
    shards = old_index(tmp_path, [30])
    work = stage_work(tmp_path, "w", 10)
    removed = clean(tmp_path)["removed"]
    assert removed["receipts"]["files"] == removed["shards"]["files"] == 1
    assert removed["shards"]["bytes"] == work.shard.size_bytes
    assert shard_names(tmp_path) == {shards[0].path}
    assert list((tmp_path / "_staging").iterdir()) == []


def test_young_work_stays_and_the_old_work_that_it_goes_on_with(tmp_path):
    old_index(tmp_path, [30])
    first, second = stage_work(tmp_path, "w", 10), stage_work(tmp_path, "v", 0.1)
    lost = add_rejects(tmp_path, "lost", ["x"])
    kept = add_rejects(tmp_path, "night", ["x"])
    for folder in (lost, kept):
        date_file(tmp_path / folder / "part-0.parquet", PRESENT_S - 10 * DAY_S)
    removed = clean(tmp_path)["removed"]
    assert removed == {**NONE, "rejects": {**removed["rejects"], "files": 1}}
    assert not (tmp_path / lost).exists()
    assert (tmp_path / kept / "part-0.parquet").exists()
    ours, others = read_receipts(str(tmp_path), make_spec(2))
    assert {receipt.shard.path for receipt in ours} == {first.shard.path, second.shard.path}
    assert others == []


def test_what_no_receipt_names_is_removed_once_it_is_old(tmp_path):
    old_index(tmp_path, [30])
    young, old = (add_shard(tmp_path, {name: "1"}) for name in ("young", "old"))
    date_file(tmp_path / young.path, PRESENT_S - 6.9 * DAY_S)
    date_file(tmp_path / old.path, PRESENT_S - 7.1 * DAY_S)
    rejects = tmp_path / add_rejects(tmp_path, "night", ["x"]) / "part-0.parquet"
    date_file(rejects, PRESENT_S - 6.9 * DAY_S)
    assert clean(tmp_path)["removed"]["shards"] == {"files": 1, "bytes": old.size_bytes}
    assert rejects.exists()
    assert young.path in shard_names(tmp_path)


def test_files_of_other_names_are_never_touched(tmp_path):
    old_index(tmp_path, [30, 20])
    names = [
        "notes.txt", "shard-1.parquet", "shard-" + "0" * 32 + ".parquet.bak", ".hidden.tmp",
        "Shard-" + "0" * 32 + ".parquet", "_staging/notes.txt", "_rejects/run0/notes.txt",
        "_rejects/notes.txt", "_runs/run0.json", "_probe/shard-" + "0" * 32 + ".parquet",
        "_delta_log/00000000000000000009.json.torn",
    ]  # fmt: skip
    for name in names:
        write_bytes(join(str(tmp_path), name), b"mine")
        date_file(tmp_path / name, PRESENT_S - 100 * DAY_S)
    assert clean(tmp_path)["removed"]["shards"]["files"] == 1
    for name in names:
        assert (tmp_path / name).read_bytes() == b"mine", name


def test_leftovers_of_killed_writes_are_removed_once_they_are_old(tmp_path):
    old_index(tmp_path, [30])
    leftovers = [
        f"{folder}.x.{number * 32}.tmp"
        for number, folder in zip("abcd", ("", "_delta_log/", "_staging/", "_runs/"), strict=True)
    ]
    for age, name in enumerate([*leftovers, f".young.{'e' * 32}.tmp"]):
        write_bytes(join(str(tmp_path), name), b"12")
        date_file(tmp_path / name, PRESENT_S - (10 if age < 4 else 5) * DAY_S)
    scratch = tmp_path / f".checkpoint.{'f' * 32}.tmp"
    (scratch / "_delta_log").mkdir(parents=True)
    os.link(entry(tmp_path, 0), scratch / "_delta_log" / entry(tmp_path, 0).name)
    date_file(scratch, PRESENT_S - 10 * DAY_S)
    assert clean(tmp_path)["removed"]["leftovers"] == {"files": 5, "bytes": 8}
    assert not any((tmp_path / name).exists() for name in leftovers)
    assert not scratch.exists()
    assert (tmp_path / f".young.{'e' * 32}.tmp").exists()
    assert check_index(open_index(str(tmp_path))).faults == []


def test_less_than_a_day_must_be_forced(tmp_path):
    shards = old_index(tmp_path, [30, 0.4])
    message = (
        "`keep_days` 0.3: what a running night has written and not committed yet would be "
        "removed, and versions that somebody is reading. Use 1 or more, or `force` when nothing "
        "else is running."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        clean(tmp_path, 0.3)
    assert shard_names(tmp_path) == {shard.path for shard in shards}
    assert clean(tmp_path, 0.3, force=True)["removed"]["shards"]["files"] == 1
    assert vacuum_index(str(tmp_path), 0, force=True).to_json()["removed"] == NONE
    assert read_index(str(tmp_path)).ids == ["p1"]


def test_days_that_the_log_does_not_go_back_to_are_refused(tmp_path):
    ages = [100 - number for number in range(14)]
    old_index(tmp_path, ages)
    for version in range(9):
        entry(tmp_path, version).unlink()
    with pytest.raises(UsageError, match="goes back to version 9 alone, which is younger"):
        clean(tmp_path, 95)
    assert clean(tmp_path, 88.5)["oldest_readable"] == 11


def test_a_version_that_was_restored_meanwhile_stays(tmp_path, monkeypatch):
    shards = old_index(tmp_path, [30, 20, 10])
    find = vacuum.find_rubbish

    def then_restore(*arguments):
        found = find(*arguments)
        if found.index.version == 2:
            names = {file.name for file in found.files["shards"]}
            assert names == {each.path for each in shards[:2]}
            restore_index(str(tmp_path), 0)
            date_commit(tmp_path, 3, PRESENT_S)
        return found

    monkeypatch.setattr(vacuum, "find_rubbish", then_restore)
    assert clean(tmp_path)["removed"]["shards"]["files"] == 1
    assert shard_names(tmp_path) == {shards[0].path, shards[2].path}
    assert check_index(open_index(str(tmp_path))).faults == []


@pytest.mark.parametrize("time_reached", range(1, 8))
def test_a_kill_at_any_removal_harms_nothing(tmp_path, time_reached):
    shards = old_index(tmp_path, [30, 20, 10, 3])
    stage_work(tmp_path, "w", 10)
    code = (
        "import sys; from retrieval.maintenance.vacuum import vacuum_index\n"
        f"vacuum_index(sys.argv[1], 7, now_s={PRESENT_S})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "RETRIEVAL_BREAKPOINT": f"vacuum:{time_reached}"}, check=False,
    )  # fmt: skip
    # One receipt, two files of rejects and three shards; the seventh time never comes.
    assert done.returncode == (-signal.SIGKILL if time_reached < 7 else 0)
    num_there = len(shard_names(tmp_path))
    assert num_there == 5 - max(0, time_reached - 4)
    for receipt in (tmp_path / "_staging").iterdir():
        assert time_reached == 1, receipt
    for version in (2, 3):
        assert check_index(open_index(str(tmp_path), version)).faults == []
    report = clean(tmp_path)
    assert report["oldest_readable"] == 2
    assert shard_names(tmp_path) == {shard.path for shard in shards[2:]}
    assert not list((tmp_path / "_rejects").glob("run[01]/*"))


def test_it_works_on_an_object_store(s3):
    uri = f"{s3}/vacuumed/a"
    shards = [add_shard(uri, {f"p{n}": "1"}) for n in range(3)]
    for number, shard in enumerate(shards):
        rejects = add_rejects(uri, f"run{number}", ["x"])
        commit(uri, [shard], run_id=f"run{number}", rejects=rejects)
    write_bytes(f"{uri}/_staging/run-{'a' * 32}.json", b"{}")
    write_bytes(f"{uri}/_candidates/20260101T000000-0123abcd.json", b"{}")
    write_bytes(f"{uri}/notes.txt", b"mine")
    assert vacuum_index(uri, 1).to_json()["removed"] == NONE
    later_s = time.time() + 10 * DAY_S
    removed = vacuum_index(uri, 7, now_s=later_s).to_json()["removed"]
    assert [removed[kind]["files"] for kind in KINDS] == [0, 1, 1, 2, 2]
    assert shard_names(uri) == {shards[2].path}
    assert read_index(uri).ids == ["p2"]
    assert check_index(open_index(uri)).faults == []
    assert [file.name for file in stored_files(uri) if file.name == "notes.txt"]
    assert vacuum_index(uri, 7, now_s=later_s).to_json()["removed"] == NONE
