"""`rank` where files change or the disk fills up while it works."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from retrieval.errors import IndexFormatError, StorageError
from retrieval.progress import QUIET
from retrieval.ranking import queries as query_module
from retrieval.ranking.settings import RankConfig
from tests.retrieval.ranks import FOREIGN as CONFIG
from tests.retrieval.ranks import (
    budget,
    commit,
    doing_after,
    draw,
    error_of,
    foreign_sides,
    make_shard,
    marks_of,
    parts_of,
    run,
    stray_files,
    write_foreign,
)


@pytest.fixture
def sides(tmp_path):
    return foreign_sides(tmp_path)


class Log:
    """Keeps what stays to be read, as `Progress`."""

    def __init__(self):
        self.said = []
        self.status = QUIET.status
        self.line = QUIET.line

    def say(self, text):
        self.said.append(text)


def vanish(path):
    path.unlink()


def shrink(path):
    write_foreign(path, (f"x{n}" for n in range(99)), draw(7, 99, 4))


def regroup(path):
    pq.write_table(pq.read_table(path), path, row_group_size=40)


def tear(path):
    path.write_bytes(path.read_bytes()[:-30])


def widen(path):
    write_foreign(path, (f"x{n}" for n in range(100)), draw(7, 100, 5))


def spoil(path):
    table = pq.read_table(path)
    vectors = np.stack(table["vector"].to_numpy()).copy()
    vectors[77, 1] = np.nan
    write_foreign(path, table["id"].to_pylist(), vectors)


MEANWHILE = [
    (vanish, "{file}: this shard cannot be read (No such file or directory). Write it again, or "
     "rank another version."),
    (shrink, "{file}: 99 rows, but 100 when the job began. A shard must not change while it is "
     "ranked: run the job again."),
    (regroup, "{file}: row group 0 has 40 rows, but 100 when the job began. A shard must not "
     "change while it is ranked: run the job again."),
    (tear, "{file}: this shard cannot be read (Parquet magic bytes not found in footer. Either the "
     "file is corrupted or this is not a parquet file.). Write it again, or rank another version."),
    (widen, "{file}, row 0: 5 dimensions; 4 dimensions are needed, as in the first row of the "
     "first file."),
    (spoil, "{file}, row 77: the vector is NaN; finite vectors other than zero are needed. Embed "
     "this image again, or leave it out."),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), MEANWHILE)
def test_a_gallery_file_that_changes_meanwhile_ends_the_run_and_the_parts_before_are_kept(
    sides, tmp_path, change, said
):
    q, g, folder = sides
    file = tmp_path / "g" / "1.parquet"
    content, stamp = file.read_bytes(), file.stat()
    log = Log()
    with doing_after(2, lambda: change(file)):
        assert error_of(IndexFormatError, q, g, folder, progress=log) == said.format(file=file)
    assert log.said == [
        f"2 of 4 parts are finished and kept in {folder}: the same command goes on after them."
    ]
    assert len(marks_of(folder)) == len(list(folder.iterdir())) == 2
    # The file is another one now, so that its parts are ranked again.
    file.write_bytes(content)
    assert file.stat().st_mtime_ns != stamp.st_mtime_ns
    assert run(q, g, str(folder), CONFIG)["num_resumed_parts"] == 0
    run(q, g, str(tmp_path / "fresh"), CONFIG)
    assert parts_of(folder) == parts_of(tmp_path / "fresh")
    assert stray_files(folder) == []


def test_a_missing_shard_of_an_index_that_is_put_back_costs_no_part(sides, tmp_path):
    q, _, folder = sides
    index, rows = tmp_path / "index", dict(zip("abcdefgh", draw(5, 8, 4), strict=True))
    shard = make_shard(index, rows)
    commit(index, [shard], dim=4)
    file = index / shard.path
    content = file.read_bytes()
    config = replace(CONFIG, memory_bytes=budget(8, 8, 4, 4, query_rows=3, num_threads=2))
    with doing_after(3, file.unlink):
        said = error_of(IndexFormatError, q, str(index), folder, config)
    assert said.startswith(f"{file}: this shard cannot be read (No such file or directory).")
    file.write_bytes(content)
    assert run(q, str(index), str(folder), config)["num_resumed_parts"] == 3


def test_a_file_with_nothing_readable_at_the_start_leaves_no_folder(sides, tmp_path):
    q, g, folder = sides
    spoil(tmp_path / "g" / "2.parquet")
    said = error_of(IndexFormatError, q, g, folder)
    assert said.startswith(f"{g}/2.parquet, row 77: the vector is NaN")
    assert not folder.exists()


def test_queries_whose_ids_change_between_two_readings_are_never_ranked_by_chance(
    sides, tmp_path, monkeypatch
):
    q, g, folder = sides
    read_ids = query_module.read_ids

    def then_change(source, file, max_rows):
        yield from read_ids(source, file, max_rows)
        write_foreign(tmp_path / "q" / "0.parquet", (f"x{n}" for n in range(12)), draw(1, 12, 4))

    monkeypatch.setattr(query_module, "read_ids", then_change)
    assert error_of(IndexFormatError, q, g, folder) == (
        f"{q}: its ids changed while they were read. Run again."
    )


# -------------------------------------------------------------------------------- full disks


def test_on_a_full_disk_the_finished_parts_are_kept_and_with_room_the_run_goes_on(tmp_path):
    q, g, disk = str(tmp_path / "q"), str(tmp_path / "g"), tmp_path / "disk"
    write_foreign(tmp_path / "q" / "0.parquet", (f"q{n}" for n in range(12)), draw(1, 12, 4))
    write_foreign(tmp_path / "g" / "0.parquet", (f"g{n}" for n in range(900)), draw(2, 900, 4))
    config = RankConfig(top_k=900, num_threads=1, memory_bytes=budget(900, 8, 4, 900, query_rows=2))
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        folder = disk / "rk"
        log = Log()
        error = error_of(StorageError, q, g, folder, config, progress=log)
        kept = marks_of(folder)
        assert 1 <= len(kept) < 6
        assert log.said == [
            f"{len(kept)} of 6 parts are finished and kept in {folder}: the same command goes on "
            f"after them."
        ]
        assert re.fullmatch(
            rf"{folder}/part-\d{{5}}-\w{{12}}\.parquet: cannot be written \(No space left "
            rf"on device\)\. Choose a folder that you may write to and that has room\.",
            error,
        )
        with pytest.raises(StorageError):
            run(q, g, str(folder), config)
        assert sorted(path.name for path in folder.iterdir()) == sorted(kept)
        subprocess.run([*mount[:4], "remount,size=4m", *mount[5:]], check=True)
        assert run(q, g, str(folder), config)["num_resumed_parts"] == len(kept)
        run(q, g, str(tmp_path / "fresh"), config)
        assert parts_of(folder) == parts_of(tmp_path / "fresh")
        assert kept.items() <= marks_of(folder).items()
        assert stray_files(folder) == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=False)
