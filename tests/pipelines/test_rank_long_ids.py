"""Rankings of ids of any length: the same rows as with short ones, and bounded memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import rank
from pipelines.rank import RankConfig
from retrieval.errors import IndexFormatError, UsageError
from retrieval.evaluation import evaluate
from retrieval.ranking.files import open_ranking, read_parts
from retrieval.ranking.verification import verify
from tests.pipelines.ranks import invoke
from tests.retrieval.ranks import Nights

NUM_ROWS = 60
DIM = 4


def long_id(row):
    """A third of them short; the others begin alike, so that their ends decide."""
    text = f"{(row * 7) % NUM_ROWS:03d}"
    return ["short " + text, "x" * 300 + text, "x" * 300 + "é" * 5000 + text][row % 3]


def write(path, ids, vectors):
    lists = pa.array(list(vectors), pa.list_(pa.float32()))
    labels = [f"{row % 4}" for row in range(len(ids))]
    pq.write_table(pa.table({"id": ids, "embedding": lists, "label": labels}), path)
    return str(path)


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Vectors of which many are the same: ids decide."""
    folder = tmp_path_factory.mktemp("long")
    vectors = np.random.default_rng(0).integers(1, 3, (NUM_ROWS, DIM)).astype(np.float32)
    ids = [long_id(row) for row in range(NUM_ROWS)]
    return write(folder / "q.parquet", ids, vectors), write(folder / "g.parquet", ids, vectors)


def plain_ranking(ids, vectors, k, exclude_self):
    rows = []
    for query in sorted(range(len(ids)), key=lambda row: ids[row].encode()):
        dots = vectors.astype(float) @ vectors[query].astype(float)
        order = sorted(range(len(ids)), key=lambda row: (-dots[row], ids[row].encode()))
        order = [row for row in order if not (exclude_self and row == query)]
        rows += [(ids[query], n, ids[row], dots[row]) for n, row in enumerate(order[:k], 1)]
    return rows


def rows_of(uri):
    return [
        tuple(row.values()) for table in read_parts(open_ranking(uri)) for row in table.to_pylist()
    ]


@pytest.mark.parametrize("exclude_self", [False, True])
def test_the_order_is_by_score_and_then_by_the_whole_id(tmp_path, sides, exclude_self):
    uri = str(tmp_path / "ranking")
    config = RankConfig(top_k=7, metric="ip", exclude_self=exclude_self, num_threads=1)
    rank.run(*sides, uri, config)
    table = pq.read_table(sides[1])
    vectors = np.array(table["embedding"].to_pylist(), np.float32)
    assert rows_of(uri) == plain_ranking(table["id"].to_pylist(), vectors, 7, exclude_self)
    assert verify.run(uri)["is_exact"]
    assert evaluate(uri, *sides).num_queries == NUM_ROWS


def test_a_ranking_that_names_a_long_id_of_nobody_is_wrong(tmp_path, sides):
    uri = tmp_path / "ranking"
    rank.run(*sides, str(uri), RankConfig(top_k=2, num_threads=1))
    part = next(uri.glob("part-*.parquet"))
    table = pq.read_table(part)
    ids = ["y" * 400, *table["gallery_id"].to_pylist()[1:]]
    column = pa.array(ids, pa.string())
    pq.write_table(table.set_column(2, table.schema.field(2), column), part)
    with pytest.raises(IndexFormatError, match="neither among the queries nor in the"):
        verify.run(str(uri))


def test_more_long_ids_than_the_memory_takes_are_one_line(tmp_path):
    ids = [f"{row}" + "x" * 5_000 for row in range(3_000)]
    path = write(tmp_path / "a.parquet", ids, np.ones((len(ids), DIM), np.float32))
    config = RankConfig(top_k=2, num_threads=1, memory_bytes=2**25)
    with pytest.raises(UsageError, match=r"The ids of more than \d+ bytes take more than"):
        rank.run(path, path, str(tmp_path / "ranking"), config)


def test_a_dry_run_takes_long_ids(sides):
    found = invoke("rank", *sides, "unused-ranking", "--top-k", 2, "--dry-run")
    assert found.exit_code == 0, found.output


@pytest.mark.parametrize("prefix", ["y" * 300, "y" * 240])  # all of them long, or some
def test_after_a_night_a_previous_ranking_of_long_ids_spares_what_it_did(tmp_path, prefix):
    rng = np.random.default_rng(3)
    gallery = Nights(tmp_path / "g", prefix, 40, rng, DIM, ties=True)
    queries = Nights(tmp_path / "q", "é" * 130, 9, rng, DIM, ties=True)
    sides = str(queries.path), str(gallery.path)
    config = RankConfig(top_k=5, num_threads=1)
    before, after, full = (str(tmp_path / name) for name in ("before", "after", "full"))
    rank.run(*sides, before, config)
    gallery.next(1, 3)
    queries.next(1, 1)
    rank.run(*sides, full, config)
    report = rank.run(*sides, after, replace(config, previous=before))
    assert rows_of(after) == rows_of(full)
    assert report["num_spared_queries"] > 0
