"""Other tools' files in the ranking: by any spelling, and told by their ids."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import rank
from retrieval.errors import MismatchError
from retrieval.evaluation import evaluate
from retrieval.ranking.verification import verify
from retrieval.vectors import VectorColumns
from tests.first_release import as_first_release
from tests.pipelines.spelling_case import (
    ALL,
    DIM,
    FIVE,
    Case,
    doors,
    moved,
    rows_of,
)
from tests.retrieval.ranks import rows_of as rows_of_ranking


@pytest.fixture
def foreign(tmp_path):
    """Other tools' gallery, ranked by a column of ids that is not the usual one."""
    case = Case(tmp_path, "this release")
    folder = tmp_path / "home" / "files"
    folder.mkdir()
    ids, vectors, labels = rows_of([f"{c}{n}" for c in "abcd" for n in range(10, 13)], 2)
    columns = {"id": list(range(12)), "name": ids, "label": labels, "vector": list(vectors)}
    pq.write_table(pa.table(columns), folder / "1.parquet")
    columns = VectorColumns(id_column="name")
    rank.run(str(case.q), str(folder), case.ranking, replace(ALL, columns=columns))
    return case, folder


@doors
def test_other_tools_files_are_read_by_the_columns_that_were_ranked(foreign, door):
    case, folder = foreign
    figures = evaluate(case.ranking, str(case.q), str(folder))
    assert figures.num_gallery == 12
    place = door(folder)
    assert evaluate(case.ranking, str(case.q), place) == figures
    assert verify.run(case.ranking, gallery=place)["is_exact"]


def test_other_tools_files_of_more_rows_are_refused(foreign):
    case, folder = foreign
    shutil.copy(folder / "1.parquet", folder / "2.parquet")
    with pytest.raises(MismatchError) as caught:
        evaluate(case.ranking, str(case.q), str(folder))
    assert str(caught.value) == (
        f"{case.ranking}: ranked {folder} with 12 rows, which is not among the gallery given: "
        f"{folder} holds 24 rows. Name what was ranked, or rank again."
    )


def write_rows(folder, names, **columns):
    vectors = [[1.0] * DIM] * len(names)
    columns = {"name": names, "vector": vectors, **columns}
    pq.write_table(pa.table(columns), folder / "1.parquet")


@pytest.mark.parametrize("config", [ALL, FIVE], ids=["all", "five"])
def test_other_tools_files_are_told_by_their_ids_in_any_order(foreign, tmp_path, config):
    case, folder = foreign
    names = pq.read_table(folder / "1.parquet")["name"].to_pylist()
    config = replace(config, columns=VectorColumns("name", "vector"))
    rank.run(str(case.q), str(folder), case.ranking, config)
    figures = evaluate(case.ranking, str(case.q), str(folder))
    labels = [name[0] for name in names]
    write_rows(folder, names[::-1], label=labels[::-1])  # corrected, written again
    assert evaluate(case.ranking, str(case.q), str(folder)) == figures
    listed = {row[2] for row in rows_of_ranking(case.ranking)}
    unlisted = next((name for name in names if name not in listed), names[0])
    write_rows(folder, [name for name in names if name != unlisted] + ["stranger"])
    with pytest.raises(MismatchError) as caught:
        evaluate(case.ranking, str(case.q), str(folder))
    assert str(caught.value) == (
        f"{case.ranking}: ranked {folder} with 12 rows, which is not among the gallery given: "
        f"{folder} holds as many rows of other ids. Name what was ranked, or rank again."
    )
    assert case.facts()["ids_sum"]["queries"] is None  # an index is told by its shards


def test_a_ranking_of_other_tools_files_by_the_first_release_is_measured(foreign):
    case, folder = foreign
    figures = evaluate(case.ranking, str(case.q), str(folder))
    as_first_release(case.ranking)
    assert evaluate(case.ranking, str(case.q), moved(folder)) == figures
