"""What was not ranked is refused, in one line that names both."""

from __future__ import annotations

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.reindex.ranking import _is_current
from retrieval.errors import MismatchError, RetrievalError
from retrieval.evaluation import evaluate
from retrieval.index import open_index
from retrieval.ranking.files import open_ranking
from retrieval.ranking.verification import verify
from retrieval.report_page import write_report
from tests.conftest import make_index
from tests.pipelines.spelling_case import (
    ALL,
    Case,
    by_link,
    moved,
    rows_of,
)


@pytest.fixture(params=["first release", "this release"])
def case(tmp_path, request):
    return Case(tmp_path, request.param)


@pytest.fixture
def newest(tmp_path):
    return Case(tmp_path, "this release")


def refusals(case, gallery):
    """What each job says of a gallery that was not ranked, in one line each."""
    named = {"queries": str(case.q), "gallery": gallery}
    for job in (
        lambda: evaluate(case.ranking, **named),
        lambda: write_report(case.ranking, str(case.root / "no.html"), **named),
        lambda: verify.run(case.ranking, **named),
    ):
        with pytest.raises(MismatchError) as caught:
            job()
        assert "\n" not in str(caught.value)
        yield str(caught.value)


def remade(case):
    """The same rows, embedded anew in the same place."""
    shutil.rmtree(case.g)
    ids, vectors, labels = rows_of([f"{c}{n}" for c in "abcd" for n in range(10, 13)], 2)
    make_index(case.g, ids, vectors, labels=labels, num_shards=3)
    return str(case.g)


def another(case):
    ids, vectors, labels = rows_of([f"{c}{n}" for c in "abcd" for n in range(10, 13)], 2)
    make_index(case.root / "another", ids, vectors, labels=labels, num_shards=3)
    return str(case.root / "another")


@pytest.mark.parametrize("make", [remade, another])
def test_an_index_of_other_shards_is_refused(case, make):
    there = make(case)
    for said in refusals(case, there):
        assert said == (
            f"{case.ranking}: ranked version 0 of {case.g} with 12 rows, which is not among the "
            f"gallery given: {there} has versions up to 0, which holds 12 rows, and none is of "
            f"the same shards. Name what was ranked, or rank again."
        )
    assert not _is_current(open_ranking(case.ranking), str(case.q), there, 0, ALL)


def test_where_no_index_is_the_line_says_what_was_ranked(case):
    moved(case.g)
    for said in refusals(case, str(case.g)):
        assert said == (
            f"{case.ranking}: ranked version 0 of {case.g} with 12 rows, which is not among the "
            f"gallery given: no index is at {case.g}. Name what was ranked, or rank again."
        )
    with pytest.raises(MismatchError, match=f"no index is at {case.g}"):
        case.report()  # where it was
    with pytest.raises(MismatchError, match=f"no index is at {case.g}"):
        verify.run(case.ranking)


def test_files_of_another_tool_are_no_version_of_an_index(newest, tmp_path):
    pq.write_table(pa.table({"id": ["a10"], "vector": [[1.0]]}), tmp_path / "f.parquet")
    for said in refusals(newest, str(tmp_path / "f.parquet")):
        assert f"gallery given: no index is at {tmp_path}/f.parquet." in said


def test_a_version_whose_shards_are_gone_is_told(newest):
    gone = {shard.path for shard in open_index(str(newest.g), 0).shards}
    gone -= {shard.path for shard in open_index(str(newest.g)).shards}
    for path in gone:
        (newest.g / path).unlink()
    with pytest.raises(RetrievalError) as caught:
        evaluate(newest.ranking, str(newest.q), by_link(newest.g))
    assert str(caught.value).endswith(
        "version 0, which was ranked, can no longer be read, as after a vacuum. Rank again."
    )


# ----------------------------------------------------------------------------- the command line


def test_the_commands_take_where_the_indexes_are_now(newest):
    q, g = moved(newest.q), moved(newest.g)
    sides = ["--queries", q, "--gallery", g]
    for words in (["evaluate"], ["verify"]):
        done = CliRunner().invoke(main, [*words, newest.ranking, *sides])
        assert done.exit_code == 0, done.stderr
    failed = CliRunner().invoke(main, ["verify", newest.ranking])
    assert failed.exit_code == 1
    assert failed.stderr.startswith(f"Error: {newest.ranking}: ranked version 0 of {newest.q}")
    wrong = CliRunner().invoke(main, ["verify", g, "--gallery", g])
    assert wrong.exit_code == 2
