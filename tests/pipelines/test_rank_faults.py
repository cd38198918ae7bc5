"""`rank` where something is wrong: inputs, settings, files that change meanwhile, full disks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.rank import RankConfig, run
from retrieval.errors import IndexFormatError, MismatchError, UsageError
from retrieval.ranking import executor
from tests.pipelines.ranks import invoke
from tests.retrieval.ranks import FOREIGN as CONFIG
from tests.retrieval.ranks import draw, error_of, foreign_sides, parts_of, rows_of, write_foreign


@pytest.fixture
def sides(tmp_path):
    return foreign_sides(tmp_path)


# ------------------------------------------------------------------------------ equal ids


def test_an_id_twice_in_a_foreign_gallery_is_refused_with_both_its_places(sides, tmp_path):
    q, g, folder = sides
    write_foreign(tmp_path / "g" / "3.parquet", ["new", "g1-7", "g1-8"], draw(9, 3, 4))
    assert error_of(IndexFormatError, q, g, folder) == (
        f"{g}: the id 'g1-7' occurs more than once, in {g}/1.parquet, row 7, and {g}/3.parquet, "
        f"row 1. Give each image its own id, or allow it: `allow_duplicates`."
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
    monkeypatch.setattr(executor, "this_machine_has_gpu", lambda: False)
    q, g, folder = sides
    done = invoke("rank", q, g, folder, "--num-threads", 1, *options)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr == f"Error: {said.format(g=g)}\n"
    assert not folder.exists()


@pytest.mark.parametrize(
    "metric", ["nonsense", "minkowski:0.5", "minkowski", "minkowski:inf", "minkowski:nan", "Cosine"]
)
def test_an_unknown_metric_is_refused_by_the_command_and_by_the_job(sides, metric):
    q, g, folder = sides
    done = invoke("rank", q, g, folder, "--num-threads", 1, "--metric", metric)
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr
    assert metric in done.stderr
    assert error_of(UsageError, q, g, folder, replace(CONFIG, metric=metric)) == (
        f"`metric` {metric}: unknown. Use one of cosine, ip, l2, l1, or minkowski:P with P ≥ 1, as "
        f"in minkowski:3."
    )
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
    with pytest.raises(UsageError, match=r"`memory_bytes` 10485760: ranking 4 of 300 images of "):
        run(q, g, str(folder), replace(CONFIG, memory_bytes=10 * 2**20))
