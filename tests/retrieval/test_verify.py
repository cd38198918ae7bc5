"""`verify`: a right ranking passes, sources that have changed are told, and nothing is held."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipelines.cli import main
from retrieval.errors import IndexFormatError, MismatchError, StorageError, UsageError
from retrieval.index import open_index
from retrieval.ranking.verification import verify
from retrieval.vectors import open_source
from tests.conftest import make_index
from tests.retrieval.verify_case import (
    BROKEN,
    CHANGED,
    NOT_EXACT,
    Case,
    normal_sides,
    normal_vectors,
    tied_sides,
)


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2", "l1", "minkowski:3"])
@pytest.mark.parametrize("kind", ["float16", "float32", "ties"])
def test_a_right_ranking_passes(tmp_path, metric, kind):
    sides = tied_sides() if kind == "ties" else normal_sides(kind)
    for k in (1, 10, len(sides[1])):
        case = Case(tmp_path, metric, k, sides=sides)
        report = verify.run(case.write(certificate=[{"engine": "cpu"}]))
        assert report.pop("seconds").keys() == {"read_ranking", "brute_force"}
        assert report == {
            "ranking": str(tmp_path / "ranking"), "metric": metric, "top_k": k, "num_queries": 7,
            "num_gallery": len(sides[1]), "sample": 7, "seed": 0, "num_rows": 7 * k,
            "num_rows_checked": 7 * k, "is_exact": True, "certificate": [{"engine": "cpu"}],
            "relative_tolerance": 0 if metric != "minkowski:3" else 2 * len(sides[0][0][1]) / 2**50,
            "score_rule": 1 if metric in ("cosine", "ip") else 2, "num_exact_pairs": 7 * k,
        }  # fmt: skip


@pytest.mark.parametrize("metric", ["cosine", "l1", "minkowski:3"])
def test_a_right_ranking_without_the_query_itself_passes(tmp_path, metric):
    _, gallery = tied_sides()
    # One query is not in the gallery, and has one image more when all are listed.
    queries = [*gallery[5:25], ("stranger", gallery[3][1])]
    for k in (1, 89, 90):
        case = Case(tmp_path, metric, k, exclude_self=True, sides=(queries, gallery))
        report = verify.run(case.write(parts=4), sample=50)
        assert report["num_rows"] == report["num_rows_checked"] == 21 * k - 20 * (k == 90)
        assert report["certificate"] is None


def test_queries_are_drawn_by_the_seed_and_each_can_be(tmp_path):
    case = Case(tmp_path)
    case.rows[case.at("q4", 5)][2:] = case.rows[case.at("q4", 4)][2:]
    case.rows[case.at("q4", 5)][2] = "zz"
    uri = case.write()
    outcomes = []
    for seed in range(40):
        try:
            outcomes.append(verify.run(uri, sample=2, seed=seed)["num_rows_checked"])
        except IndexFormatError as error:
            assert "query 'q4', rank 5" in str(error)  # noqa: PT017
            assert "1 of 2 checked queries differs" in str(error)  # noqa: PT017
            outcomes.append(None)
    assert set(outcomes) == {10, None}
    assert 4 < outcomes.count(None) < 20  # 2 of 7 draws, give or take
    assert verify.run(Case(tmp_path).write(), sample=2)["sample"] == 2


def test_what_ranking_json_says_is_checked(tmp_path):
    case, where = Case(tmp_path), f"{tmp_path}/ranking/_ranking.json: "
    assert case.message(num_rows=36) == (
        f"{where}says 36 rows, but the parts hold 35, as many as are needed. Rank again."
    )
    assert case.message(num_queries=8) == (
        f"{where}num_queries is 8, but 7 were ranked. Rank again."
    )
    assert case.message(metric="hamming") == (
        f"{where}metric 'hamming'; cosine, ip, l2, l1 or minkowski:P is needed. Rank again."
    )
    assert case.message(queries={"uri": "x"}) == (
        f"{where}cannot be read (it does not say 'version'). Rank again."
    )
    assert case.message(top_k="many") == (
        f"{where}cannot be read (top_k is 'many'; a whole number from 1 on is needed). Rank again."
    )
    with pytest.raises(StorageError, match="no finished ranking there"):
        verify.run(str(tmp_path / "queries"))
    for settings in ({"sample": 0}, {"seed": -1}):
        with pytest.raises(UsageError, match="at least 1 query, and a seed of 0 or more"):
            verify.run(case.write(), **settings)


def test_the_version_that_was_ranked_is_opened_though_there_is_a_newer_one(tmp_path):
    case = Case(tmp_path)
    uri, gallery = case.write(), str(tmp_path / "gallery")
    replace_index(gallery, [("g0", v) for _, v in case.gallery[:1]])
    assert open_index(gallery).version == 1
    assert verify.run(uri)["num_gallery"] == 40
    assert open_source(gallery, version=0).num_rows == 40
    assert open_source(gallery).num_rows == open_source(gallery, version=1).num_rows == 1


def replace_index(uri, rows):
    """Commit other rows as the next version."""
    from retrieval.index import commit_index

    index = open_index(uri)
    ids, vectors = zip(*rows, strict=True)
    other = make_index(f"{uri}-next", list(ids), np.stack(vectors))
    for shard in other.shards:
        shutil.copy(f"{uri}-next/{shard.path}", f"{uri}/{shard.path}")
    commit_index(uri, other.spec, other.shards, run={}, seen_version=index.version)


def test_a_version_that_is_gone_is_told(tmp_path):
    case = Case(tmp_path)
    uri, gallery = case.write(), tmp_path / "gallery"
    facts = json.loads((tmp_path / "ranking" / "_ranking.json").read_text())
    facts["gallery"]["version"] = 7
    (tmp_path / "ranking" / "_ranking.json").write_text(json.dumps(facts))
    for message in (
        f"{gallery}: has no version 7; the newest is 0.",
        f"{gallery}: no index there. Make one: retrieval-cli embed PHOTOS {gallery}",
    ):
        with pytest.raises(MismatchError) as caught:
            verify.run(uri)
        assert str(caught.value) == (
            f"{gallery}: version 7 of 40 × 24 × float32 was ranked, but cannot be opened now: "
            f"{message} {CHANGED}"
        )
        shutil.rmtree(gallery, ignore_errors=True)


def test_sources_of_other_rows_dimensions_or_type_are_told(tmp_path):
    case = Case(tmp_path)
    uri = case.write()
    for side, rows, dim, dtype in (
        ("gallery", 39, 24, "float32"), ("gallery", 40, 25, "float32"),
        ("queries", 7, 24, "float16"), ("queries", 8, 24, "float32"),
    ):  # fmt: skip
        path, kept = tmp_path / side, tmp_path / "kept"
        path.rename(kept)
        make_index(path, [f"x{n}" for n in range(rows)], normal_vectors(5, rows, dim, dtype))
        with pytest.raises(MismatchError) as caught:
            verify.run(uri)
        before = f"version 0 of {40 if side == 'gallery' else 7} × 24 × float32"
        assert str(caught.value) == (
            f"{path}: {before} was ranked, but version 0 of {rows} × {dim} × {dtype} is there "
            f"now. {CHANGED}"
        )
        shutil.rmtree(path)
        kept.rename(path)
    verify.run(uri)


def foreign(path, side, dtype=np.float32):
    ids, vectors = zip(*side, strict=True)
    table = {"name": ids, "other": ids, "v": list(np.stack(vectors).astype(dtype))}
    pq.write_table(pa.table(table), path, row_group_size=9)


def test_other_tools_files_are_read_by_the_columns_that_were_ranked(tmp_path):
    sides = normal_sides("float32")
    case = Case(tmp_path, sides=sides)
    for side, rows in zip(("queries", "gallery"), sides, strict=True):
        foreign(tmp_path / f"{side}.parquet", rows)
    facts = case.facts()
    columns = {"version": None, "id_column": "name", "vector_column": "v"}
    named = {
        side: {**facts[side], "uri": f"{tmp_path}/{side}.parquet", **columns}
        for side in ("queries", "gallery")
    }
    uri = case.write(**named)
    assert verify.run(uri)["num_rows_checked"] == 35
    # The same number of other vectors: brute force tells.
    foreign(tmp_path / "gallery.parquet", [(name, -row) for name, row in sides[1]])
    with pytest.raises(IndexFormatError, match=f"7 of 7 checked queries differ. {NOT_EXACT}$"):
        verify.run(uri)
    foreign(tmp_path / "gallery.parquet", sides[1][1:])
    with pytest.raises(MismatchError) as caught:
        verify.run(uri)
    assert str(caught.value) == (
        f"{tmp_path}/gallery.parquet: 40 × 24 × float32 was ranked, but 39 × 24 × float32 is "
        f"there now. {CHANGED}"
    )
    foreign(tmp_path / "queries.parquet", [("q0", row) for _, row in sides[0]])
    foreign(tmp_path / "gallery.parquet", sides[1])
    with pytest.raises(MismatchError) as caught:
        verify.run(uri)
    assert str(caught.value) == (
        f"{tmp_path}/queries.parquet: the query id 'q0' occurs more than once now, which no "
        f"ranking can have been made of. {CHANGED}"
    )


def test_a_gallery_that_repeats_ids_may_be_ranked_as_often(tmp_path):
    queries, gallery = normal_sides("float32")
    gallery = [(f"g{n // 2}", row) for n, (_, row) in enumerate(gallery)]
    for metric in ("cosine", "minkowski:2.5"):
        case = Case(tmp_path, metric, 40, sides=(queries, gallery))
        assert verify.run(case.write(), sample=3)["num_rows"] == 280
    case = Case(tmp_path, "cosine", 40, sides=(queries, gallery))
    row = case.rows[case.at("q6", 40)]
    row[2] = next(r[2] for r in case.rows if r[0] == "q6" and r[2] != row[2])
    text = case.message(sample=1)
    assert text.startswith("query 'q6', rank ")
    assert text.endswith(f" in 3 rows; the gallery in 2. 1 of 7 queries differs. {BROKEN}")


def test_the_gallery_is_read_once_block_by_block_and_no_block_is_kept(tmp_path, monkeypatch):
    case = Case(tmp_path, sides=tied_sides())
    uri = case.write()
    alive, most, rows = set(), 0, {}
    read = verify.read_blocks

    def counting(source, file, max_rows):
        nonlocal most
        for block in read(source, file, max_rows):
            alive.add(id(block))
            weakref.finalize(block, alive.discard, id(block))
            most = max(most, len(alive))
            assert len(block.ids) <= max_rows == 4
            rows[source.uri] = rows.get(source.uri, 0) + len(block.ids)
            yield block
            del block

    monkeypatch.setattr(verify, "read_blocks", counting)
    monkeypatch.setattr(verify, "_BLOCK_BYTES", 4 * 8 * 4)
    assert verify.run(uri)["num_rows_checked"] == 35
    assert rows == {str(tmp_path / "gallery"): 90, str(tmp_path / "queries"): 7}
    assert most <= 2


def test_the_command_reports_exits_with_1_and_has_usage_errors(tmp_path):
    case = Case(tmp_path)
    uri = case.write()
    done = CliRunner().invoke(main, ["verify", uri, "--sample", "3", "--seed", "2"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["sample"] == 3
    assert done.stderr == ""
    case.rows[0][3] = 1.0
    done = CliRunner().invoke(main, ["verify", case.write()])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {uri}: query 'q0', rank 1: the ranking holds")
    assert done.stderr.count("\n") == 1
    for wrong in (["--sample", "0"], ["--seed", "-1"], []):
        assert (
            CliRunner().invoke(main, ["verify", *([uri] if wrong else []), *wrong]).exit_code == 2
        )


def test_ctrl_c_ends_in_one_line(tmp_path, monkeypatch):
    uri = Case(tmp_path).write()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "read_blocks", interrupted)
    done = CliRunner().invoke(main, ["verify", uri])
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr.startswith("Error: Interrupted.")
    assert done.stderr.count("\n") == 1


def test_ray_is_not_even_imported(tmp_path):
    uri = Case(tmp_path).write()
    code = (
        "import sys; from retrieval.ranking.verification import verify\n"
        f"verify.run({uri!r})\n"
        "sys.exit(', '.join({'torch', 'ray'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
