"""`rank` killed and run again: finished parts are kept, the result is an undisturbed run's."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cli import INTERRUPTED
from pipelines.rank import RankConfig, run
from tests.pipelines.ranks import started
from tests.retrieval.ranks import (
    budget,
    commit,
    draw,
    killed_after,
    make_shard,
    marks_of,
    parts_of,
    rows_of,
    stray_files,
    write_foreign,
)

# 60 queries, three at a time: 20 parts. By minkowski, since it computes every pair.
SLOW = {"metric": "minkowski:3", "top_k": 4, "num_threads": 1}
SMALL = RankConfig(
    top_k=4, num_threads=1, memory_bytes=budget(300, 8, 4, 4, query_rows=3), metric="l2"
)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """What takes a real process a second or two: queries, gallery, settings, result."""
    folder = tmp_path_factory.mktemp("large")
    write_foreign(folder / "q" / "0.parquet", (f"q{n}" for n in range(60)), draw(1, 60, 32))
    for number in range(2):
        names = (f"g{number}-{n}" for n in range(2500))
        write_foreign(folder / "g" / f"{number}.parquet", names, draw(number, 2500, 32))
    config = RankConfig(**SLOW, memory_bytes=budget(5000, 64, 32, 4, query_rows=3))
    q, g = str(folder / "q"), str(folder / "g")
    report = run(q, g, str(folder / "rk"), config)
    assert report["plan"]["query_rows"] == 3
    return q, g, config, folder / "rk"


def command_of(q, g, ranking, config):
    options = ["--metric", config.metric, "--top-k", config.top_k]
    options += ["--num-threads", config.num_threads, "--memory-gib", config.memory_bytes / 2**30]
    return ["rank", q, g, ranking, *options]


def test_killed_in_the_middle_and_run_again_it_ranks_the_rest_and_keeps_what_was_there(
    large, tmp_path
):
    q, g, config, undisturbed = large
    folder = tmp_path / "rk"
    run(q, g, str(folder), RankConfig(top_k=1, num_threads=1))
    old, old_marks = rows_of(folder), marks_of(folder)
    with started(command_of(q, g, folder, config), folder, len(old_marks) + 3) as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    kept = {name: mark for name, mark in marks_of(folder).items() if name not in old_marks}
    assert 3 <= len(kept) < 20
    assert rows_of(folder) == old  # until there is a new one
    report = run(q, g, str(folder), config)
    assert report["num_resumed_parts"] == len(kept)
    assert report["num_rows"] == 60 * 4
    assert len(report["certificate"]) == 20
    after = marks_of(folder)
    assert {name: after[name] for name in kept} == kept
    assert parts_of(folder) == parts_of(undisturbed)
    assert [name for name in stray_files(folder) if not name.startswith(".")] == []


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_interrupted_it_says_how_many_parts_are_kept_and_goes_on_after_them(
    large, tmp_path, name, code
):
    q, g, config, undisturbed = large
    folder = tmp_path / "rk"
    with started(command_of(q, g, folder, config), folder, 3) as process:
        os.killpg(process.pid, getattr(signal, name))  # as a terminal does
        output, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert output == ""
    told, said = errors.splitlines()
    count, rest = told.split(" ", 1)
    assert int(count) in (len(marks_of(folder)), len(marks_of(folder)) - 1)
    assert rest == (
        f"of 20 parts are finished and kept in {folder}: the same command goes on after them."
    )
    assert said == f"Error: {INTERRUPTED}"
    assert stray_files_of_unfinished(folder) == []
    assert run(q, g, str(folder), config)["num_resumed_parts"] >= 3
    assert parts_of(folder) == parts_of(undisturbed)
    assert stray_files(folder) == []


def stray_files_of_unfinished(folder):
    return sorted({path.name for path in folder.iterdir()} - set(marks_of(folder)))


# -------------------------------------------------------------- what may be kept, and what not


@pytest.fixture
def small(tmp_path):
    """Queries, gallery and a folder in which two of four parts are finished."""
    write_foreign(tmp_path / "q" / "0.parquet", (f"q{n}" for n in range(12)), draw(1, 12, 4))
    write_foreign(tmp_path / "g" / "0.parquet", (f"g{n}" for n in range(300)), draw(2, 300, 4))
    q, g, folder = str(tmp_path / "q"), str(tmp_path / "g"), tmp_path / "rk"
    killed_after(2, q, g, folder, SMALL)
    assert len(marks_of(folder)) == 2
    return q, g, folder


def check(q, g, folder, config, num_resumed):
    """Rank again; the rest, and all of it, must be as in a folder of its own."""
    report = run(q, g, str(folder), config)
    assert report["num_resumed_parts"] == num_resumed
    fresh = folder.with_name("fresh")
    run(q, g, str(fresh), config)
    assert parts_of(folder) == parts_of(fresh)
    assert stray_files(folder) == []


def test_the_same_run_keeps_its_parts_and_a_finished_one_all_of_them(small):
    q, g, folder = small
    check(q, g, folder, SMALL, 2)
    marks = marks_of(folder)
    check(q, g, folder, SMALL, 4)
    assert marks_of(folder) == marks


@pytest.mark.parametrize(
    "changes",
    [
        {"top_k": 5},
        {"metric": "l1"},
        {"exclude_self": True},
        {"memory_bytes": SMALL.memory_bytes + 2**14},
    ],
)
def test_other_settings_reuse_nothing(small, changes):
    q, g, folder = small
    check(q, g, folder, replace(SMALL, **changes), 0)


@pytest.mark.parametrize(("side", "num_rows"), [("q", 12), ("g", 300)])
def test_a_foreign_file_written_anew_under_its_name_reuses_nothing(small, tmp_path, side, num_rows):
    q, g, folder = small
    names = (f"{side}{n}" for n in range(num_rows))
    write_foreign(tmp_path / side / "0.parquet", names, draw(9, num_rows, 4))
    check(q, g, folder, SMALL, 0)


def test_a_foreign_file_more_reuses_nothing(small, tmp_path):
    q, g, folder = small
    write_foreign(tmp_path / "g" / "1.parquet", ["more"], draw(9, 1, 4))
    check(q, g, folder, SMALL, 0)


@pytest.mark.parametrize("changed", ["0.npy", "0.parquet"])
def test_either_file_of_a_changed_npy_pair_reuses_nothing(tmp_path, changed):
    write_foreign(tmp_path / "q" / "0.parquet", (f"q{n}" for n in range(12)), draw(1, 12, 4))
    (tmp_path / "g").mkdir()

    def write(name, seed):
        if name == "0.npy":
            np.save(tmp_path / "g" / name, draw(seed, 300, 4))
        else:
            ids = pa.table({"id": [f"{seed}-{n:03}" for n in range(300)]})
            pq.write_table(ids, tmp_path / "g" / name)

    for name in ("0.npy", "0.parquet"):
        write(name, 2)
    q, g, folder = str(tmp_path / "q"), str(tmp_path / "g"), tmp_path / "rk"
    killed_after(2, q, g, folder, SMALL)
    write(changed, 3)
    check(q, g, folder, SMALL, 0)


def torn(part):
    part.write_bytes(part.read_bytes()[:-20])


def flipped(part):
    """One bit of one score, which only the page's checksum shows."""
    column = pq.read_metadata(part).row_group(0).column(3)
    data = bytearray(part.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 6] ^= 1
    part.write_bytes(data)
    assert pq.read_table(part).num_rows == 12


def emptied(part):
    part.write_bytes(b"")


def replaced(part):
    pq.write_table(pq.read_table(part).drop(["rank"]), part)


@pytest.mark.parametrize("damage", [torn, flipped, emptied, replaced])
def test_a_kept_part_that_is_damaged_is_ranked_again_and_the_others_are_kept(small, damage):
    q, g, folder = small
    first, second = sorted(folder.glob("part-*"))
    before = marks_of(folder)[second.name]
    damage(first)
    check(q, g, folder, SMALL, 1)
    assert marks_of(folder)[second.name] == before


def test_parts_after_a_gap_are_kept_too(small):
    q, g, folder = small
    run(q, g, str(folder), SMALL)
    (folder / "_ranking.json").unlink()
    sorted(folder.glob("part-*"))[1].unlink()
    check(q, g, folder, SMALL, 3)


def test_what_other_killed_runs_have_left_is_removed_by_one_that_finishes(small):
    q, g, folder = small
    killed_after(1, q, g, folder, replace(SMALL, top_k=7))
    killed_after(1, q, g, folder, replace(SMALL, metric="ip"))
    assert len(marks_of(folder)) == 4
    check(q, g, folder, SMALL, 2)


def test_an_index_version_that_is_newer_reuses_nothing_and_the_same_does(small, tmp_path):
    q, *_ = small
    index, folder = tmp_path / "index", tmp_path / "by-index"
    rows = {f"g{n}": vector for n, vector in enumerate(draw(3, 300, 4))}
    shard = make_shard(index, rows)
    commit(index, [shard], dim=4)
    config = replace(SMALL, memory_bytes=budget(300, 8, 4, 4, query_rows=3))
    killed_after(2, q, index, folder, config)
    shutil.copytree(folder, tmp_path / "copy")
    check(q, str(index), folder, config, 2)
    commit(index, [shard], dim=4)  # a commit of the same shards is another version
    check(q, str(index), tmp_path / "copy", config, 0)


def test_a_file_that_was_being_written_when_the_run_was_killed_is_removed(small):
    q, g, folder = small
    key = next(folder.glob("part-*")).name
    (folder / f".{key}.{'0' * 32}.tmp").write_bytes(b"half")
    run(q, g, str(folder), SMALL)
    assert stray_files(folder) == []
