"""A ranking of two indexes that have gone on since, and other ways to name them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines import rank
from pipelines.rank import RankConfig
from retrieval.evaluation import evaluate
from retrieval.index import commit_index, open_index
from retrieval.ranking.files import open_ranking
from retrieval.report_page import write_report
from tests.conftest import make_index
from tests.first_release import as_first_release

DIM = 6
ALL = RankConfig(top_k=None, num_threads=1)
FIVE = RankConfig(top_k=5, num_threads=1)


def rows_of(names, seed):
    vectors = np.random.default_rng(seed).normal(size=(len(names), DIM)).astype(np.float16)
    return names, vectors, [name[0] for name in names]


def add_version(index, names, seed, keep=None):
    """Commit new rows beside some shards of the newest version; all of them by default."""
    ids, vectors, labels = rows_of(names, seed)
    now = open_index(str(index))
    other = make_index(f"{index}-new", ids, vectors, labels=labels)
    for shard in other.shards:
        shutil.move(f"{index}-new/{shard.path}", f"{index}/{shard.path}")
    shutil.rmtree(f"{index}-new")
    kept = now.shards if keep is None else now.shards[:keep]
    commit_index(str(index), now.spec, [*kept, *other.shards], run={}, seen_version=now.version)


class Case:
    """Version 0 of two indexes ranked and measured; then both have a version 1."""

    def __init__(self, root, made_by, config=ALL):
        self.root, self.ranking = root, str(root / "ranking")
        self.q, self.g = root / "home" / "q", root / "home" / "g"
        ids, vectors, labels = rows_of(["a1", "b1", "c1"], 1)
        make_index(self.q, ids, vectors, labels=labels)
        ids, vectors, labels = rows_of([f"{c}{n}" for c in "abcd" for n in range(10, 13)], 2)
        make_index(self.g, ids, vectors, labels=labels, num_shards=3)
        rank.run(str(self.q), str(self.g), self.ranking, config)
        if made_by == "first release":
            as_first_release(self.ranking)
        self.figures = evaluate(self.ranking, str(self.q), str(self.g))
        self.page = self.report(str(self.q), str(self.g))
        add_version(self.q, ["b7"], 3)
        add_version(self.g, [f"{c}{n}" for c in "abc" for n in range(20, 23)], 4, keep=2)

    def report(self, *sides):
        page = self.root / "page.html"
        named = dict(zip(("queries", "gallery"), sides, strict=False))
        write_report(self.ranking, str(page), **named)
        return page.read_text()

    def facts(self):
        return json.loads(Path(open_ranking(self.ranking).manifest).read_text())

    def change(self, side, **values):
        facts = self.facts()
        facts[side] |= values
        Path(open_ranking(self.ranking).manifest).write_text(json.dumps(facts))

    def again(self, index, version):
        """Commit the content of a version once more."""
        old, now = open_index(str(index), version), open_index(str(index))
        commit_index(str(index), old.spec, old.shards, run={}, seen_version=now.version)


def by_dots(index):
    return f"{index}/../../home/{index.name}"


def by_link(index):
    link = index.parent.parent / f"link-to-{index.name}"
    link.symlink_to(index)
    return str(link)


def by_linked_parent(index):
    link = index.parent.parent / "link"
    if not link.exists():
        link.symlink_to(index.parent)
    return str(link / index.name)


def moved(index):
    return str(shutil.move(index, index.parent.parent / f"moved-{index.name}"))


def copied(index):
    return str(shutil.copytree(index, index.parent.parent / f"copy-of-{index.name}"))


def by_scheme(index):
    return f"file://{index}"


def with_slash(index):
    return f"{index}/"


DOORS = [str, by_dots, by_link, by_linked_parent, moved, copied, by_scheme, with_slash]
doors = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
