"""`rank` gives the bits of `top_k`, whoever ranks and however the rows lie; and its arguments."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.errors import IndexFormatError, MismatchError, RetrievalError, UsageError
from retrieval.index import open_index
from retrieval.ranking import rank_blocks, search_parts
from retrieval.ranking.executor import ThreadExecutor
from retrieval.ranking.files import RANKING_SCHEMA, open_ranking, read_parts
from retrieval.ranking.rank import rank
from retrieval.ranking.settings import RankConfig
from retrieval.ranking.write import write_ranking
from retrieval.search import Neighbours, top_k
from retrieval.vectors import VectorBlock
from tests.conftest import make_index

METRICS = ["cosine", "ip", "l2", "l1", "minkowski:3"]


def draw(seed, num_rows, dim, dtype="float16", *, ties=False):
    """Vectors; with ties on a grid of few points, so that most scores occur many times."""
    rng = np.random.default_rng(seed)
    if not ties:
        return rng.normal(size=(num_rows, dim)).astype(dtype)
    rows = rng.integers(-1, 2, (num_rows, dim)) * 0.5
    rows[~rows.any(axis=1)] = 0.5
    return rows.astype(dtype)


def expected(queries, gallery, k, query_ids, gallery_ids, metric, exclude_self):
    """What `top_k` finds, as the rows of `RankedLists`."""
    blocks = [
        VectorBlock(np.array([name.encode() for name in ids]), vectors)
        for ids, vectors in ((query_ids, queries), (gallery_ids, gallery))
    ]
    found = top_k(blocks[0], [blocks[1]], k, metric, exclude_self=exclude_self, num_threads=1)
    ids, scores = np.full((len(queries), k), "", object), np.full((len(queries), k), np.nan)
    for query in range(len(queries)):
        own = found.query == query
        ids[query, : own.sum()] = [name.decode() for name in found.ids[own].tolist()]
        scores[query, : own.sum()] = found.scores[own]
    return ids, scores


class SharedOut:
    """Ranks as processes would: shares of the parts, by copies, in any order."""

    num_threads = 1

    def __init__(self, seed, num_shares):
        self.rng, self.num_shares, self.is_up = np.random.default_rng(seed), num_shares, False

    def session(self):
        return self

    def __enter__(self):
        self.is_up = True

    def __exit__(self, *_):
        self.is_up = False

    def start(self, task, work_ns, on_part, progress):
        assert self.is_up
        assert work_ns > 0
        self.task, self.on_part = pickle.dumps(task.on_device(has_gpu=False)), on_part
        return self

    def initial_thresholds(self, queries, sample):
        task = pickle.loads(self.task)
        return search_parts.initial_thresholds(task, queries.vectors, sample, num_threads=1)

    def search(self, queries, parts, basis, nearest: Neighbours):
        assert self.is_up
        order = self.rng.permutation(len(parts))
        for share in np.array_split(order, self.num_shares):
            task = pickle.loads(self.task)
            sent = pickle.loads(pickle.dumps([parts[number] for number in share]))
            floors = nearest.floors.copy()
            found = search_parts.search_parts(
                task, queries, sent, basis, floors, num_threads=1, on_part=self.on_part
            )
            nearest.take(found.found, task.metric)
        return {"engine": "shared out"}


EXECUTORS = {
    "one thread": lambda: ThreadExecutor(1),
    "three threads": lambda: ThreadExecutor(3),
    "shares": lambda: SharedOut(1, 3),
}


@given(
    seed=st.integers(0, 2**16),
    metric=st.sampled_from(METRICS),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    sizes=st.tuples(st.integers(1, 9), st.integers(2, 60), st.integers(1, 9)),
    share=st.floats(0, 1),
    exclude_self=st.booleans(),
    ties=st.booleans(),
    executor=st.sampled_from(sorted(EXECUTORS)),
)
@settings(max_examples=80, deadline=None)
def test_it_agrees_with_top_k_to_the_bit(
    seed, metric, dtype, sizes, share, exclude_self, ties, executor
):
    num_queries, num_gallery, dim = sizes
    rng = np.random.default_rng(seed)
    queries = draw(seed, num_queries, dim, dtype, ties=ties)
    gallery = draw(seed + 1, num_gallery, dim, dtype, ties=ties)
    most = num_gallery - exclude_self
    k = 1 + round(share * (most - 1))
    names = [f"{'é' * int(n % 3)}{n}" for n in rng.permutation(num_queries + num_gallery)]
    query_ids = names[:num_queries]
    gallery_ids = names[num_queries // 2 :][:num_gallery]  # some are on both sides
    found = rank(
        queries, gallery, k, metric=metric, exclude_self=exclude_self, query_ids=query_ids,
        gallery_ids=gallery_ids, executor=EXECUTORS[executor](),
    )  # fmt: skip
    ids, scores = expected(queries, gallery, k, query_ids, gallery_ids, metric, exclude_self)
    assert found.query_ids.tolist() == query_ids
    assert found.ids.tolist() == ids.tolist()
    assert found.scores.tobytes() == scores.tobytes()


@pytest.mark.parametrize("executor", sorted(EXECUTORS))
@pytest.mark.parametrize("metric", METRICS)
def test_many_shards_and_blocks_of_queries_make_no_difference(
    tmp_path, executor, metric, monkeypatch
):
    queries, gallery = draw(1, 23, 5, ties=True), draw(2, 300, 5, ties=True)
    query_ids, gallery_ids = [f"q{n}" for n in range(23)], [f"g{n}" for n in range(300)]
    make_index(tmp_path / "q", query_ids, queries, num_shards=2)
    make_index(tmp_path / "g", gallery_ids, gallery, num_shards=7)
    ids, scores = expected(queries, gallery, 9, query_ids, gallery_ids, metric, False)
    order = np.argsort(np.array(query_ids))
    memory = 3 * 12 * 2**20 + 3 * 4 * 300 * (10 + 64) + 30_000  # several blocks
    found = rank(
        tmp_path / "q", open_index(str(tmp_path / "g")), 9, metric=metric,
        executor=EXECUTORS[executor](), memory_bytes=memory,
    )  # fmt: skip
    assert found.query_ids.tolist() == [query_ids[row] for row in order]
    assert found.ids.tolist() == ids[order].tolist()
    assert found.scores.tobytes() == scores[order].tobytes()


@pytest.mark.parametrize("executor", sorted(EXECUTORS))
def test_an_unlucky_threshold_costs_a_second_scan_and_no_bit(monkeypatch, executor):
    gallery, queries = draw(1, 140_000, 8), draw(2, 9, 8)
    plain = rank(queries, gallery, 5, num_threads=2)
    guess, unlucky = search_parts.guess_floors, np.array([0, 3, 8])
    monkeypatch.setattr(rank_blocks, "is_worth_a_sample", lambda *_: True)
    lucky = rank(queries, gallery, 5, executor=EXECUTORS[executor]())
    assert len(lucky.certificate) == 1

    def too_high(*given, **options):
        floors = guess(*given, **options)
        assert np.isfinite(floors).all()
        floors[unlucky] = 0.9999
        return floors

    monkeypatch.setattr(search_parts, "guess_floors", too_high)
    again = rank(queries, gallery, 5, executor=EXECUTORS[executor]())
    assert len(again.certificate) == 2
    for found in (lucky, again):
        assert found.ids.tolist() == plain.ids.tolist()
        assert found.scores.tobytes() == plain.scores.tobytes()


def test_the_files_of_a_ranking_hold_the_same_rows(tmp_path):
    queries, gallery = draw(1, 11, 6, "float32"), draw(2, 80, 6, "float32")
    query_ids, gallery_ids = [f"q{n}" for n in range(11)], [f"g{n}" for n in range(80)]
    for name, ids, rows in (("q", query_ids, queries), ("g", gallery_ids, gallery)):
        pq.write_table(pa.table({"id": ids, "vector": list(rows)}), tmp_path / f"{name}.parquet")
    sides = str(tmp_path / "q.parquet"), str(tmp_path / "g.parquet")
    config = RankConfig(top_k=7, metric="l2", num_threads=2)
    report = write_ranking(*sides, str(tmp_path / "rk"), config)
    assert (report.num_rows, report.num_queries, report.seconds.keys()) == (
        77, 11, {"open", "start_ray", "rank"},
    )  # fmt: skip
    ranking = open_ranking(str(tmp_path / "rk"))
    assert ranking.facts.items() >= {"metric": "l2", "top_k": 7}.items()
    written = pa.concat_tables(read_parts(ranking))
    assert rank(*sides, 7, metric="l2").to_arrow() == written
    arrays = rank(queries, gallery, 7, metric="l2", query_ids=query_ids, gallery_ids=gallery_ids)
    assert arrays.to_arrow().schema == RANKING_SCHEMA
    assert arrays.to_arrow().sort_by([("query_id", "ascending"), ("rank", "ascending")]) == written


def test_without_ids_rows_are_their_numbers_and_of_equal_scores_the_smaller_is_first():
    gallery = np.ones((120, 3), np.float16)
    gallery[7] *= -1
    found = rank(gallery[:12], gallery, None, exclude_self=True)
    assert found.query_ids.tolist() == list(range(12))
    assert found.ids.dtype == np.int64
    for row in (0, 5, 11):
        assert found.ids[row].tolist() == [n for n in range(120) if n not in (7, row)] + [7, -1]
    assert found.ids[7].tolist() == [n for n in range(120) if n != 7] + [-1]
    assert np.isnan(found.scores[:, -1]).all()
    assert np.isfinite(found.scores[:, :-1]).all()
    assert len(found.to_arrow()) == 12 * 119


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("stride", [1, 2])
def test_any_layout_of_an_array_gives_the_same(order, byte_order, stride):
    gallery, queries = draw(1, 90, 6, "float32"), draw(2, 4, 6, "float32")
    plain = rank(queries, gallery[::stride], 5)
    laid = np.array(gallery, f"{byte_order}f4", order=order)[::stride]
    found = rank(queries, laid, 5)
    assert (found.ids == plain.ids).all()
    assert found.scores.tobytes() == plain.scores.tobytes()


@pytest.mark.parametrize(
    "ids",
    [["b", "a", "c"], np.array(["b", "a", "c"]), np.array([b"b", b"a", b"c"]),
     pa.array(["b", "a", "c"]), pa.chunked_array([["b"], ["a", "c"]])],
)  # fmt: skip
def test_ids_may_be_text_or_bytes_in_lists_and_arrays(ids):
    rows = np.eye(3, dtype=np.float32)
    found = rank(rows, rows, 1, query_ids=ids, gallery_ids=ids)
    assert found.query_ids.tolist() == ["b", "a", "c"]
    assert found.ids.tolist() == [["b"], ["a"], ["c"]]


def test_ids_of_any_length_are_whole():
    ids = ["x" * 300 + "é" * 5000 + str(n) for n in range(9)]
    rows = np.ones((9, 2), np.float32)
    found = rank(rows[:2], rows, 3, query_ids=ids[:2], gallery_ids=ids, exclude_self=True)
    assert found.query_ids.tolist() == ids[:2]
    assert found.ids.tolist() == [ids[1:4], [ids[0], *ids[2:4]]]


def test_equal_ids_of_a_gallery_have_to_be_allowed():
    rows, ids = np.eye(3, dtype=np.float32), ["a", "b", "a"]
    with pytest.raises(IndexFormatError, match="the id 'a' occurs more than once, in gallery, row"):
        rank(rows, rows, 1, gallery_ids=ids)
    assert rank(rows, rows, 1, gallery_ids=ids, allow_duplicates=True).ids.tolist() == [
        ["a"], ["b"], ["a"],
    ]  # fmt: skip


ROWS = np.eye(4, dtype=np.float32)


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (([[1.0]], ROWS), UsageError, "`queries`: a list; a NumPy array, an index, or the place"),
        ((ROWS, ROWS[0]), UsageError, "`gallery`: an array 4 of float32; rows × dimensions of"),
        ((ROWS[:0], ROWS), UsageError, "`queries`: an array 0 × 4 of float32; rows"),
        ((ROWS, ROWS.astype(int)), UsageError, "`gallery`: an array 4 × 4 of int64; rows"),
        ((ROWS, ROWS[:, :3]), MismatchError, "gallery: embeddings of 3 dimensions, but those of"),
        ((ROWS, ROWS, 5), UsageError, "`k` 5: gallery has 4 images. Use 1 to 4, or all."),
        ((ROWS, ROWS, 0), UsageError, "`k` 0: gallery has 4 images"),
        ((ROWS, ROWS, 1.5), UsageError, "`k` 1.5: a whole number, or None for the whole gallery"),
        ((ROWS, ROWS, "all"), UsageError, "`k` 'all': a whole number, or None for the"),
        ((ROWS, ROWS * np.nan), IndexFormatError, "gallery, row 0: the vector is NaN"),
        ((ROWS, ROWS * 0), IndexFormatError, "gallery, row 0: the vector is all zeros"),
        (("/nowhere", ROWS), RetrievalError, "/nowhere"),
    ],
)
def test_a_wrong_side_is_one_line(arguments, kind, said):
    with pytest.raises(kind) as caught:
        rank(*arguments, **({} if len(arguments) > 2 else {"k": 1}))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"gallery_ids": ["a"]}, UsageError, "`gallery_ids`: 1 ids, but 4 rows; one for each"),
        ({"query_ids": ["a", "b", "c", None]}, IndexFormatError, "query_ids, row 3: no id"),
        ({"query_ids": ["a", 1, "c", "d"]}, UsageError, "`query_ids`: cannot be read as ids ("),
        ({"query_ids": ["a", "b", "c", "b"]}, IndexFormatError, "the query id 'b' occurs more"),
        ({"gallery_ids": ["a", "b", "c", "d\0"]}, IndexFormatError, "row 3: the id holds a NUL"),
        ({"metric": "Cosine"}, UsageError, "Cosine: unknown. Use one of cosine, ip, l2, l1"),
        ({"memory_bytes": 1000}, UsageError, "needs"),
        ({"num_threads": 0}, UsageError, " 0: a whole number from 1 to"),
        ({"num_threads": True}, UsageError, " True: a whole number"),
    ],
)
def test_a_wrong_setting_is_one_line(options, kind, said):
    with pytest.raises(kind) as caught:
        rank(ROWS, ROWS, 1, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ids_beside_a_location_are_refused(tmp_path):
    make_index(tmp_path / "q", ["a"], np.ones((1, 4), np.float32))
    with pytest.raises(UsageError, match="`query_ids`: `queries` is no array, and has ids of its"):
        rank(str(tmp_path / "q"), ROWS, 1, query_ids=["a"])
