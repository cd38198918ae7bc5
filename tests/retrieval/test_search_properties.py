"""Exact top-k for inputs that nobody thought of."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retrieval.search import METRICS, top_k
from retrieval.vectors import VectorBlock
from tests.retrieval.test_search import as_lists, bits, split

# float16 values that sum and tie in awkward ways: subnormals, neighbours, both zeros.
VALUES = st.sampled_from([0.0, -0.0, 0.5, -0.5, 0.49976, 2.0**-24, -(2.0**-24), 1.0, 0.33325, -1.0])


@st.composite
def galleries(draw):
    """Queries, a gallery whose ids may repeat in their first letters, and where to cut it."""
    num_rows, dim = draw(st.integers(1, 30)), draw(st.integers(1, 6))
    rows = draw(hnp.arrays(np.float64, (num_rows + 2, dim), elements=VALUES))
    rows[~rows.any(axis=1)] = 0.5
    dtype = draw(st.sampled_from([np.float16, np.float32]))
    ids = draw(
        st.lists(st.text("ab", min_size=1), min_size=num_rows, max_size=num_rows, unique=True)
    )
    gallery = VectorBlock(np.array(ids, dtype="S"), rows[2:].astype(dtype))
    queries = VectorBlock(np.array([b"q0", b"q1"]), rows[:2].astype(dtype))
    cuts = sorted(draw(st.sets(st.integers(1, max(1, num_rows - 1)), max_size=5)))
    return queries, gallery, [cut for cut in cuts if cut < num_rows]


@settings(max_examples=150, deadline=None)
@given(galleries(), st.integers(1, 12), st.sampled_from(METRICS), st.randoms())
def test_cutting_and_shuffling_the_gallery_changes_nothing(sides, k, metric, random):
    queries, gallery, cuts = sides
    whole = bits(as_lists(top_k(queries, [gallery], k, metric), 2))
    order = list(range(len(gallery.ids)))
    random.shuffle(order)
    shuffled = VectorBlock(gallery.ids[order], gallery.vectors[order])
    assert bits(as_lists(top_k(queries, split(shuffled, cuts), k, metric), 2)) == whole
    for row in whole:
        keys = [np.frombuffer(score)[0] for _, score in row]
        assert keys == sorted(keys, reverse=metric in ("cosine", "ip"))
        assert len(row) == min(k, len(gallery.ids))
