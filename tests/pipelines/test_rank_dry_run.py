"""`rank --dry-run` and the command line of `rank`: what it says, and that it writes nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipelines.cli import main
from pipelines.rank import RankConfig, estimate, run
from pipelines.ray_runtime import session
from retrieval.index import open_index
from retrieval.ranking import plan
from retrieval.search import Choice
from tests.pipelines.ranks import invoke
from tests.retrieval.ranks import (
    budget,
    commit,
    draw,
    make_shard,
    marks_of,
    parts_of,
    rows_of,
    write_foreign,
)

MEMORY = budget(300, 16, 8, 4, query_rows=3)
OPTIONS = ["--top-k", 4, "--num-threads", 1, "--memory-gib", MEMORY / 2**30]


@pytest.fixture
def sides(tmp_path):
    """10 queries and a gallery of 300 rows of 8 float16, each foreign and as an index."""
    queries = {f"q{n}": vector for n, vector in enumerate(draw(1, 10))}
    gallery = {f"g{n}": vector for n, vector in enumerate(draw(2, 300))}
    for name, rows in (("q", queries), ("g", gallery)):
        names, vectors = list(rows), list(rows.values())
        for number in range(2):
            path = tmp_path / f"foreign-{name}" / f"{number}.parquet"
            write_foreign(path, names[number::2], vectors[number::2])
        index = tmp_path / f"index-{name}"
        halves = [dict(zip(names[n::2], vectors[n::2], strict=True)) for n in range(2)]
        commit(index, [make_shard(index, half) for half in halves], dim=8)
    return tmp_path


def everything(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("kind", ["foreign", "index"])
def test_a_dry_run_says_what_would_be_read_and_writes_nothing(sides, kind):
    before = everything(sides)
    q, g = sides / f"{kind}-q", sides / f"{kind}-g"
    done = invoke("rank", q, g, sides / "rk", *OPTIONS, "--dry-run")
    assert (done.exit_code, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert everything(sides) == before
    assert report["dry_run"] is True
    assert (report["num_queries"], report["num_gallery"]) == (10, 300)
    assert (report["top_k"], report["num_rows"]) == (4, 40)
    assert report["plan"] == {
        "query_rows": 3, "gallery_rows": 300, "num_blocks": 4, "parts": 2,
    }  # fmt: skip
    assert report["read_bytes"] == {
        "queries": 10 * 16, "gallery_once": 300 * 16, "gallery_all_passes": 4 * 300 * 16,
    }  # fmt: skip
    assert report["reads"] == {"queries": str(q), "gallery": str(g)}
    assert report["first_product_dims"] is None
    assert report["gallery"]["version"] == (0 if kind == "index" else None)
    assert not report["is_complete"]
    # A real run then does what was said.
    ranked = json.loads(invoke("rank", q, g, sides / "rk", *OPTIONS).stdout)
    assert len(marks_of(sides / "rk")) == 4
    assert ranked["num_rows"] == 40
    assert {name: report["plan"][name] for name in ranked["plan"]} == ranked["plan"]
    for name in ("queries", "gallery", "metric", "exclude_self", "is_complete"):
        assert report[name] == ranked[name]


def test_a_dry_run_beside_a_ranking_leaves_it_as_it_is(sides):
    arguments = ["rank", sides / "index-q", sides / "index-g", sides / "rk", *OPTIONS]
    assert invoke(*arguments).exit_code == 0
    before = everything(sides)
    assert invoke(*arguments, "--metric", "l2", "--dry-run").exit_code == 0
    assert everything(sides) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--top-k", 301], "--top-k 301: "),
        (["--top-k", 300, "--exclude-self"], "--top-k 300: "),
        (["--memory-gib", 0.001], "--memory-gib 0.001: ranking 4 of 300 images"),
    ],
)
def test_a_dry_run_refuses_what_a_run_refuses(sides, options, said):
    arguments = ["rank", sides / "foreign-q", sides / "foreign-g", sides / "rk", *OPTIONS]
    for more in ([], ["--dry-run"]):
        done = invoke(*arguments, *options, *more)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith(f"Error: {said}")
        assert done.stderr.count("\n") == 1
    assert not (sides / "rk").exists()


def test_the_expected_seconds_are_the_arithmetic_of_all_blocks_shared_by_the_threads(
    sides, monkeypatch
):
    basis = np.zeros((8, 5), np.float32)
    monkeypatch.setattr(plan, "choose_basis", lambda *_: Choice(basis, 1e9))
    memory = budget(300, 16, 8, 4, query_rows=3, num_threads=3)
    config = RankConfig(top_k=4, num_threads=3, memory_bytes=memory)
    report = estimate(str(sides / "foreign-q"), str(sides / "foreign-g"), config)
    assert report["expected_core_seconds"] == 4 * 300
    assert report["expected_seconds"] == 400
    assert report["first_product_dims"] == 5


def test_a_dry_run_starts_no_ray(sides, monkeypatch):
    def refuse(*_):
        raise AssertionError("Ray is started")

    monkeypatch.setattr(session, "session", refuse)
    config = RankConfig(top_k=4, num_actors=2)
    report = estimate(str(sides / "index-q"), str(sides / "index-g"), config)
    assert report["num_rows"] == 40
    # Nor does a run with threads, though one may be running here.
    run(
        str(sides / "index-q"), str(sides / "index-g"), str(sides / "rk"), RankConfig(num_threads=1)
    )


# -------------------------------------------------------------------------------------- --help


def test_the_help_tells_every_option_and_what_it_does():
    text = invoke("rank", "--help").stdout
    options = [param for param in main.commands["rank"].params if param.param_type_name == "option"]
    assert len(options) == 17
    for option in options:
        assert option.opts[0] in text
        assert option.help
    for default in ("[default: 10]", "cosine|ip|l2|l1|minkowski:P", "[auto|cpu|cuda]"):
        assert default in text


@pytest.mark.parametrize("value", ["ten", "1.5", ""])
def test_a_top_k_that_is_no_number_is_wrong_usage(sides, value):
    done = invoke("rank", sides / "index-q", sides / "index-g", sides / "rk", "--top-k", value)
    assert done.exit_code == 2
    assert f"{value!r} is neither a number nor 'all'." in done.stderr


def test_threads_and_actors_give_the_same_bytes_also_after_a_night(sides, ray_session):
    q, g = sides / "index-q", sides / "index-g"

    def rank(ranking, *options):
        done = invoke("rank", q, g, sides / ranking, *OPTIONS[:2], *OPTIONS[4:], *options)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    by_threads = rank("threads", "--num-threads", 1)
    by_actors = rank("actors", "--num-actors", 2)
    assert by_actors["plan"] == by_threads["plan"]
    assert [entry.get("shares") for entry in by_threads["certificate"]] == [None] * 4
    assert [entry["shares"] for entry in by_actors["certificate"]] == [2] * 4
    assert parts_of(sides / "actors") == parts_of(sides / "threads")
    commit(g, [*open_index(str(g)).shards, make_shard(g, {"new": draw(7, 1)[0]})], dim=8)
    full = rank("full", "--num-threads", 1)
    night = rank("night", "--num-actors", 2, "--previous", sides / "actors")
    assert night["num_spared_queries"] > 0
    assert full["num_spared_queries"] == 0
    assert rows_of(sides / "night") == rows_of(sides / "full")
