"""`rank` against brute force in plain loops, bit for bit, whatever the shards."""

from __future__ import annotations

import json
import math
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.rank import RankConfig, run
from retrieval.errors import IndexFormatError, MismatchError, StorageError, UsageError
from retrieval.ranking.files import open_ranking, read_parts
from tests.conftest import make_index

pytestmark = pytest.mark.usefixtures("ray_session")

# For what does not hang on who ranks: an actor is a process, which takes seconds to start.
HERE = {"num_threads": 1}

# What a thread needs in any case, and then the neighbours of five queries or so.
SMALL_BYTES = 12 * 2**20 + 4 * 90 * (8 + 64) + 10_000


def tied_vectors(seed, num_rows, dim=4):
    """float16 rows on a grid of few points: most scores tie, often many times."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, (num_rows, dim)) * 0.5
    rows[~rows.any(axis=1)] = 0.5
    return rows.astype(np.float16)


def brute_force(query_rows, gallery_rows, k, metric="cosine"):
    """(query, rank, gallery, score) by the definition: each pair, then a sort."""
    answer = []
    for query_id, query in sorted(query_rows.items()):
        scored = []
        for gallery_id, row in gallery_rows.items():
            dot = norm_q = norm_g = squared = apart = 0.0
            for a, b in zip(query.tolist(), row.tolist(), strict=True):
                dot += a * b
                norm_q += a * a
                norm_g += b * b
                squared += (a - b) * (a - b)
                apart += abs(a - b)
            key, score = {
                "cosine": (-dot / math.sqrt(norm_q * norm_g), dot / math.sqrt(norm_q * norm_g)),
                "ip": (-dot, dot),
                "l2": (math.sqrt(squared), math.sqrt(squared)),
                "l1": (apart, apart),
            }[metric]
            scored.append((key, gallery_id.encode(), score))
        scored.sort(key=lambda entry: entry[:2])
        answer += [
            (query_id, rank, gallery_id.decode(), np.float64(score + 0.0).tobytes())
            for rank, (_, gallery_id, score) in enumerate(scored[:k], start=1)
        ]
    return answer


def rows_of(ranking):
    tables = list(read_parts(open_ranking(str(ranking))))
    table = pa.concat_tables(tables).to_pylist()
    return [
        (row["query_id"], row["rank"], row["gallery_id"], np.float64(row["score"]).tobytes())
        for row in table
    ]


def make_sides(tmp_path, num_shards=1, num_queries=7, num_gallery=90):
    # Ids whose bytewise order is neither that of the rows nor that of numbers.
    queries = {f"q{n * 7 % 11}": v for n, v in enumerate(tied_vectors(1, num_queries))}
    gallery = {
        f"ä{n}" if n % 9 == 0 else f"g{n}": v for n, v in enumerate(tied_vectors(2, num_gallery))
    }
    for name, rows, shards in (("q", queries, 2), ("g", gallery, num_shards)):
        if not (tmp_path / f"{name}{shards}").exists():
            make_index(
                tmp_path / f"{name}{shards}", list(rows), np.stack(list(rows.values())),
                num_shards=shards,
            )  # fmt: skip
    return queries, gallery, str(tmp_path / "q2"), str(tmp_path / f"g{num_shards}")


@pytest.mark.parametrize("num_shards", [1, 2, 7])
@pytest.mark.parametrize(("num_actors", "ks"), [(1, (10,)), (2, (1, 10, None))])
def test_any_number_of_shards_and_actors_equals_brute_force(tmp_path, num_shards, num_actors, ks):
    queries, gallery, q, g = make_sides(tmp_path, num_shards)
    for k in ks:
        report = run(q, g, str(tmp_path / "rk"), RankConfig(top_k=k, num_actors=num_actors))
        assert rows_of(tmp_path / "rk") == brute_force(queries, gallery, k or 90)
        assert report["num_rows"] == 7 * (k or 90)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_this_process_alone_equals_brute_force(tmp_path, num_threads):
    for num_shards in (1, 7):
        queries, gallery, q, g = make_sides(tmp_path, num_shards)
        for k in (1, 10, None):
            config = RankConfig(top_k=k, num_threads=num_threads)
            report = run(q, g, str(tmp_path / "rk"), config)
            assert rows_of(tmp_path / "rk") == brute_force(queries, gallery, k or 90)
            assert report["certificate"][0]["pairs"] == 7 * 90


def test_more_actors_than_cpus_are_no_reason_to_wait_for_ever(tmp_path):
    queries, gallery, q, g = make_sides(tmp_path, 7)
    run(q, g, str(tmp_path / "rk"), RankConfig(top_k=2, num_actors=50))
    assert rows_of(tmp_path / "rk") == brute_force(queries, gallery, 2)


def test_only_a_ranking_that_lists_everything_for_every_query_is_complete(tmp_path):
    *_, q, g = make_sides(tmp_path, 2)
    for k, exclude_self, complete in ((None, True, True), (90, False, True), (89, True, False)):
        config = RankConfig(top_k=k, exclude_self=exclude_self, **HERE)
        assert run(q, g, str(tmp_path / "rk"), config)["is_complete"] is complete


@pytest.mark.parametrize("metric", ["ip", "l2", "l1"])
def test_every_metric_equals_brute_force(tmp_path, metric):
    queries, gallery, q, g = make_sides(tmp_path, 3)
    run(q, g, str(tmp_path / "rk"), RankConfig(top_k=20, metric=metric))
    assert rows_of(tmp_path / "rk") == brute_force(queries, gallery, 20, metric)


def test_a_small_memory_budget_means_more_blocks_and_the_same_bits(tmp_path):
    queries, gallery, q, g = make_sides(tmp_path, 2)
    report = run(q, g, str(tmp_path / "rk"), RankConfig(top_k=5, memory_bytes=SMALL_BYTES))
    assert report["plan"]["query_rows"] < 7
    assert len(list((tmp_path / "rk").glob("part-*.parquet"))) > 1
    assert rows_of(tmp_path / "rk") == brute_force(queries, gallery, 5)


def test_a_budget_that_cannot_hold_one_query_is_refused(tmp_path):
    *_, q, g = make_sides(tmp_path)
    with pytest.raises(UsageError, match=r"`memory_bytes` 1000: ranking 90 of 90 images of 4 d"):
        run(q, g, str(tmp_path / "rk"), RankConfig(top_k=90, memory_bytes=1000))


def test_exclude_self_leaves_out_the_query_s_own_image(tmp_path):
    _, gallery, _, g = make_sides(tmp_path, 2)
    report = run(g, g, str(tmp_path / "rk"), RankConfig(top_k=None, exclude_self=True))
    rows = rows_of(tmp_path / "rk")
    assert len(rows) == report["num_rows"] == 90 * 89
    assert all(query != found for query, _, found, _ in rows)
    expected = [row for row in brute_force(gallery, gallery, 90) if row[0] != row[2]]
    assert [(q, found, score) for q, _, found, score in rows] == [
        (q, found, score) for q, _, found, score in expected
    ]


def test_foreign_float32_shards_give_the_same_bits_in_any_number(tmp_path):
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(64, 24)).astype(np.float32)
    ids = [f"id{n}" for n in range(64)]
    for num_files in (1, 3, 8):
        folder = tmp_path / f"foreign-{num_files}"
        folder.mkdir()
        for number in range(num_files):
            rows = range(number, 64, num_files)
            table = pa.table({"id": [ids[r] for r in rows], "vector": [vectors[r] for r in rows]})
            pq.write_table(table, folder / f"{number}.parquet")
        ranking = str(tmp_path / f"rk{num_files}")
        run(str(folder), str(folder), ranking, RankConfig(top_k=64, **HERE))
    assert rows_of(tmp_path / "rk1") == rows_of(tmp_path / "rk3") == rows_of(tmp_path / "rk8")
    unit = vectors.astype(np.longdouble)
    unit /= np.sqrt((unit * unit).sum(axis=1, keepdims=True))
    for query, _, found, score in rows_of(tmp_path / "rk1"):
        truth = float((unit[ids.index(query)] * unit[ids.index(found)]).sum())
        assert np.frombuffer(score)[0] == pytest.approx(truth, abs=1e-13)


def test_ranking_json_says_what_was_ranked(tmp_path):
    *_, q, g = make_sides(tmp_path, 2)
    report = run(q, g, str(tmp_path / "rk"), RankConfig(top_k=3, **HERE))
    facts = json.loads((tmp_path / "rk" / "_ranking.json").read_text())
    parts = facts.pop("parts")
    assert facts == report
    assert sorted(parts) == sorted(p.name for p in (tmp_path / "rk").glob("*.parquet"))
    assert facts["gallery"]["version"] == 0
    assert facts["gallery"]["spec"]["fingerprint"] == "f" * 64
    assert facts["metric"] == "cosine"
    assert not facts["is_complete"]
    types = pq.read_schema(tmp_path / "rk" / parts[0])
    assert [str(kind) for kind in types.types] == ["string", "int32", "string", "double"]


def test_a_ranking_that_is_there_is_replaced_only_by_a_finished_one(tmp_path):
    queries, gallery, q, g = make_sides(tmp_path, 2)
    run(q, g, str(tmp_path / "rk"), RankConfig(top_k=3, **HERE))
    before = rows_of(tmp_path / "rk")
    broken = np.ones((3, 4), np.float16)
    broken[2, 1] = np.nan
    make_index(tmp_path / "bad", ["a", "b", "c"], broken)
    with pytest.raises(IndexFormatError):
        run(q, str(tmp_path / "bad"), str(tmp_path / "rk"), RankConfig(top_k=3, **HERE))
    assert rows_of(tmp_path / "rk") == before
    assert len(list((tmp_path / "rk").iterdir())) == 2
    run(q, g, str(tmp_path / "rk"), RankConfig(top_k=4, **HERE))
    assert rows_of(tmp_path / "rk") == brute_force(queries, gallery, 4)
    assert len(list((tmp_path / "rk").iterdir())) == 2


@pytest.mark.parametrize(
    ("value", "what", "where"),
    [(np.nan, "NaN", {}), (np.inf, "infinite", HERE), (0.0, "all zeros", HERE)],
)
def test_a_vector_without_direction_is_named_by_shard_and_row(tmp_path, value, what, where):
    *_, q, _ = make_sides(tmp_path)
    vectors = np.ones((5, 4), np.float16)
    vectors[3] = value
    index = make_index(tmp_path / "bad", list("abcde"), vectors)
    with pytest.raises(IndexFormatError) as caught:
        run(q, str(tmp_path / "bad"), str(tmp_path / "rk"), RankConfig(top_k=1, **where))
    assert str(caught.value) == (
        f"{tmp_path}/bad/{index.shards[0].path}, row 3: the vector is {what}; finite vectors "
        f"other than zero are needed. Embed this image again, or leave it out."
    )
    assert not (tmp_path / "rk" / "_ranking.json").exists()


def test_a_corrupt_shard_is_named(tmp_path):
    *_, q, g = make_sides(tmp_path, 2)
    shard = sorted((tmp_path / "g2").glob("*.parquet"))[1]
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(IndexFormatError, match=f"{shard}: this shard cannot be read"):
        run(q, g, str(tmp_path / "rk"), RankConfig(top_k=1))


def test_indexes_of_two_models_are_never_compared(tmp_path):
    *_, q, _g = make_sides(tmp_path)
    make_index(tmp_path / "other", ["a"], np.ones((1, 4), np.float16), fingerprint="e" * 64)
    make_index(tmp_path / "wide", ["a"], np.ones((1, 5), np.float16))
    with pytest.raises(MismatchError) as caught:
        run(q, str(tmp_path / "other"), str(tmp_path / "rk"), RankConfig(top_k=1))
    assert str(caught.value) == (
        f"{tmp_path}/other: made by fake with fingerprint eeeeeeeeeeee, but {q} by fake with "
        f"ffffffffffff. Embed both with the same model, weights and preprocessing."
    )
    with pytest.raises(MismatchError, match="embeddings of 5 dimensions"):
        run(q, str(tmp_path / "wide"), str(tmp_path / "rk"), RankConfig(top_k=1))


@pytest.mark.parametrize(("k", "exclude_self", "most"), [(0, 0, 90), (91, 0, 90), (90, 1, 89)])
def test_a_k_outside_the_gallery_is_refused(tmp_path, k, exclude_self, most):
    *_, q, g = make_sides(tmp_path)
    config = RankConfig(top_k=k, exclude_self=bool(exclude_self))
    with pytest.raises(UsageError, match=rf"`top_k` {k}: .* Use 1 to {most}, or all\."):
        run(q, g, str(tmp_path / "rk"), config)


def test_a_query_id_that_occurs_twice_is_refused(tmp_path):
    *_, g = make_sides(tmp_path)
    index = make_index(tmp_path / "twice", ["a", "b", "a"], np.ones((3, 4), np.float16))
    shard = f"{tmp_path}/twice/{index.shards[0].path}"
    found = f"the query id 'a' occurs more than once, in {shard}, row 0, and {shard}, row 2."
    with pytest.raises(IndexFormatError, match=re.escape(found)):
        run(str(tmp_path / "twice"), g, str(tmp_path / "rk"), RankConfig(top_k=1))


def test_a_folder_of_something_else_is_no_place_for_a_ranking(tmp_path):
    *_, q, g = make_sides(tmp_path)
    shutil.copytree(g, tmp_path / "copy")
    with pytest.raises(StorageError, match="which is no part of a ranking"):
        run(q, g, str(tmp_path / "copy"), RankConfig(top_k=1))
