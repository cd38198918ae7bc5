"""The k nearest so far, against sorting everything."""

from __future__ import annotations

import threading
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.search.top_k_buffer import Neighbours

KEYS = st.sampled_from([-np.inf, -2.0, -0.5, -0.0, 0.0, 0.25, 0.5, 0.5 + 2.0**-53, 1.0])
IDS = st.text("ab", min_size=1, max_size=5)
METRIC = {True: "l2", False: "cosine"}  # smaller is nearer, or larger


def query_ids(num):
    return np.array([f"q{number}" for number in range(num)], "S")


def as_arrays(triples):
    query, keys, ids = zip(*triples, strict=True)
    return np.array(query, np.int32), np.array(keys), np.array([i.encode() for i in ids])


def add(neighbours, triples):
    if triples:
        neighbours.add(*as_arrays(triples))


def sorted_in_python(triples, num_queries, k, own_ids=None):
    """(query, id, key) of each query's k best."""
    answer = []
    for number in range(num_queries):
        ours = [(-key, name.encode()) for query, key, name in triples if query == number]
        if own_ids is not None:
            ours = [(key, name) for key, name in ours if name != own_ids[number]]
        answer += [(number, name, -key) for key, name in sorted(ours)[:k]]
    return answer


def as_triples(found, *, distances=False):
    keys = -found.scores if distances else found.scores
    return list(zip(found.query.tolist(), found.ids.tolist(), keys.tolist(), strict=True))


@st.composite
def additions(draw, num_queries=3):
    """Chunks of (query, key, id); no id comes twice for a query, as in a gallery."""
    triples = draw(
        st.lists(
            st.tuples(st.integers(0, num_queries - 1), KEYS, IDS),
            max_size=60,
            unique_by=lambda triple: (triple[0], triple[2]),
        )
    )
    cuts = sorted(draw(st.sets(st.integers(0, len(triples)), max_size=8)))
    return [triples[a:b] for a, b in zip([0, *cuts], [*cuts, len(triples)], strict=True)]


@settings(max_examples=250, deadline=None)
@given(additions(), st.integers(1, 25), st.booleans(), st.booleans())
def test_the_neighbours_are_the_first_of_everything_sorted(chunks, k, exclude_self, distances):
    own_ids = np.array([b"a", b"ab", b"aaaaaaaa"])
    neighbours = Neighbours(own_ids, k, exclude_self=exclude_self)
    for chunk in chunks:
        add(neighbours, chunk)
    expected = sorted_in_python(
        list(chain(*chunks)), 3, k, own_ids.tolist() if exclude_self else None
    )
    found = neighbours.result(METRIC[distances])
    assert as_triples(found, distances=distances) == expected
    assert not np.signbit(found.scores[found.scores == 0]).any()
    # The floor of a query with k neighbours is at most its k-th key, and equal after a result.
    for number in range(3):
        keys = [key for query, _, key in expected if query == number]
        assert neighbours.floors[number] == (keys[-1] if len(keys) == k else -np.inf)


@settings(max_examples=100, deadline=None)
@given(additions(), additions(), st.integers(1, 12))
def test_a_result_in_between_and_floors_from_elsewhere_lose_no_neighbour(first, second, k):
    chunks = first + [[(q, key, name + "b" * 6) for q, key, name in part] for part in second]
    everything = list(chain(*chunks))
    expected = sorted_in_python(everything, 3, k)
    true_floors = np.full(3, -np.inf)
    for number in range(3):
        keys = [key for query, _, key in expected if query == number]
        if len(keys) == k:
            true_floors[number] = keys[-1]
    neighbours = Neighbours(query_ids(3), k, exclude_self=False)
    floors = neighbours.floors
    for number, chunk in enumerate(chunks):
        add(neighbours, chunk)
        if number == len(first) - 1:
            neighbours.result("cosine")
            neighbours.raise_floors(true_floors)
            neighbours.raise_floors(np.full(3, -np.inf))  # an old one does no harm
            assert (floors >= true_floors).all()
    assert neighbours.floors is floors  # readers hold on to the array
    assert as_triples(neighbours.result("cosine")) == expected
    assert floors.tolist() == true_floors.tolist()


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
@pytest.mark.parametrize("k", [1, 2, 7, 100, 2999, 3000, 3001])
def test_thousands_of_ties_at_the_last_place_are_settled_by_id(order, k):
    rng = np.random.default_rng(k)
    ids = np.array(sorted(f"img{number}" for number in range(3000)), "S")
    place = {
        "ascending": np.arange(3000),
        "descending": np.arange(3000)[::-1],
        "random": rng.permutation(3000),
    }[order]
    keys = np.full(3000, 0.5)
    keys[rng.integers(3000, size=5)] = 0.75
    neighbours = Neighbours(query_ids(2), k, exclude_self=False)
    for start in range(0, 3000, 271):
        part = place[start : start + 271]
        neighbours.add(np.ones(len(part), np.int32), keys[part], ids[part])
    expected = np.lexsort((ids, -keys))[:k]
    found = neighbours.result("cosine")
    assert set(found.query.tolist()) == {1}
    assert found.ids.tolist() == ids[expected].tolist()
    assert found.scores.tolist() == keys[expected].tolist()


def test_both_zeros_tie_and_come_out_as_plus_zero():
    for distances in (False, True):
        neighbours = Neighbours(query_ids(1), 3, exclude_self=False)
        names = ["e", "b", "d", "a", "c"]
        add(neighbours, [(0, -0.0 if n % 2 else 0.0, name) for n, name in enumerate(names)])
        found = neighbours.result(METRIC[distances])
        assert found.ids.tolist() == [b"a", b"b", b"c"]
        assert found.scores.tobytes() == np.zeros(3).tobytes()


def test_ids_may_grow_longer_and_shorter_later():
    rng = np.random.default_rng(0)
    names = [c * length for length in (1, 9, 2, 40, 3, 40, 1) for c in "abcdefgh"]
    names = list(dict.fromkeys(names))
    triples = [(0, float(rng.integers(3)), name) for name in names]
    for k in (1, 5, 30, 100):
        neighbours = Neighbours(query_ids(1), k, exclude_self=False)
        for start in range(0, len(triples), 8):
            add(neighbours, triples[start : start + 8])
        assert as_triples(neighbours.result("cosine")) == sorted_in_python(triples, 1, k)


@pytest.mark.parametrize("own", [b"abc", b"ab", b"abcdefghij"])
def test_exclude_self_compares_whole_ids(own):
    names = ["abc", "ab", "abcd", "abcdefghij", "abcdefghijk", "b"]
    neighbours = Neighbours(np.array([own, b"long" * 9]), 9, exclude_self=True)
    add(neighbours, [(0, 0.5, name) for name in names])
    expected = sorted(name.encode() for name in names if name.encode() != own)
    assert neighbours.result("cosine").ids.tolist() == expected


def test_a_row_of_the_query_s_own_id_does_not_raise_its_floor():
    neighbours = Neighbours(np.array([b"me"]), 1, exclude_self=True)
    add(neighbours, [(0, 1.0, "me"), (0, 0.5, "other")])
    assert neighbours.floors.tolist() == [0.5]


def test_candidates_below_the_floor_are_dropped_and_equal_ones_are_not():
    neighbours = Neighbours(query_ids(1), 2, exclude_self=False)
    add(neighbours, [(0, 0.5, "c"), (0, 0.7, "b")])
    assert neighbours.floors.tolist() == [0.5]
    add(neighbours, [(0, np.nextafter(0.5, 0), "a"), (0, 0.5, "a0")])
    assert neighbours.result("cosine").ids.tolist() == [b"b", b"a0"]


def test_no_candidates_are_no_neighbours():
    neighbours = Neighbours(query_ids(3), 5, exclude_self=True)
    neighbours.add(np.empty(0, np.int32), np.empty(0), np.empty(0, "S3"))
    found = neighbours.result("l2")
    assert (len(found), found.query.dtype, found.scores.dtype) == (0, np.int32, np.float64)


def test_a_large_k_takes_memory_for_what_came_only():
    neighbours = Neighbours(query_ids(2), 10**9, exclude_self=False)
    triples = [(number % 2, float(number % 7), f"i{number}") for number in range(1000)]
    for start in range(0, 1000, 50):
        add(neighbours, triples[start : start + 50])
    assert as_triples(neighbours.result("cosine")) == sorted_in_python(triples, 2, 10**9)


@pytest.mark.parametrize("k", [3, 40, 10**6])
def test_threads_that_add_at_the_same_time_lose_nothing(k):
    rng = np.random.default_rng(1)
    triples = [
        (int(rng.integers(4)), float(rng.integers(20)), "i" * (n % 11) + str(n))
        for n in range(2000)
    ]
    neighbours = Neighbours(query_ids(4), k, exclude_self=False)
    chunks = [as_arrays(triples[start : start + 10]) for start in range(0, 2000, 10)]

    def work(first):
        for number in range(first, len(chunks), 4):
            neighbours.add(*chunks[number])

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert as_triples(neighbours.result("cosine")) == sorted_in_python(triples, 4, k)
