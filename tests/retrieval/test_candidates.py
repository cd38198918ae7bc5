"""The k best of many candidates, against Python's own sort."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.search import Candidates, best

TRIPLES = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from([b"", b"a", b"b", b"aa", b"\xff"]),
        st.sampled_from([-1.5, -0.0, 0.0, 0.5, 2.0]),
    ),
    max_size=40,
)


def candidates(triples):
    query, ids, scores = zip(*triples, strict=True) if triples else ((), (), ())
    return Candidates(np.array(query, np.int32), np.array(ids, "S2"), np.array(scores, float))


def by_python(triples, k, smaller_is_nearer):
    sign = 1 if smaller_is_nearer else -1
    ordered = sorted(triples, key=lambda triple: (triple[0], sign * triple[2], triple[1]))
    return [t for n, t in enumerate(ordered) if sum(o[0] == t[0] for o in ordered[:n]) < k]


def as_triples(found):
    return list(zip(found.query.tolist(), found.ids.tolist(), found.scores.tolist(), strict=True))


@pytest.mark.parametrize("smaller_is_nearer", [False, True])
@given(triples=TRIPLES, k=st.integers(1, 6), cut=st.integers(0, 40))
def test_best_is_what_python_sorts(smaller_is_nearer, triples, k, cut):
    expected = by_python(triples, k, smaller_is_nearer)
    parts = [candidates(triples[:cut]), candidates(triples[cut:])]
    found = best(parts, k, smaller_is_nearer=smaller_is_nearer)
    assert as_triples(found) == expected
    # Also of what is in order but for ties, as a device gives it, and of what is in order.
    sign = 1 if smaller_is_nearer else -1
    nearly = sorted(triples, key=lambda triple: (triple[0], sign * triple[2]))
    for some in (nearly, expected):
        found = best([candidates(some)], k, smaller_is_nearer=smaller_is_nearer)
        assert as_triples(found) == expected
