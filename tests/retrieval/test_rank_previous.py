"""`rank --previous`: whatever changed over night, the parts are a full run's, byte for byte."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from retrieval.errors import UsageError
from retrieval.ranking.settings import RankConfig
from tests.conftest import make_index
from tests.retrieval.ranks import (
    Nights,
    budget,
    commit,
    draw,
    make_shard,
    marks_of,
    parts_of,
    rows_of,
    run,
    write_foreign,
)

DIM = 6


def config(gallery_rows, k, *, query_rows=11, previous=None, **settings):
    memory = budget(gallery_rows, 2 * DIM, DIM, k, query_rows, num_threads=2)
    return RankConfig(
        top_k=k, num_threads=2, memory_bytes=memory, previous=previous and str(previous), **settings
    )


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("seed", range(4))
def test_after_random_nights_it_equals_a_full_run(tmp_path, seed, metric):
    rng = np.random.default_rng([seed, 7])
    gallery = Nights(tmp_path / "g", "g", 60, rng, DIM, ties=seed % 2 == 0)
    queries = Nights(tmp_path / "q", "q", 25, rng, DIM, ties=seed % 2 == 0)
    exclude_self = seed >= 2
    q = str((gallery if exclude_self else queries).path)
    g, k = str(gallery.path), (1, 5, 30, 40)[seed]
    settings = {"metric": metric, "exclude_self": exclude_self}
    run(q, g, str(tmp_path / "night-0"), config(60, k, **settings))
    for night in range(1, 3):
        gallery.next(int(rng.integers(3)), int(rng.integers(6)))
        queries.next(int(rng.integers(2)), int(rng.integers(4)))
        before, after = tmp_path / f"night-{night - 1}", tmp_path / f"night-{night}"
        run(q, g, str(tmp_path / "full"), config(gallery.num_rows(), k, **settings))
        run(q, g, str(after), config(gallery.num_rows(), k, previous=before, **settings))
        assert len(parts_of(after)) > 1
        assert parts_of(after) == parts_of(tmp_path / "full")


@pytest.mark.parametrize("k", [3, 99])
def test_a_chain_of_nights_each_on_the_one_before_ends_where_a_full_run_does(tmp_path, k):
    rng = np.random.default_rng(k)
    gallery = Nights(tmp_path / "g", "g", 120, rng, DIM, ties=True)
    queries = Nights(tmp_path / "q", "q", 20, rng, DIM, ties=True)
    q, g, folder = str(queries.path), str(gallery.path), str(tmp_path / "rk")
    run(q, g, folder, config(120, k))
    spared = 0
    for _ in range(5):  # the folder of the night before is also the one to replace
        gallery.next(1, 20)
        queries.next(1, 2)
        spared += run(q, g, folder, config(gallery.num_rows(), k, previous=folder))[
            "num_spared_queries"
        ]
    run(q, g, str(tmp_path / "full"), config(gallery.num_rows(), k))
    assert parts_of(folder) == parts_of(tmp_path / "full")
    assert spared > 0


# ------------------------------------------------- one query at (0, 0) and a gallery on a line


def on_line(**places):
    return {name: np.array([place, 1], np.float16) for name, place in places.items()}


class Line:
    """Two queries at 0 and a gallery at b = 1, d = 2, f = 3 and so on, ranked once."""

    def __init__(self, tmp_path):
        self.q, self.g, self.old = tmp_path / "q", tmp_path / "g", tmp_path / "old"
        self.new, self.full = tmp_path / "new", tmp_path / "full"
        self.queries = make_shard(self.q, on_line(here=0, there=0))
        commit(self.q, [self.queries], dim=2)
        self.shards = {
            name: make_shard(self.g, on_line(**{name: place}))
            for name, place in {"b": 1, "d": 2, "f": 3, "h": 3, "j": 5}.items()
        }
        commit(self.g, list(self.shards.values()), dim=2)
        self.settings = {"top_k": 3, "metric": "l2", "num_threads": 1}
        run(str(self.q), str(self.g), str(self.old), RankConfig(**self.settings))

    def change(self, *removed, **added):
        for name in removed:
            del self.shards[name]
        for name, place in added.items():
            self.shards[name] = make_shard(self.g, on_line(**{name: place}))
        commit(self.g, list(self.shards.values()), dim=2)

    def again(self):
        """What the first query finds, and how many queries were spared."""
        for folder, previous in ((self.full, None), (self.new, str(self.old))):
            settings = RankConfig(**self.settings, previous=previous)
            report = run(str(self.q), str(self.g), str(folder), settings)
        assert parts_of(self.new) == parts_of(self.full)
        return "".join(row[2] for row in rows_of(self.new)[:3]), report["num_spared_queries"]


@pytest.fixture
def line(tmp_path):
    return Line(tmp_path)


def test_nothing_changed_reads_nothing(line):
    assert line.again() == ("bdf", 2)
    report = run(
        str(line.q), str(line.g), str(line.new), RankConfig(**line.settings, previous=str(line.old))
    )
    assert report["num_spared_queries"] == 0  # it is there already
    assert report["previous"] == str(line.old)


@pytest.mark.parametrize(
    ("removed", "added", "expected"),
    [
        ("d", {}, ("bfh", 0)),  # who follows was never listed
        ("f", {}, ("bdh", 0)),
        ("h", {}, ("bdf", 2)),  # it was not listed
        ("", {"a": 0}, ("abd", 2)),
        ("d", {"a": 0}, ("abf", 2)),
        ("bd", {"a": 0}, ("afh", 0)),  # two go and one comes
        ("bdf", {"x": 1, "y": 2, "z": 2.5}, ("xyz", 2)),
        ("d", {"z": 4}, ("bfh", 0)),  # it comes after one that was not listed
        ("", {"e": 3}, ("bde", 2)),  # a tie at the last place: the smaller id
        ("", {"g": 3}, ("bdf", 2)),
        ("f", {"e": 3}, ("bde", 2)),
        ("f", {"g": 3}, ("bdg", 0)),  # right, but an id between f and g may not have been listed
        ("f", {"z": 3}, ("bdh", 0)),  # h was not listed, and stands before z
        ("f", {"f": 3}, ("bdf", 2)),  # written again
        ("f", {"f": 0}, ("fbd", 2)),
        ("f", {"f": 9}, ("bdh", 0)),
        ("bdfhj", {"a": 2, "b": 2, "c": 3}, ("abc", 0)),  # nothing stayed: no list is of use
    ],
)
def test_what_goes_and_comes_is_found_as_by_a_full_run(line, removed, added, expected):
    line.change(*removed, **added)
    assert line.again() == expected


@pytest.mark.parametrize("side", ["q", "g"])
def test_where_all_of_a_side_was_written_anew_it_costs_one_full_pass_and_no_more(line, side):
    if side == "g":
        line.change(*"bdfhj", b=1, d=2, f=3, h=3, j=5)
    else:
        commit(line.q, [make_shard(line.q, on_line(here=0, there=0))], dim=2)
        line.change(k=9)
    assert line.again() == ("bdf", 0)
    (certificate,) = json.loads((line.new / "_ranking.json").read_text())["certificate"]
    assert certificate["pairs"] == 2 * len(line.shards)


def test_new_and_changed_queries_are_ranked_in_full_and_the_others_are_spared(line):
    changed = make_shard(line.q, on_line(here=2.6, young=0))
    same = make_shard(line.q, on_line(there=0))
    commit(line.q, [changed, same], dim=2)
    assert line.again() == ("fhd", 0)  # a shard that was written anew holds no known query
    shutil.rmtree(line.old)
    line.new.rename(line.old)
    commit(line.q, [make_shard(line.q, on_line(other=0)), same], dim=2)
    assert line.again() == ("bdf", 1)


def test_a_query_s_own_image_is_left_out_where_it_was_and_where_it_is_new(tmp_path):
    first = make_shard(tmp_path / "g", on_line(b=0, d=1, f=2, h=4))
    commit(tmp_path / "g", [first], dim=2)
    settings = {"top_k": 2, "metric": "l2", "num_threads": 1, "exclude_self": True}
    g, old, new = (str(tmp_path / name) for name in ("g", "old", "new"))
    run(g, g, old, RankConfig(**settings))
    commit(tmp_path / "g", [first, make_shard(tmp_path / "g", on_line(a=0.5))], dim=2)
    report = run(g, g, new, RankConfig(**settings, previous=old))
    assert report["num_spared_queries"] == 4
    run(g, g, str(tmp_path / "full"), RankConfig(**settings))
    assert parts_of(new) == parts_of(tmp_path / "full")
    assert [row[:3] for row in rows_of(new)[:4]] == [
        ("a", 1, "b"), ("a", 2, "d"), ("b", 1, "a"), ("b", 2, "d"),
    ]  # fmt: skip


def test_a_whole_ranking_after_a_night_is_right_though_nothing_is_spared(line):
    line.settings["top_k"] = None
    run(str(line.q), str(line.g), str(line.old), RankConfig(**line.settings))
    line.change("d", e=2, z=9)
    found, spared = line.again()
    assert (found, spared) == ("bef", 0)


def test_a_killed_run_with_a_previous_one_goes_on_after_its_parts(line):
    line.change("d", a=0)
    line.settings["memory_bytes"] = budget(5, 4, 2, 3, query_rows=1)
    assert line.again() == ("abf", 2)
    (line.new / "_ranking.json").unlink()
    first, last = sorted(marks_of(line.new))
    (line.new / last).unlink()
    before = marks_of(line.new)
    report = run(
        str(line.q), str(line.g), str(line.new), RankConfig(**line.settings, previous=str(line.old))
    )
    assert (report["num_resumed_parts"], report["num_spared_queries"]) == (1, 1)
    assert marks_of(line.new)[first] == before[first]
    assert parts_of(line.new) == parts_of(line.full)


# ------------------------------------------------------------------------------ what is refused


def refusal(line, **changes):
    with pytest.raises(UsageError) as caught:
        run(
            changes.pop("q", str(line.q)), changes.pop("g", str(line.g)), str(line.new),
            RankConfig(**{**line.settings, "previous": str(line.old), **changes}),
        )  # fmt: skip
    assert not line.new.exists()
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "now"),
    [
        ({"metric": "cosine"}, "`metric` cosine, `top_k` 3"),
        ({"top_k": 2}, "`metric` l2, `top_k` 2"),
        ({"exclude_self": True}, "`metric` l2, `top_k` 3 and `exclude_self`"),
    ],
)
def test_a_previous_ranking_with_other_settings_is_refused(line, changes, now):
    assert refusal(line, **changes) == (
        f"`previous` {line.old}: made with `metric` l2, `top_k` 3, but this run has {now}. "
        f"Use the same, or leave `previous` out."
    )


@pytest.mark.parametrize("side", ["queries", "gallery"])
def test_a_previous_ranking_of_other_indexes_is_refused(line, tmp_path, side):
    other, mine = tmp_path / "other", line.q if side == "queries" else line.g
    make_index(other, ["b", "d", "f"], np.ones((3, 2), np.float16))
    assert refusal(line, **{side[0]: str(other)}) == (
        f"`previous` {line.old}: its {side} are {mine} with fingerprint ffffffffffff, those of "
        f"this run {other} with ffffffffffff. Leave `previous` out."
    )


def test_a_previous_ranking_by_another_network_is_refused(line):
    for index, rows in ((line.q, on_line(here=1)), (line.g, on_line(a=1, b=2, c=3))):
        commit(index, [make_shard(index, rows)], dim=2, fingerprint="e" * 64)
    assert refusal(line) == (
        f"`previous` {line.old}: its gallery are {line.g} with fingerprint ffffffffffff, those of "
        f"this run {line.g} with eeeeeeeeeeee. Leave `previous` out."
    )


def test_a_previous_ranking_of_foreign_files_is_refused(line, tmp_path):
    foreign = tmp_path / "foreign"
    write_foreign(foreign / "1.parquet", ["a", "b", "c"], draw(1, 3, 2))
    said = (
        f"`previous` {line.old}: its gallery or those of this run are no index, so that nobody "
        f"can tell what has changed. Leave `previous` out."
    )
    assert refusal(line, g=str(foreign)) == said
    run(str(line.q), str(foreign), str(line.old), RankConfig(**line.settings))
    assert refusal(line) == said


def test_a_previous_ranking_of_an_index_that_was_made_anew_under_the_same_name_is_refused(line):
    shutil.rmtree(line.g)  # embedded again from the start: its versions begin with 0 again
    commit(line.g, [make_shard(line.g, on_line(b=1, d=9, f=9, h=9, j=9))], dim=2)
    assert refusal(line) == (
        f"`previous` {line.old}: its gallery, version 0 of {line.g}, held other shards than that "
        f"version has now: the index was made anew. Leave `previous` out."
    )


def test_a_part_of_the_previous_ranking_that_is_damaged_is_named(line):
    (part,) = line.old.glob("part-*")
    part.write_bytes(part.read_bytes()[:-30])
    with pytest.raises(Exception, match=rf"{part}: this part cannot be read .*\. Rank again\."):
        line.again()
