"""The CPU engine against scoring every pair: the same ids and the same score bits."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval.search import METRICS, best, is_distance, top_k
from retrieval.search import cpu_engine as cpu
from retrieval.search import prefilter as passes
from retrieval.search.bounds import principal_directions
from retrieval.search.cpu_engine import CpuSearch
from retrieval.search.merge import Candidates
from retrieval.search.scores import Rows, pair_scores
from retrieval.search.top_k import scan
from retrieval.vectors import VectorBlock

DTYPES = ("float16", "float32", "float64")


def brute_force(queries, gallery, k, metric, *, exclude_self=False):
    """All pairs scored, then the best of them by the definition in `candidates`."""
    rows, numbers = np.divmod(np.arange(len(gallery.ids) * len(queries.ids)), len(queries.ids))
    with np.errstate(over="ignore"):
        scores = pair_scores(
            metric,
            Rows.prepare(queries.vectors).take(numbers),
            Rows.prepare(gallery.vectors).take(rows),
        )
    every = Candidates(numbers.astype(np.int32), gallery.ids[rows], scores)
    if exclude_self:
        others = queries.ids[numbers] != gallery.ids[rows]
        every = Candidates(every.query[others], every.ids[others], every.scores[others])
    return best([every], k, smaller_is_nearer=is_distance(metric))


def assert_same(found, expected):
    assert found.query.tolist() == expected.query.tolist()
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.scores.tobytes() == expected.scores.tobytes()


def block_of(vectors, prefix="g"):
    # Ids in an order of their own, of different lengths.
    order = np.random.default_rng(7).permutation(len(vectors))
    return VectorBlock(np.array([f"{prefix}{n * n}" for n in order], "S"), vectors)


def cut(gallery, edges):
    edges = [0, *sorted(edges), len(gallery.ids)]
    return [
        VectorBlock(gallery.ids[a:b], gallery.vectors[a:b]) for a, b in itertools.pairwise(edges)
    ]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def orthonormal(rng, num_dims, depth):
    return np.linalg.qr(rng.normal(size=(num_dims, depth)))[0].astype(np.float32)


def check(queries, gallery, k, metric, *, bases=(None,), edges=(), **options):
    expected = brute_force(queries, gallery, k, metric, **options)
    for basis in bases:
        search = CpuSearch(queries, k, metric, basis=basis, **options)
        for part in cut(gallery, edges):
            search.add(part)
        assert_same(search.result(), expected)
        assert search.num_pairs == len(queries.ids) * len(gallery.ids)
        assert len(expected) <= search.num_survivors + len(queries.ids) * options.get(
            "exclude_self", False
        )
        assert search.num_survivors <= search.num_pairs


@pytest.fixture
def small_tiles(monkeypatch):
    shrink(monkeypatch, (64, 16, 3, 200))


def shrink(monkeypatch, sizes):
    """Tiles of few pairs, parts of few rows: floors rise between them as in a large gallery."""
    pairs, first_pairs, tile_queries, rough_bytes = sizes
    monkeypatch.setattr(passes, "_TILE_PAIRS", pairs)
    monkeypatch.setattr(passes, "_DEEP_TILE_PAIRS", max(2 * pairs, 64))  # the room's size too
    monkeypatch.setattr(passes, "_FIRST_PAIRS", first_pairs)
    monkeypatch.setattr(passes, "_TILE_QUERIES", tile_queries)
    monkeypatch.setattr(cpu, "_ROUGH_BYTES", rough_bytes)
    monkeypatch.setattr(cpu, "_DEEP_ROUGH_BYTES", 4 * rough_bytes)


# --- any gallery, cut and read in any way


@dataclass
class Case:
    queries: VectorBlock
    gallery: VectorBlock
    basis: np.ndarray | None
    seed: int


@st.composite
def cases(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    num_dims = draw(st.sampled_from([1, 2, 5, 33, 150]))
    num_queries, num_rows = draw(st.integers(1, 8)), draw(st.integers(1, 90))
    shape = num_queries + num_rows, num_dims
    kind = draw(st.sampled_from(["isotropic", "concentrated", "signs", "copies", "mixed norms"]))
    rows = rng.normal(size=shape)
    if kind == "concentrated":
        rows = rng.normal(size=num_dims) + 10.0 ** -rng.integers(1, 6) * rows
    elif kind == "signs":
        rows = np.sign(rows)
    elif kind == "copies":
        rows = rows[rng.integers(1 + shape[0] // 8, size=shape[0])]
    rows = unit(rows)
    if kind == "mixed norms":
        rows *= 2.0 ** rng.integers(-5, 6, (shape[0], 1))
    ours, theirs = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(DTYPES))
    gallery = block_of(rows[num_queries:].astype(theirs))
    own = rng.permutation(np.append(gallery.ids[: num_queries // 2], [b"q1", b"q22", b"other"] * 3))
    queries = VectorBlock(own[:num_queries], rows[:num_queries].astype(ours))
    basis = {
        "none": lambda: None,
        "random": lambda: orthonormal(rng, num_dims, 1 + seed % num_dims),
        "principal": lambda: principal_directions(
            rows[:num_queries].astype(np.float32), 1 + seed % num_dims
        ),
        "no basis at all": lambda: rng.normal(size=(num_dims, 1 + seed % 7)).astype(np.float32),
    }[draw(st.sampled_from(["none", "random", "principal", "no basis at all"]))]()
    return Case(queries, gallery, basis, seed)


SIZES = st.tuples(
    st.integers(1, 300), st.integers(1, 60), st.integers(1, 9), st.integers(1, 20_000)
)


@settings(max_examples=250, deadline=None)
@given(
    cases(),
    st.sampled_from(METRICS),
    st.sampled_from([1, 2, 5, 20, 89, 90, 91, 1000]),
    st.booleans(),
    SIZES,
    st.integers(0, 3),
)
def test_any_basis_cut_order_and_threads_give_what_scoring_every_pair_gives(
    case, metric, k, exclude_self, sizes, num_threads
):
    rng = np.random.default_rng(case.seed)
    expected = brute_force(case.queries, case.gallery, k, metric, exclude_self=exclude_self)
    order = rng.permutation(len(case.gallery.ids))
    shuffled = VectorBlock(case.gallery.ids[order], case.gallery.vectors[order])
    parts = cut(shuffled, rng.integers(len(order) + 1, size=rng.integers(6)))
    with pytest.MonkeyPatch.context() as patched:
        shrink(patched, sizes)
        search = CpuSearch(case.queries, k, metric, exclude_self=exclude_self, basis=case.basis)
        if num_threads:
            scan(search, [iter(parts[::2]), iter(parts[1::2])], num_threads)
        else:
            for part in parts:
                search.add(part)
    assert_same(search.result(), expected)
    assert search.num_pairs == len(case.queries.ids) * len(order)


@settings(max_examples=40, deadline=None)
@given(cases(), st.sampled_from([1, 4, 1000]), SIZES)
def test_minkowski_is_ranked_to_its_relative_error(case, k, sizes):
    num_dims = case.gallery.vectors.shape[1]
    expected = brute_force(case.queries, case.gallery, k, "minkowski:3")
    with pytest.MonkeyPatch.context() as patched:
        shrink(patched, sizes)
        search = CpuSearch(case.queries, k, "minkowski:3", basis=case.basis)
        scan(
            search,
            [iter(cut(case.gallery, [5]))] if len(case.gallery.ids) > 5 else [iter([case.gallery])],
            2,
        )
    found = search.result()
    assert found.query.tolist() == expected.query.tolist()
    tolerance = num_dims * 2.0**-49 * expected.scores  # each is right to half of that
    assert (np.abs(found.scores - expected.scores) <= tolerance).all()
    assert search.num_survivors == search.num_pairs


# --- galleries that are made to fail


def bases_for(rng, rows):
    num_dims = rows.shape[1]
    depth = max(1, num_dims // 4)
    leading = principal_directions(unit(rows.astype(np.float64)).astype(np.float32), depth)
    return None, leading, orthonormal(rng, num_dims, depth)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_are_all_equal_are_ranked_by_id(small_tiles, metric, dtype):
    rng = np.random.default_rng(0)
    row = unit(rng.normal(size=(1, 24))).astype(dtype)
    gallery = block_of(np.repeat(row, 300, axis=0))
    queries = block_of(np.concatenate([row, unit(rng.normal(size=(4, 24))).astype(dtype)]), "q")
    for k in (1, 7, 299, 300, 301):
        check(queries, gallery, k, metric, bases=bases_for(rng, gallery.vectors), edges=[99])


@pytest.mark.parametrize("metric", METRICS)
def test_thousands_of_ties_at_the_last_place(metric):
    rng = np.random.default_rng(1)
    row, near = unit(rng.normal(size=(2, 16))).astype(np.float16)
    for order in ("ascending", "descending"):
        ids = np.array(sorted(f"i{n}" for n in range(5000)), "S")
        ids = ids if order == "ascending" else ids[::-1]
        vectors = np.repeat(row[None], 5000, axis=0)
        vectors[2222] = near
        queries = VectorBlock(np.array([b"q"]), near[None])
        gallery = VectorBlock(ids, vectors)
        for k in (1, 2, 50, 4999):
            check(queries, gallery, k, metric, bases=bases_for(rng, vectors), edges=[1, 2000])


@pytest.mark.parametrize("metric", METRICS)
def test_near_duplicates_one_float16_step_apart(small_tiles, metric):
    rng = np.random.default_rng(2)
    row = unit(rng.normal(size=(1, 64))).astype(np.float16)
    gallery = np.repeat(row, 400, axis=0)
    place = np.arange(400), rng.integers(64, size=400)
    gallery[place] = np.nextafter(gallery[place], rng.choice([-2, 2], 400).astype(np.float16))
    queries = block_of(gallery[:5], "q")
    for k in (1, 10, 350):
        check(queries, block_of(gallery), k, metric, bases=bases_for(rng, gallery), edges=[7, 210])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_gallery_sorted_by_class(small_tiles, metric, dtype):
    # The best come last, or first: floors are low for long, or high from the start.
    rng = np.random.default_rng(3)
    centres = unit(rng.normal(size=(6, 40)))
    rows = unit(np.repeat(centres, 60, axis=0) + 0.02 * rng.normal(size=(360, 40)))
    queries = block_of(unit(centres[[0, 5]] + 0.02 * rng.normal(size=(2, 40))).astype(dtype), "q")
    gallery = block_of(rows.astype(dtype))
    check(queries, gallery, 65, metric, bases=bases_for(rng, rows), edges=range(50, 360, 50))


@pytest.mark.parametrize("metric", METRICS)
def test_subnormal_components(small_tiles, metric):
    rng = np.random.default_rng(4)
    rows = unit(rng.normal(size=(200, 20)))
    half = (rows * 2.0**-15).astype(np.float16)  # a handful of bits each
    peaked = rows * 2.0**-14
    peaked[:, 0] = 1
    tiny = np.where(np.arange(20) < 5, rows, rows * 1e-42)  # subnormal in float32 beside normal
    for vectors in (half, peaked.astype(np.float16), tiny.astype(np.float32), tiny):
        check(
            block_of(vectors[:6], "q"),
            block_of(vectors[6:]),
            9,
            metric,
            bases=bases_for(rng, vectors),
            edges=[60],
        )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_single_dimension(small_tiles, metric, dtype):
    rng = np.random.default_rng(5)
    rows = rng.choice([-2.0, -1, -0.3, 0.3, 1, 1.5], (60, 1)).astype(dtype)
    bases = None, np.ones((1, 1), np.float32), np.full((1, 1), 0.5, np.float32)
    check(block_of(rows[:5], "q"), block_of(rows[5:]), 7, metric, bases=bases, edges=[20])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scale", [1e-200, 1e-20, 1e20, 1e200])
def test_blocks_that_float32_cannot_hold_among_others_that_it_can(small_tiles, metric, scale):
    rng = np.random.default_rng(6)
    rows = rng.normal(size=(120, 12))
    wild = rows.copy()
    wild[40:80] *= scale
    wild[80:, :] *= np.where(rng.random((40, 1)) < 0.1, scale, 1)
    queries = block_of(rng.normal(size=(5, 12)), "q")
    for order in (slice(None), slice(None, None, -1)):
        gallery = block_of(wild[order])
        for k in (3, 100):
            check(queries, gallery, k, metric, bases=bases_for(rng, rows), edges=[40, 80])


@pytest.mark.parametrize("metric", METRICS)
def test_queries_that_float32_cannot_hold_take_every_pair(metric):
    rng = np.random.default_rng(7)
    queries = rng.normal(size=(4, 12))
    queries[2] *= 1e100
    gallery = block_of(rng.normal(size=(50, 12)))
    check(block_of(queries, "q"), gallery, 6, metric, bases=(None, orthonormal(rng, 12, 3)))
    assert CpuSearch(block_of(queries, "q"), 6, metric).method == "every pair"


@pytest.mark.parametrize("metric", METRICS)
def test_more_queries_than_a_tile_holds(metric):
    rng = np.random.default_rng(8)
    rows = unit(rng.normal(size=(2100, 8)) * 0.7 ** np.arange(8)).astype(np.float16)
    queries, gallery = block_of(rows[:2050], "q"), block_of(rows[2050:])
    check(queries, gallery, 3, metric, bases=bases_for(rng, rows), edges=[13])


@pytest.mark.parametrize("metric", METRICS)
def test_more_queries_than_a_tile_has_room_for_pairs(monkeypatch, metric):
    shrink(monkeypatch, (32, 16, 10, 400))  # the room holds 64 pairs, a row has 150
    rng = np.random.default_rng(17)
    rows = unit(rng.normal(size=(230, 8))).astype(np.float16)
    queries, gallery = block_of(rows[:150], "q"), block_of(rows[150:])
    for k in (3, 70, 100):
        check(queries, gallery, k, metric, bases=bases_for(rng, rows), edges=[13])


@pytest.mark.parametrize("metric", METRICS)
def test_exclude_self_for_queries_out_of_the_gallery(small_tiles, metric):
    rng = np.random.default_rng(9)
    vectors = unit(rng.normal(size=(150, 16))).astype(np.float16)
    gallery = VectorBlock(np.array([f"{n // 3}" for n in range(150)], "S"), vectors)
    queries = VectorBlock(gallery.ids[:30:5], vectors[:30:5])
    for k in (1, 10, 147, 150):
        check(
            queries,
            gallery,
            k,
            metric,
            bases=bases_for(rng, vectors),
            edges=[31],
            exclude_self=True,
        )


@pytest.mark.parametrize("metric", METRICS)
def test_floors_from_elsewhere_leave_the_result_as_it_is(small_tiles, metric):
    rng = np.random.default_rng(10)
    rows = unit(rng.normal(size=(200, 16)))
    rows[100:] = rows[:100]  # ties at every place
    queries, gallery = block_of(rows[:3], "q"), block_of(rows)
    expected = brute_force(queries, gallery, 9, metric)
    sign = -1 if is_distance(metric) else 1
    for basis in bases_for(rng, rows):
        search = CpuSearch(queries, 9, metric, basis=basis)
        search.raise_floors(sign * expected.scores.reshape(3, 9)[:, -1])
        search.add(gallery)
        assert_same(search.result(), expected)
        assert search.num_survivors < search.num_pairs / 2


# --- what it is for: few pairs are left


def of_low_rank(rng, num_rows):
    turn = np.linalg.qr(rng.normal(size=(64, 64)))[0][:6]
    return unit(rng.normal(size=(num_rows, 6)) @ turn + 1e-3 * rng.normal(size=(num_rows, 64)))


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2"])
def test_a_short_product_leaves_few_pairs_where_few_directions_hold_all(monkeypatch, metric):
    shrink(monkeypatch, (512, 64, 1024, 2**16))
    rng = np.random.default_rng(11)
    rows = of_low_rank(rng, 3000).astype(np.float16)
    queries, gallery = block_of(rows[:8], "q"), block_of(rows[8:])
    basis = principal_directions(rows.astype(np.float32), 8)
    search = CpuSearch(queries, 5, metric, basis=basis)
    search.add(gallery)
    assert search.method == "product over 9"
    assert_same(search.result(), brute_force(queries, gallery, 5, metric))
    assert search.num_survivors < search.num_pairs / 20


@pytest.mark.parametrize("metric", METRICS)
def test_the_whole_first_pass_leaves_few_pairs(monkeypatch, metric):
    shrink(monkeypatch, (512, 64, 1024, 2**16))
    rng = np.random.default_rng(12)
    rows = unit(rng.normal(size=(3000, 30))).astype(np.float32)
    search = CpuSearch(block_of(rows[:8], "q"), 5, metric)
    search.add(block_of(rows[8:]))
    assert search.method == ("sums of differences" if metric == "l1" else "product over 30")
    assert search.num_survivors < search.num_pairs / 20


@pytest.mark.parametrize("metric", [*METRICS, "minkowski:3"])
def test_survivors_are_the_pairs_that_are_scored(monkeypatch, small_tiles, metric):
    rng = np.random.default_rng(13)
    rows = of_low_rank(rng, 300)
    search = CpuSearch(block_of(rows[:5], "q"), 5, metric, basis=orthonormal(rng, 64, 8))
    scored, keys = [], search._exact.keys

    def counted(gallery, pairs, floors):
        scored.append(len(pairs[0]))
        return keys(gallery, pairs, floors)

    monkeypatch.setattr(search._exact, "keys", counted)
    scan(search, [iter(cut(block_of(rows[5:]), [3, 100, 250]))], 3)
    assert (search.num_survivors, search.num_pairs) == (sum(scored), 5 * 295)
    certificate = search.certificate()
    assert (certificate["scored"], certificate["pairs"]) == (sum(scored), 5 * 295)
    assert certificate["bound"] == search.method
    assert certificate["slack"] >= 0


def test_an_empty_block_and_no_block_are_no_neighbours():
    rows = np.ones((3, 4), np.float16)
    search = CpuSearch(block_of(rows, "q"), 2, "cosine")
    search.add(VectorBlock(np.empty(0, "S1"), rows[:0]))
    assert len(search.result()) == search.num_pairs == 0
    assert len(top_k(block_of(rows, "q"), [], 2, "l1")) == 0


def test_read_only_and_strided_vectors_are_taken_as_they_are(small_tiles):
    rng = np.random.default_rng(14)
    for dtype in DTYPES:
        rows = unit(rng.normal(size=(80, 24))).astype(dtype)
        rows.setflags(write=False)
        for view in (rows, rows[::2, ::2]):
            check(block_of(view[:4], "q"), block_of(view[4:]), 6, "l2", bases=bases_for(rng, view))


# --- threads and errors


def endless(vectors):
    yield from itertools.repeat(VectorBlock(np.array([b"a", b"b"]), vectors))


@pytest.mark.parametrize("num_threads", [1, 3])
def test_an_error_of_a_reader_reaches_the_caller_and_ends_all_threads(num_threads):
    rows = np.ones((2, 4), np.float32)
    is_closed = []

    def failing():
        yield from itertools.islice(endless(rows), 5)
        raise OSError("the disk has gone")

    def other():
        try:
            yield from endless(rows)
        finally:
            is_closed.append(True)

    before = set(threading.enumerate())
    search = CpuSearch(block_of(rows, "q"), 2, "cosine")
    readers = [failing()] if num_threads == 1 else [failing(), other()]
    next(readers[-1])  # closing tells nothing to a generator that has not started
    with pytest.raises(OSError, match="the disk has gone"):
        scan(search, readers, num_threads)
    assert set(threading.enumerate()) <= before
    assert len(is_closed) == len(readers) - 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_an_error_in_a_block_and_ctrl_c_reach_the_caller_and_end_all_threads(error, num_threads):
    rows = np.ones((2, 4), np.float32)
    search = CpuSearch(block_of(rows, "q"), 2, "cosine")
    count = itertools.count()

    class Failing:
        def add(self, block):
            if next(count) == 20:
                raise error("here")
            search.add(block)

    before = set(threading.enumerate())
    reader = endless(rows)
    with pytest.raises(error, match="here"):
        scan(Failing(), [reader], num_threads)
    assert set(threading.enumerate()) <= before
    assert next(reader, None) is None  # closed


def test_every_reader_is_read_to_its_end_whatever_the_number_of_threads():
    rng = np.random.default_rng(15)
    rows = unit(rng.normal(size=(90, 8))).astype(np.float16)
    queries, gallery = block_of(rows[:3], "q"), block_of(rows[3:])
    expected = brute_force(queries, gallery, 20, "cosine")
    parts = cut(gallery, range(1, 87, 2))
    for num_threads in (1, 2, 5):
        for num_readers in (1, 2, 7):
            search = CpuSearch(queries, 20, "cosine")
            scan(search, [iter(parts[n::num_readers]) for n in range(num_readers)], num_threads)
            assert_same(search.result(), expected)
            assert search.num_pairs == 3 * 87


@pytest.mark.parametrize("metric", METRICS)
def test_top_k_takes_any_iterable(metric):
    rng = np.random.default_rng(16)
    rows = unit(rng.normal(size=(70, 10))).astype(np.float32)
    queries, gallery = block_of(rows[:4], "q"), block_of(rows)
    expected = brute_force(queries, gallery, 5, metric)
    parts = cut(gallery, [20, 40])
    for blocks in (parts, iter(parts), (part for part in parts)):
        assert_same(top_k(queries, blocks, 5, metric, num_threads=2), expected)
