"""`rank` where something is wrong: inputs, settings, files that change meanwhile, full disks."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.rank import RankConfig, run
from pipelines.rank import queries as query_module
from retrieval.errors import IndexFormatError, MismatchError, StorageError, UsageError
from tests.pipelines.ranks import (
    budget,
    commit,
    doing_after,
    draw,
    invoke,
    make_shard,
    marks_of,
    parts_of,
    rows_of,
    stray_files,
    write_foreign,
)

CONFIG = RankConfig(
    top_k=4, num_threads=2, memory_bytes=budget(300, 8, 4, 4, query_rows=3, num_threads=2)
)


@pytest.fixture
def sides(tmp_path):
    """12 queries, which make four parts, and a gallery of three files, all foreign."""
    write_foreign(tmp_path / "q" / "0.parquet", (f"q{n}" for n in range(12)), draw(1, 12, 4))
    for number in range(3):
        names = (f"g{number}-{n}" for n in range(100))
        write_foreign(tmp_path / "g" / f"{number}.parquet", names, draw(number, 100, 4))
    return str(tmp_path / "q"), str(tmp_path / "g"), tmp_path / "rk"


def error_of(kind, q, g, folder, config=CONFIG):
    with pytest.raises(kind) as caught:
        run(q, g, str(folder), config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------ equal ids


def test_an_id_twice_in_a_foreign_gallery_is_refused_with_both_its_places(sides, tmp_path):
    q, g, folder = sides
    write_foreign(tmp_path / "g" / "3.parquet", ["new", "g1-7", "g1-8"], draw(9, 3, 4))
    assert error_of(IndexFormatError, q, g, folder) == (
        f"{g}: the id 'g1-7' occurs more than once, in {g}/1.parquet, row 7, and {g}/3.parquet, "
        f"row 1. Give each image its own id, or allow it: --allow-duplicates."
    )
    assert not folder.exists()


def test_with_allow_duplicates_every_row_of_an_equal_id_is_a_neighbour(tmp_path):
    write_foreign(tmp_path / "q.parquet", ["q"], np.ones((1, 2), np.float32))
    rows = np.array([[1, 2], [1, 1], [1, 3], [1, 1]], np.float32)
    write_foreign(tmp_path / "g.parquet", ["a", "b", "a", "b"], rows)
    arguments = [tmp_path / "q.parquet", tmp_path / "g.parquet", tmp_path / "rk", "--top-k", "all"]
    arguments += ["--metric", "l2", "--num-threads", 1]
    refused = invoke("rank", *arguments)
    assert refused.exit_code == 1
    assert refused.stderr.count("\n") == 1
    assert "the id 'a' occurs more than once" in refused.stderr
    done = invoke("rank", *arguments, "--allow-duplicates")
    assert done.exit_code == 0, done.stderr
    found = [(name, np.int64(bits).view(np.float64)) for *_, name, bits in rows_of(tmp_path / "rk")]
    assert found == [("b", 0.0), ("b", 0.0), ("a", 1.0), ("a", 2.0)]


# ------------------------------------------------------------------- widths and other files


def test_a_file_of_another_width_in_the_middle_of_a_folder_is_named(sides, tmp_path):
    q, g, folder = sides
    write_foreign(tmp_path / "g" / "1.parquet", ["a", "b"], draw(9, 2, 5))
    assert error_of(IndexFormatError, q, g, folder) == (
        f"{g}/1.parquet: 5 × float16, but the files before it hold 4 × float16. Vectors of one "
        f"make are needed."
    )
    assert not folder.exists()


def test_a_row_of_another_width_inside_a_file_is_named(sides, tmp_path):
    q, g, folder = sides
    vectors = [*draw(9, 60, 4), np.ones(3, np.float16), *draw(8, 9, 4)]
    write_foreign(tmp_path / "g" / "1.parquet", (f"x{n}" for n in range(70)), vectors)
    assert error_of(IndexFormatError, q, g, folder) == (
        f"{g}/1.parquet, row 60: 3 dimensions; 4 dimensions are needed, as in the first row of the "
        f"first file."
    )


def test_sides_of_two_widths_are_refused(sides, tmp_path):
    _, g, folder = sides
    write_foreign(tmp_path / "wide.parquet", ["a"], draw(9, 1, 5))
    assert "embeddings of 4 dimensions, but those of" in error_of(
        MismatchError, str(tmp_path / "wide.parquet"), g, folder
    )


# ------------------------------------------------------ what changes while it is being ranked


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
    sides, tmp_path, capsys, change, said
):
    q, g, folder = sides
    file = tmp_path / "g" / "1.parquet"
    content, stamp = file.read_bytes(), file.stat()
    with doing_after(2, lambda: change(file)):
        assert error_of(IndexFormatError, q, g, folder) == said.format(file=file)
    assert capsys.readouterr().err == (
        f"2 of 4 parts are finished and kept in {folder}: the same command goes on after them.\n"
    )
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


# --------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--top-k", "301"], "--top-k 301: {g} has 300 images. Use 1 to 300, or all."),
        (["--top-k", "0"], "--top-k 0: {g} has 300 images. Use 1 to 300, or all."),
        (
            ["--top-k", "300", "--exclude-self"],
            "--top-k 300: {g} has 299 images other than the query itself. Use 1 to 299, or all.",
        ),
        *(
            (
                ["--metric", metric],
                f"--metric {metric}: unknown. Use one of cosine, ip, l2, l1, or minkowski:P with "
                f"P ≥ 1, as in minkowski:3.",
            )
            for metric in ("nonsense", "minkowski:0.5", "minkowski", "minkowski:inf", "Cosine")
        ),
        (
            ["--device", "cuda", "--metric", "l1"],
            "--device cuda: l1 is no matrix product; a GPU ranks by cosine, ip, l2. Use --device "
            "cpu.",
        ),
        (
            ["--device", "cuda"],
            "--device cuda: no GPU found. Use --device cpu, or a cluster with GPUs.",
        ),
    ],
)
def test_a_setting_that_cannot_be_met_is_one_line_and_leaves_nothing(
    sides, monkeypatch, options, said
):
    from pipelines.rank import planning

    monkeypatch.setattr(planning, "this_machine_has_gpu", lambda: False)
    q, g, folder = sides
    done = invoke("rank", q, g, folder, "--num-threads", 1, *options)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr == f"Error: {said.format(g=g)}\n"
    assert not folder.exists()


@pytest.mark.parametrize("metric", ["minkowski:3", "minkowski:1", "minkowski:2.5"])
def test_minkowski_is_right_to_twelve_digits(sides, tmp_path, metric):
    q, g, folder = sides
    run(q, g, str(folder), replace(CONFIG, metric=metric, top_k=None, memory_bytes=2**26))
    power = float(metric.partition(":")[2])
    ours = dict(zip((f"q{n}" for n in range(12)), draw(1, 12, 4).tolist(), strict=True))
    theirs = {
        f"g{number}-{n}": row
        for number in range(3)
        for n, row in enumerate(draw(number, 100, 4).tolist())
    }
    rows = rows_of(folder)
    assert len(rows) == 12 * 300
    before = (None, 0.0)
    for query, _, found, bits in rows:
        score = float(np.int64(bits).view(np.float64))
        pairs = zip(ours[query], theirs[found], strict=True)
        truth = sum(abs(a - b) ** power for a, b in pairs) ** (1 / power)
        assert score == pytest.approx(truth, rel=1e-12)
        assert before[0] != query or before[1] <= score
        before = (query, score)


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
        arguments = ["rank", q, g, folder, "--top-k", 900, "--num-threads", 1]
        done = invoke(*arguments, "--memory-gib", config.memory_bytes / 2**30)
        assert done.exit_code == 1
        kept = marks_of(folder)
        assert 1 <= len(kept) < 6
        told, said = done.stderr.splitlines()
        assert told == (
            f"{len(kept)} of 6 parts are finished and kept in {folder}: the same command goes on "
            f"after them."
        )
        assert re.fullmatch(
            rf"Error: {folder}/part-\d{{5}}-\w{{12}}\.parquet: cannot be written \(No space left "
            rf"on device\)\. Choose a folder that you may write to and that has room\.",
            said,
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


def test_a_gallery_of_the_query_alone_has_no_neighbour_to_list(tmp_path):
    write_foreign(tmp_path / "g.parquet", ["only"], draw(1, 1, 4))
    g, folder = str(tmp_path / "g.parquet"), tmp_path / "rk"
    report = run(g, g, str(folder), RankConfig(top_k=None, exclude_self=True, num_threads=1))
    assert report["num_rows"] == 0
    assert rows_of(folder) == []
    (part,) = folder.glob("part-*")
    assert [str(kind) for kind in pq.read_schema(part).types] == [
        "string", "int32", "string", "double",
    ]  # fmt: skip
    assert report["num_queries"] == 1


def test_a_shard_without_rows_among_others_is_passed_over(sides, tmp_path):
    q, g, folder = sides
    run(q, g, str(folder), CONFIG)
    before = parts_of(folder)
    schema = pq.read_schema(tmp_path / "g" / "0.parquet")
    pq.write_table(pa.Table.from_pylist([], schema=schema), tmp_path / "g" / "05.parquet")
    assert run(q, g, str(folder), CONFIG)["gallery"]["num_files"] == 4
    assert parts_of(folder) == before


def test_no_more_than_one_query_is_refused_by_a_clear_line(sides):
    q, g, folder = sides
    with pytest.raises(UsageError, match=r"--memory-gib 0.00977: ranking 4 of 300 images of 4 dim"):
        run(q, g, str(folder), replace(CONFIG, memory_bytes=10 * 2**20))
