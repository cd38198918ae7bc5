"""What the k nearest are guessed to reach: nearly always right, and never far too low."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.search import guess_floors
from retrieval.search.cpu_engine import CpuSearch
from retrieval.search.initial_thresholds import _place
from retrieval.vectors import Sample, VectorBlock

PRODUCTS = ("cosine", "ip", "l2")


def gallery_and_queries(seed, *, num_rows=40_000, num_dims=12, num_queries=300):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num_rows + num_queries, num_dims))
    rows *= rng.uniform(0.5, 2, (len(rows), 1))
    return rows[:num_rows].astype(np.float32), rows[num_rows:].astype(np.float32)


def keys_of(queries, gallery, metric):
    queries, gallery = queries.astype(np.float64), gallery.astype(np.float64)
    if metric == "l2":
        return -np.sqrt(((queries[:, None] - gallery) ** 2).sum(axis=2))
    keys = queries @ gallery.T
    if metric == "cosine":
        lengths = [np.linalg.norm(side, axis=1) for side in (queries, gallery)]
        keys /= np.outer(*lengths)
    return keys


def poisson_tail(mean, place):
    """P(X ≥ place), added up."""
    term, below = np.exp(-mean), 0.0
    for number in range(place):
        below += term
        term *= mean / (number + 1)
    return 1 - below


@pytest.mark.parametrize("mean", [0.01, 0.3, 1.0, 7.5, 33.0, 200.0])
def test_the_place_is_the_first_that_chance_hardly_reaches(mean):
    place = _place(mean)
    assert poisson_tail(mean, place) <= 1e-5
    step = max(1, int(mean // 64))
    assert poisson_tail(mean, place - step) > 1e-5


@pytest.mark.parametrize("metric", PRODUCTS)
def test_a_guess_is_a_key_of_the_sample_of_the_place_that_is_meant(metric):
    gallery, queries = gallery_and_queries(0, num_queries=7)
    sample = gallery[::20]
    guessed = guess_floors(Sample(sample, 1 / 20), queries, 60, metric, num_gallery=len(gallery))
    place = _place(60 / 20)
    expected = np.sort(keys_of(queries, sample, metric))[:, -place]
    assert (guessed < expected).all()  # by the margin for rounding
    assert guessed == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("metric", PRODUCTS)
@pytest.mark.parametrize("k", [1, 10, 300])
def test_k_rows_reach_nearly_every_guess_and_not_many_more(metric, k):
    gallery, queries = gallery_and_queries(k)
    guessed = guess_floors(
        Sample(gallery[::20], 1 / 20), queries, k, metric, num_gallery=len(gallery)
    )
    slices = [queries[start : start + 20] for start in range(0, len(queries), 20)]
    keys = np.concatenate([keys_of(part, gallery, metric) for part in slices])
    counts = (keys >= guessed[:, None]).sum(axis=1)
    assert (counts >= k).all()
    assert np.median(counts) < 100 + 5 * k


def test_near_copies_reach_their_guess_too():
    rng = np.random.default_rng(3)
    rows = np.ones((20_000, 64)) + 1e-7 * rng.normal(size=(20_000, 64))
    gallery, queries = rows.astype(np.float32), rows[:50].astype(np.float32)
    for metric in PRODUCTS:
        guessed = guess_floors(Sample(gallery[::20], 1 / 20), queries, 10, metric,
                               num_gallery=len(gallery))  # fmt: skip
        keys = np.concatenate([keys_of(query, gallery, metric) for query in queries[:, None]])
        assert ((keys >= guessed[:, None]).sum(axis=1) >= 10).all(), metric


def test_rows_that_stand_together_do_not_mislead():
    # The ten thousand rows that are near stand where the sample was taken, one in sixteen.
    rng = np.random.default_rng(4)
    near = rng.normal(size=(10_000, 8)) + 10
    far = rng.normal(size=(150_000, 8)) - 10
    gallery = np.concatenate([near, far]).astype(np.float32)
    queries = (rng.normal(size=(40, 8)) + 10).astype(np.float32)
    sample = np.concatenate([gallery[:10_000:16], gallery[-50_000::160]])
    guessed = guess_floors(Sample(sample, 1 / 16), queries, 100, "l2", num_gallery=len(gallery))
    keys = np.concatenate([keys_of(query, gallery, "l2") for query in queries[:, None]])
    assert ((keys >= guessed[:, None]).sum(axis=1) >= 100).all()


def test_a_query_that_finds_itself_in_the_sample_counts_one_row_more():
    gallery, _ = gallery_and_queries(5, num_dims=64)
    queries = gallery[:400:20]
    for exclude_self in (False, True):
        guessed = guess_floors(
            Sample(gallery[::20], 1 / 20), queries, 1, "ip",
            num_gallery=len(gallery), exclude_self=exclude_self,
        )  # fmt: skip
        keys = np.sort(keys_of(queries, gallery[::20], "ip"))
        assert guessed == pytest.approx(keys[:, -_place(1 / 20) - exclude_self], rel=1e-3)


@pytest.mark.parametrize(
    ("metric", "k", "num_gallery", "scale"),
    [("l1", 10, 40_000, 1), ("minkowski:3", 10, 40_000, 1), ("ip", 20_000, 40_000, 1),
     ("ip", 10, 31_999, 1), ("cosine", 10, 40_000, 1e-20)],
    ids=["l1", "minkowski", "half of the rows", "a small gallery", "norms beyond float32"],
)  # fmt: skip
def test_no_guess_is_made_where_none_is_of_use(metric, k, num_gallery, scale):
    gallery, queries = gallery_and_queries(6, num_queries=5)
    sample = Sample((gallery[::20] * scale).astype(np.float32), 1 / 20)
    guessed = guess_floors(sample, queries, k, metric, num_gallery=num_gallery)
    assert np.isneginf(guessed).all()


def test_threads_and_stored_types_do_not_matter():
    gallery, queries = gallery_and_queries(7)
    halves = gallery[::20].astype(np.float16), queries.astype(np.float16)
    options = {"num_gallery": len(gallery)}
    alone = guess_floors(Sample(halves[0], 1 / 20), halves[1], 10, "cosine", **options)
    for dtype in (np.float16, np.float32, np.float64):
        sample = Sample(halves[0].astype(dtype), 1 / 20)
        found = guess_floors(sample, halves[1].astype(dtype), 10, "cosine", **options,
                             num_threads=3)  # fmt: skip
        assert found == pytest.approx(alone, abs=1e-6)


def test_a_search_with_guesses_finds_what_one_without_finds():
    gallery, queries = gallery_and_queries(8, num_queries=40)
    ids = np.char.add(b"g", np.arange(len(gallery)).astype("S6"))
    block, asked = VectorBlock(ids, gallery), VectorBlock(ids[:40], queries)
    plain, guided = (CpuSearch(asked, 10, "cosine") for _ in range(2))
    sample = Sample(gallery[::20], 1 / 20)
    guided.raise_floors(guess_floors(sample, queries, 10, "cosine", num_gallery=len(gallery)))
    for search in (plain, guided):
        search.add(block)
    expected, found = plain.result(), guided.result()
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.scores.tobytes() == expected.scores.tobytes()
    assert guided.num_survivors < plain.num_survivors / 2
