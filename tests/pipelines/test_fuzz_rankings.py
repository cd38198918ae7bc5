"""Damage to the files of a ranking, as `evaluate`, `report`, `verify` and others read them."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest

from pipelines import evaluate, report, verify
from pipelines.rank.config import RankConfig
from pipelines.rank.job import run as rank
from retrieval.churn import compare_rankings
from retrieval.rankings import RankingWriter, check_ranking_place, open_ranking, read_parts
from retrieval.vectors import open_source
from tests.conftest import make_index
from tests.damage import Target, count_outcomes

CONFIG = RankConfig(top_k=3, num_threads=1)


def make_ranking(folder):
    """Two indexes with labels and a ranking of them."""
    rng = np.random.default_rng(5)
    for name, number in (("q", 5), ("g", 12)):
        vectors = rng.normal(size=(number, 8)).astype(np.float16)
        ids = [f"{name}{n}" for n in range(number)]
        make_index(folder / name, ids, vectors, labels=["ab"[n % 2] for n in range(number)])
    rank(str(folder / "q"), str(folder / "g"), str(folder / "r"), CONFIG)
    return folder / "r" / "_ranking.json"


def make_old_ranking(folder):
    from tests.first_release import as_first_release

    make_ranking(folder)
    as_first_release(folder / "r")
    return folder / "r" / "ranking.json"


def make_part(folder):
    make_ranking(folder)
    return next((folder / "r").glob("part-*"))


def evaluated(folder):
    return evaluate.run(*(str(folder / name) for name in "rqg"))


def reported(folder):
    page = folder / "page.html"
    report.run(str(folder / "r"), str(page), queries=str(folder / "q"), gallery=str(folder / "g"))
    # Not what it says of the two sides: a word of the manifest cannot be known to be wrong.
    return re.findall(r">\s*([qg]\d+|[ab]|\d\.\d+)\s*<", page.read_text())


def verified(folder):
    sides = {"queries": str(folder / "q"), "gallery": str(folder / "g")}
    found = verify.run(str(folder / "r"), sample=2, **sides)
    return {name: found[name] for name in ("num_rows", "num_rows_checked", "score_rule")}


def compared(folder):
    ranking = open_ranking(str(folder / "r"))
    return compare_rankings(ranking, ranking).mean_overlap


def read_back(folder):
    return pa.concat_tables(read_parts(open_ranking(str(folder / "r")))).to_pylist()


def ranked_again(folder):
    """With --previous, as a night does."""
    from pipelines.rank.previous import Previous

    sides = [open_source(str(folder / name)) for name in "qg"]
    previous = Previous(str(folder / "r"), *sides, 3, CONFIG)
    ids = np.array([f"q{n}".encode() for n in range(5)])
    old = previous.lists(ids)
    lasts = zip(old.last_scores.tolist(), old.last_ids.tolist(), strict=True)
    return [last for last, is_there in zip(lasts, old.is_listed, strict=True) if is_there]


def gone_on(folder):
    """What a run finds of an earlier one; a part that is not whole is made again."""
    check_ranking_place(str(folder / "r"))
    (part,) = (folder / "r").glob("part-*")
    RankingWriter(str(folder / "r"), part.stem[-12:]).resume()


READERS = {
    "evaluate": evaluated,
    "report": reported,
    "verify": verified,
    "diff": compared,
    "read": read_back,
    "rank --previous": ranked_again,
    "rank": gone_on,
}


def is_less(whole, damaged):
    """Queries that --previous does not list are ranked anew."""
    return all(last in whole for last in damaged)


TARGETS = [
    Target(
        f"{what}: {name}", make, read,
        is_right=is_less if name == "rank --previous" else lambda whole, damaged: False,
        is_json=is_json,
    )
    for what, make, is_json in (
        ("_ranking.json", make_ranking, True),
        ("ranking.json", make_old_ranking, True),
        ("part", make_part, False),
    )
    for name, read in READERS.items()
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_damaged_file_is_read_right_or_refused(tmp_path, target):
    counts = count_outcomes(target, tmp_path, seed=1, number=40)
    assert counts["right"] or counts["refused"]
