"""`rank --previous` over shards that were written again: exact, and only added rows are met."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable

from retrieval.errors import UsageError
from retrieval.index import commit_index, open_index
from retrieval.ranking.settings import RankConfig
from retrieval.ranking.shard_lineage import trace
from retrieval.vectors import open_source
from tests.conftest import make_spec
from tests.retrieval.ranks import draw, make_shard, parts_of, rows_of, run


def commit(index, shards, sources=None):
    """The next version of an index, with a record that names the sources of its shards."""
    is_new = not (Path(index) / "_delta_log").exists()
    seen = None if is_new else open_index(str(index)).version
    record = {} if sources is None else {"sources": sources}
    return commit_index(str(index), make_spec(2), shards, run=record, seen_version=seen)


# --------------------------------------------------------------------------------- random nights


class Nights:
    """An index in which rows go, change, move and come, and shards are merged and restored."""

    def __init__(self, path, prefix, num_rows, rng):
        self.path, self._prefix, self._rng = path, prefix, rng
        self._numbers = itertools.count()
        rows = dict(self._new_row() for _ in range(num_rows))
        self._versions = [self._shards(rows, num_shards=5)]
        commit(path, [shard for shard, _ in self._versions[-1]])

    def _new_row(self):
        # On a grid of few points, so that most scores occur many times.
        name = f"{self._prefix}{next(self._numbers) * 7 % 1009}"
        return name, draw(self._rng.integers(2**20), 1, 2, ties=True)[0]

    def next(self):
        if len(self._versions) > 1 and self._rng.random() < 0.25:
            live, sources = self._versions[self._rng.integers(len(self._versions))], {}
        else:
            live, sources = self._rewritten(self._versions[-1])
        self._versions.append(live)
        is_recorded = self._rng.random() < 0.9
        commit(self.path, [shard for shard, _ in live], sources if is_recorded else None)

    def _rewritten(self, before):
        """Three shards become two, some become another, some stay."""
        order = self._rng.permutation(len(before))
        groups = [list(order[:3]), *([number] for number in order[3:])]
        live, sources, young = [], {}, dict(self._new_row() for _ in range(4))
        for group in groups:
            if len(group) == 1 and self._rng.random() < 0.4:
                live.append(before[group[0]])
                continue
            rows = {}
            for number in group:
                rows.update(self._survivors(before[number][1], young))
            for shard, held in self._shards(rows, num_shards=2 if len(group) > 1 else 1):
                live.append((shard, held))
                sources[shard.path] = [before[number][0].path for number in group]
        return live + self._shards(young, num_shards=2), sources

    def _shards(self, rows, num_shards):
        parts = [dict(list(rows.items())[start::num_shards]) for start in range(num_shards)]
        return [(make_shard(self.path, part), part) for part in parts if part]

    def _survivors(self, rows, young):
        stays = {}
        for name, vector in rows.items():
            fate = self._rng.random()
            if fate < 0.05:
                young[name] = self._new_row()[1]  # other content under the same id
            elif fate < 0.10:
                young[self._new_row()[0]] = vector  # the same content under another id
            elif fate > 0.15:
                stays[name] = vector
        return stays


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("seed", range(4))
def test_after_random_nights_any_earlier_ranking_leads_to_that_of_a_full_run(
    tmp_path, seed, metric
):
    rng = np.random.default_rng([seed, 11])
    queries = Nights(tmp_path / "q", "q", 15, rng)
    gallery = Nights(tmp_path / "g", "g", 60, rng)
    settings = {"top_k": 5, "metric": metric, "num_threads": 1}
    num_spared = 0
    for night in range(4):
        q, g, full = str(queries.path), str(gallery.path), tmp_path / f"full-{night}"
        run(q, g, str(full), RankConfig(**settings))
        for earlier in range(night):
            previous = str(tmp_path / f"full-{earlier}")
            found = tmp_path / f"from-{earlier}-to-{night}"
            report = run(q, g, str(found), RankConfig(**settings, previous=previous))
            num_spared += report["num_spared_queries"]
            assert parts_of(found) == parts_of(full)
        queries.next()
        gallery.next()
    assert num_spared > 0


# ------------------------------------------------- one query at (0, 0) and a gallery on a line


def on_line(index, **places):
    rows = {name: np.array([place, 1], np.float16) for name, place in places.items()}
    return make_shard(index, rows)


class Line:
    """Two queries at 0, and a gallery of two shards: a, b, c and d, e, f at 1 to 6."""

    def __init__(self, tmp_path):
        self.folder, self.q, self.g = tmp_path, tmp_path / "q", tmp_path / "g"
        self.queries = on_line(self.q, here=0, there=0)
        commit(self.q, [self.queries])
        self.near, self.far = on_line(self.g, a=1, b=2, c=3), on_line(self.g, d=4, e=5, f=6)
        commit(self.g, [self.near, self.far])
        self.rank("old")

    def rank(self, folder, previous=None):
        settings = {"top_k": 2, "metric": "l2", "num_threads": 1}
        config = RankConfig(**settings, previous=previous and str(self.folder / previous))
        return run(str(self.q), str(self.g), str(self.folder / folder), config)

    def again(self):
        """What the first query finds, the queries spared, and the products that were made."""
        self.rank("full")
        report = self.rank("new", previous="old")
        assert parts_of(self.folder / "new") == parts_of(self.folder / "full")
        found = "".join(row[2] for row in rows_of(self.folder / "new")[:2])
        pairs = sum(each["pairs"] for each in report["certificate"])
        return found, report["num_spared_queries"], pairs

    def lineage(self):
        """Numbers of files that are added, covered, and gone and rewritten of each family."""
        found = trace(open_source(str(self.g), version=0), open_source(str(self.g)))
        families = sorted((len(each.gone), len(each.rewritten)) for each in found.families)
        return len(found.added), len(found.covered), families


@pytest.fixture
def line(tmp_path):
    return Line(tmp_path)


def rewrite(line, old, **places):
    new = on_line(line.g, **places)
    return new, {new.path: [shard.path for shard in old]}


def test_where_all_shards_lost_a_row_only_added_rows_are_ranked(line):
    near, sources = rewrite(line, [line.near], a=1, b=2)
    far, more = rewrite(line, [line.far], d=4, f=6)
    added = on_line(line.g, g=1.5, h=7, i=8)
    commit(line.g, [near, far, added], sources | more)
    assert line.lineage() == (1, 2, [(1, 1), (1, 1)])
    assert line.again() == ("ag", 2, 2 * 3)


def test_where_rows_only_went_nothing_is_ranked_but_for_queries_that_listed_them(line):
    far, sources = rewrite(line, [line.far], d=4, e=5)
    commit(line.g, [line.near, far], sources)
    assert line.again() == ("ab", 2, 0)
    near, sources = rewrite(line, [line.near], a=1, c=3)
    commit(line.g, [near, far], sources)
    assert line.again() == ("ac", 0, 2 * 4)


def test_a_row_of_other_content_under_the_same_id_is_ranked_anew(line):
    near, sources = rewrite(line, [line.near], a=1, c=3)
    commit(line.g, [near, on_line(line.g, b=0), line.far], sources)
    assert line.again() == ("ba", 2, 2 * 1)


def test_a_row_that_went_and_came_back_by_another_shard_counts_once(line):
    near, sources = rewrite(line, [line.near], a=1, c=3)
    commit(line.g, [near, line.far], sources)
    young = on_line(line.g, b=0.5)
    commit(line.g, [near, young, line.far], {})
    merged, sources = rewrite(line, [near, young], a=1, b=0.5, c=3)
    commit(line.g, [merged, line.far], sources)
    assert line.lineage() == (1, 1, [(1, 0)])  # one of its sources is new, and so is all of it
    assert line.again() == ("ba", 2, 2 * 3)


def test_shards_that_are_written_again_night_by_night_and_merged_are_covered(line):
    near, sources = rewrite(line, [line.near], a=1, b=2)
    commit(line.g, [near, line.far], sources)
    merged, sources = rewrite(line, [near, line.far], a=1, b=2, d=4, e=5)
    commit(line.g, [merged], sources)
    last, sources = rewrite(line, [merged], a=1, b=2, e=5)
    commit(line.g, [last], sources)
    assert line.lineage() == (0, 1, [(2, 1)])
    assert line.again() == ("ab", 2, 0)


def test_rows_that_went_from_two_shards_into_two_others_are_told_from_those_that_went(line):
    first, sources = rewrite(line, [line.near, line.far], a=1, d=4)
    last, more = rewrite(line, [line.near, line.far], b=2, e=5)
    commit(line.g, [first, last], sources | more)
    assert line.lineage() == (0, 2, [(2, 2)])
    assert line.again() == ("ab", 2, 0)


def test_queries_whose_shard_was_written_again_are_spared(line):
    stays = on_line(line.q, there=0)
    commit(line.q, [stays, on_line(line.q, here=2.6)], {stays.path: [line.queries.path]})
    commit(line.g, [line.near, line.far, on_line(line.g, g=1.5)])
    assert line.again() == ("cb", 1, 2 * 1 + 1 * 7)  # both meet what is new, one all of it


def test_a_restored_shard_is_covered_by_the_versions_that_held_it_alone(line):
    near, sources = rewrite(line, [line.near], a=1, b=2)
    commit(line.g, [near, line.far], sources)
    commit(line.g, [line.near, line.far])
    assert line.lineage() == (0, 2, [])
    rewritten = trace(open_source(str(line.g), version=1), open_source(str(line.g)))
    assert [file.num_rows for file in rewritten.added] == [3]
    assert line.again() == ("ab", 2, 0)


@pytest.mark.parametrize(
    "record",
    [
        lambda new, old: None,
        lambda new, old: {},
        lambda new, old: [new],
        lambda new, old: {new: []},
        lambda new, old: {new: [new]},
        lambda new, old: {new: ["shard-unknown.parquet"]},
        lambda new, old: {new: [old, "shard-unknown.parquet"]},
        lambda new, old: {"shard-unknown.parquet": [old]},
    ],
)
def test_what_no_record_vouches_for_is_ranked_anew(line, record):
    near = on_line(line.g, a=1, b=2)
    commit(line.g, [near, line.far], record(near.path, line.near.path))
    assert line.lineage() == (1, 1, [(1, 0)])
    assert line.again() == ("ab", 2, 2 * 2)


def test_a_record_that_names_a_later_shard_is_not_believed(line):
    near, later = on_line(line.g, a=1, b=2), on_line(line.g, d=4)
    commit(line.g, [near, line.far], {near.path: [later.path]})
    commit(line.g, [near, later], {later.path: [line.far.path]})
    assert line.lineage() == (1, 1, [(1, 0), (1, 1)])


def test_a_night_whose_entry_of_the_log_has_been_cleaned_up_vouches_for_nothing(line):
    near, sources = rewrite(line, [line.near], a=1, b=2)
    commit(line.g, [near, line.far], sources)
    far, sources = rewrite(line, [line.far], d=4, e=5)
    commit(line.g, [near, far], sources)
    DeltaTable(str(line.g)).create_checkpoint()
    assert line.lineage() == (0, 2, [(1, 1), (1, 1)])
    (line.g / "_delta_log" / f"{1:020d}.json").unlink()
    assert line.lineage() == (1, 1, [(1, 0), (1, 1)])
    assert line.again() == ("ab", 2, 2 * 2)


def test_a_ranking_of_a_later_version_is_no_worse_a_start_than_none(line):
    near, sources = rewrite(line, [line.near], a=1, b=2)
    commit(line.g, [near, line.far], sources)
    found = trace(open_source(str(line.g)), open_source(str(line.g), version=0))
    assert [file.num_rows for file in found.added] == [3]
    assert [file.uri for file in found.covered] == [f"{line.g}/{line.far.path}"]


@pytest.mark.parametrize("lost", ["shard", "entry"])
def test_a_ranking_of_a_version_that_has_been_vacuumed_is_no_start_and_says_so(line, lost):
    commit(line.g, [line.far])
    gone = line.g / line.near.path
    if lost == "entry":
        DeltaTable(str(line.g)).create_checkpoint()
        gone = line.g / "_delta_log" / f"{0:020d}.json"
    gone.unlink()
    said = f"version 0 of {line.g}, can no longer be read, as after a vacuum. Leave `previous` out."
    with pytest.raises(UsageError, match=re.escape(said)):
        line.rank("new", previous="old")
