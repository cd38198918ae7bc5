"""How much two rankings differ, worked by hand."""

import pyarrow as pa
import pytest

from retrieval.errors import MismatchError
from retrieval.evaluation.overlap import QueryChange, compare_rankings
from retrieval.ranking.files import RANKING_SCHEMA, RankingWriter, open_ranking


def ranking_of(folder, lists):
    """A ranking of these queries; each letter is an image."""
    writer = RankingWriter(str(folder))
    found = [
        (query, place + 1, name, 0.0)
        for query, names in sorted(lists.items())
        for place, name in enumerate(names)
    ]
    columns = [list(column) for column in zip(*found, strict=True)]
    writer.write_part(pa.table(columns, names=RANKING_SCHEMA.names))
    writer.finish({})
    return open_ranking(str(folder))


def test_the_overlap_of_the_nearest_two(tmp_path):
    """p: {a, b} and {b, c} share one of two; q: the same in another order."""
    before = ranking_of(tmp_path / "before", {"p": "abz", "q": "cdy"})
    after = ranking_of(tmp_path / "after", {"p": "bcz", "q": "dcx"})
    churn = compare_rankings(before, after, k=2)
    assert churn.mean_overlap == (1 / 2 + 1) / 2
    assert churn.top_1_changed_fraction == 1
    assert churn.worst == (QueryChange("p", 0.5, "a", "b"), QueryChange("q", 1.0, "c", "d"))
    assert compare_rankings(before, after).mean_overlap == (2 / 3 + 2 / 3) / 2
    assert compare_rankings(before, before, k=1).mean_overlap == 1


def test_lists_of_different_length(tmp_path):
    """Of a gallery that has shrunk to one image: the longer list counts."""
    before = ranking_of(tmp_path / "before", {"p": "abcd"})
    after = ranking_of(tmp_path / "after", {"p": "a"})
    assert compare_rankings(before, after).mean_overlap == 1 / 4
    assert compare_rankings(before, after, k=1).mean_overlap == 1


def test_other_queries_cannot_be_compared(tmp_path):
    before = ranking_of(tmp_path / "before", {"p": "a"})
    after = ranking_of(tmp_path / "after", {"p": "a", "q": "a"})
    with pytest.raises(MismatchError, match="not of the same queries, such as 'q'"):
        compare_rankings(before, after)
