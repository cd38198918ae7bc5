"""Who ranks: actors of a cluster, or this process where the work is done before they begin."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.rank import RankConfig, executor, run
from pipelines.ray_runtime.cluster_options import Site
from retrieval.errors import ClusterError
from retrieval.ranking.rank import rank
from retrieval.ranking.sides import open_side
from retrieval.search import available_cpus, whole_product_ns
from tests.retrieval.ranks import draw, parts_of, write_foreign


@pytest.fixture
def sides(tmp_path, ray_session):
    write_foreign(tmp_path / "q" / "0.parquet", ("q0", "q1"), draw(1, 2))
    write_foreign(tmp_path / "g" / "0.parquet", (f"g{n}" for n in range(50)), draw(2, 50))
    return str(tmp_path / "q"), str(tmp_path / "g")


def uses_ray(sides, site=Site(), **settings):
    opened = map(open_side, sides)
    chosen = executor.choose_executor(*opened, RankConfig(top_k=3, **settings), site)
    return isinstance(chosen, executor.RayExecutor)


def test_small_work_is_done_here_though_a_ray_runs_and_gives_the_same_bytes(
    sides, tmp_path, monkeypatch
):
    run(*sides, str(tmp_path / "by actors"), RankConfig(top_k=3))
    monkeypatch.setattr(executor, "_SMALL_S", 10.0)
    monkeypatch.setattr(executor.RayExecutor, "session", None)  # an error, if it were called
    report = run(*sides, str(tmp_path / "here"), RankConfig(top_k=3))
    assert parts_of(tmp_path / "here") == parts_of(tmp_path / "by actors")
    assert report["seconds"]["start_ray"] < 0.5


def test_the_whole_product_on_the_cores_of_this_machine_is_the_measure(sides, monkeypatch):
    seconds = 50 * whole_product_ns(2, 8) * 1e-9 / available_cpus()
    monkeypatch.setattr(executor, "_SMALL_S", 1.01 * seconds)
    assert not uses_ray(sides)
    monkeypatch.setattr(executor, "_SMALL_S", 0.99 * seconds)
    assert uses_ray(sides)


@pytest.mark.parametrize(
    "settings", [{"num_actors": 1}, {"metric": "l1"}, {"metric": "minkowski:3"}, {"device": "auto"}]
)
def test_who_asks_for_actors_or_for_what_takes_longer_gets_the_cluster(
    sides, monkeypatch, settings
):
    monkeypatch.setattr(executor, "_SMALL_S", 10.0)
    assert uses_ray(sides, **settings)


def test_an_address_where_nobody_is_is_an_error_however_small_the_work(sides, monkeypatch):
    monkeypatch.setattr(executor, "_SMALL_S", 10.0)
    with pytest.raises(ClusterError, match="nobody answers there"):
        uses_ray(sides, Site("127.0.0.1:1"))


def test_actors_compare_queries_with_the_sample_too(tmp_path, monkeypatch, ray_session):
    from pipelines.rank import actors
    from retrieval.ranking import rank_blocks

    num_gallery = 140_000  # sixteen times the sample, and more
    write_foreign(tmp_path / "q" / "0.parquet", (f"q{n}" for n in range(40)), draw(1, 40))
    names = (f"g{n}" for n in range(num_gallery))
    write_foreign(tmp_path / "g" / "0.parquet", names, draw(2, num_gallery))
    q, g = str(tmp_path / "q"), str(tmp_path / "g")
    without = run(q, g, str(tmp_path / "without"), RankConfig(top_k=5, num_threads=2))
    monkeypatch.setattr(rank_blocks, "is_worth_a_sample", lambda *_: True)
    monkeypatch.setattr(actors, "_SAMPLE_QUERIES", 7)
    report = run(q, g, str(tmp_path / "rk"), RankConfig(top_k=5, num_actors=2))
    assert parts_of(tmp_path / "rk") == parts_of(tmp_path / "without")
    (certificate,) = report["certificate"]
    assert certificate["scored"] < without["certificate"][0]["scored"]


@pytest.mark.parametrize("exclude_self", [False, True])
def test_arrays_are_ranked_by_actors_as_by_threads(ray_session, exclude_self):
    rows = draw(1, 5000, ties=True)
    settings = {"k": 9, "exclude_self": exclude_self}
    by_actors = rank(rows[:30], rows, **settings, executor=executor.RayExecutor(Site(), 2))
    by_threads = rank(rows[:30], rows, **settings)
    assert by_actors.certificate[0]["shares"] == 2
    np.testing.assert_array_equal(by_actors.ids, by_threads.ids)
    assert by_actors.scores.tobytes() == by_threads.scores.tobytes()
