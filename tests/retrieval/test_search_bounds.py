"""The bounds of a first pass: a pair that reaches its floor is never left out."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from retrieval.search import bounds as module
from retrieval.search.bounds import Bounds, principal_directions
from retrieval.search.gallery_block import is_tame, prepare
from retrieval.search.scores import Rows, is_distance, pair_scores

METRICS = ("cosine", "ip", "l2")
DTYPES = ("float16", "float32", "float64")


def buffer_for(vectors):
    return np.full(vectors.shape, np.nan, np.float32)


def keys_of(metric, queries, gallery):
    scores = pair_scores(metric, Rows.prepare(queries), Rows.prepare(gallery))
    return -scores if is_distance(metric) else scores


def matrix_product(rows, columns):
    return np.diag(rows @ columns)


def one_after_the_other(rows, columns):
    """The product of row i with column i in the order of the components, each sum rounded."""
    return np.cumsum(rows * columns.T, axis=1, dtype=np.float32)[:, -1]


def reach(metric, queries, gallery, basis, *, product=matrix_product, slack=None):
    """Whether each pair (query i, row i) passes, when its floor is its very own key."""
    bounds = Bounds(metric, Rows.prepare(queries), basis)
    if slack is not None:
        bounds.slack = slack
    block = prepare(gallery, buffer_for(gallery))
    assert block.is_tame
    weights, offsets = bounds.row_terms(block)
    limits = bounds.limits(keys_of(metric, queries, gallery))
    assert limits.dtype == weights.dtype == offsets.dtype == np.float32
    found = product(bounds.gallery_operand(block), bounds.operand)
    assert found.dtype == np.float32
    return found >= limits * weights + offsets


# --- half and gallery_block


def test_every_finite_float16_is_widened_as_numpy_does():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    assert len(finite) == 2 * 31 * 1024
    vectors = finite.reshape(-1, 31)  # the compiled loop has full vectors and a remainder
    block = prepare(vectors, buffer_for(vectors))
    assert block.rough.tobytes() == vectors.astype(np.float32).tobytes()  # both zeros too
    assert block.exact is block.rough


@pytest.mark.parametrize("num_dims", [1, 3, 8, 67])
@pytest.mark.parametrize("dtype", DTYPES)
def test_squares_equal_plain_loops(num_dims, dtype):
    rng = np.random.default_rng(num_dims)
    rows = rng.normal(size=(20, num_dims))
    rows *= 1.4 / np.linalg.norm(rows, axis=1, keepdims=True)  # below 2√2: no rounding in float16
    rows = rows.astype(dtype)
    block = prepare(rows, buffer_for(rows))
    for row, square in zip(rows, block.squares, strict=True):
        exact = sum(Fraction(float(value)) ** 2 for value in row)
        if dtype == "float16":
            assert Fraction(square) == exact
        assert abs(Fraction(square) - exact) <= exact / 2**40


def test_a_block_tells_its_kind_and_keeps_what_is_stored():
    rows = np.full((3, 2), 1 / 3)
    for dtype in DTYPES:
        vectors = rows.astype(dtype)
        vectors.setflags(write=False)  # as Arrow's buffers are
        buffer = np.zeros((5, 2), np.float32)
        block = prepare(vectors, buffer)
        assert block.is_half == (dtype == "float16")
        assert block.exact.astype(np.float64).tobytes() == vectors.astype(np.float64).tobytes()
        assert block.rough.tobytes() == vectors.astype(np.float32).tobytes()
        assert np.shares_memory(block.rough, buffer) == (dtype != "float32")


def test_float64_is_rounded_to_the_nearest_float32():
    vectors = np.array([[1 + 2.0**-25, 1 + 2.0**-24 + 2.0**-40, -1 - 2.0**-23, 1e-40]])
    block = prepare(vectors, buffer_for(vectors))
    expected = np.array([[1, 1 + 2.0**-23, -1 - 2.0**-23, 1e-40]], np.float32)
    assert block.rough.tobytes() == expected.tobytes()
    assert block.exact is vectors


@pytest.mark.parametrize(
    ("square", "tame"),
    [(2.0**-60, False), (2.0**-59, True), (2.0**59, True), (2.0**60, False), (np.inf, False)],
)
def test_norms_that_float32_cannot_hold_are_not_tame(square, tame):
    assert is_tame(np.array([1.0, square])) is tame
    assert is_tame(np.array([square, 1.0])) is tame


@pytest.mark.parametrize("value", [1e300, 1e-300, 5e-324, 1e-25])
def test_values_beyond_float32_make_a_block_that_is_not_tame_without_a_warning(value):
    vectors = np.array([[1.0, 0.0], [value, value]])
    assert not prepare(vectors, buffer_for(vectors)).is_tame


# --- the inequality


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def isotropic(rng, shape):
    return unit(rng.normal(size=shape)), unit(rng.normal(size=shape))


def concentrated(rng, shape):
    mean, size = unit(rng.normal(size=(1, shape[1]))), 10.0 ** rng.integers(-7, 0, (shape[0], 1))
    return (unit(mean + size * unit(rng.normal(size=shape))) for _ in range(2))


def identical(rng, shape):
    rows = unit(rng.normal(size=shape))
    return rows, rows


def one_step_apart(rng, shape):
    rows = unit(rng.normal(size=shape)).astype(np.float16)
    up = np.where(rng.random(shape) < 0.1, np.inf, rows).astype(np.float16)
    return rows.astype(np.float64), np.nextafter(rows, up).astype(np.float64)


def of_many_norms(rng, shape):
    queries, gallery = concentrated(rng, shape)
    sizes = 2.0 ** rng.integers(-13, 14, (2, shape[0], 1))
    return queries * sizes[0], gallery * sizes[1]


def subnormal(rng, shape):
    # Below 2⁻¹⁴ float16 has fewer bits, down to one.
    queries, gallery = concentrated(rng, shape)
    return queries * 2.0**-13, gallery * 2.0 ** -rng.integers(12, 16, (shape[0], 1))


def with_a_peak(rng, shape):
    queries, gallery = isotropic(rng, shape)
    place = np.arange(shape[0]), rng.integers(shape[1], size=shape[0])
    queries[place], gallery[place] = 50, 50
    return unit(queries), unit(gallery)


def opposite(rng, shape):
    queries, gallery = concentrated(rng, shape)
    return queries, -gallery


KINDS = (
    isotropic,
    concentrated,
    identical,
    one_step_apart,
    of_many_norms,
    subnormal,
    with_a_peak,
    opposite,
)


def bases(rng, rows):
    num_dims = rows.shape[1]
    rows = unit(rows).astype(np.float32)
    random = np.linalg.qr(rng.normal(size=(num_dims, 16)))[0]
    skewed = rng.normal(size=(num_dims, 5)) * 10.0 ** rng.integers(-3, 2, 5)
    skewed[:, 3] = skewed[:, 2]
    return {
        "none": None,
        "one direction": principal_directions(rows, 1),
        "eight directions": principal_directions(rows, 8),
        "all directions": principal_directions(rows, num_dims),
        "random": random.astype(np.float32),
        "a little off": (random + 1e-4 * rng.normal(size=random.shape)).astype(np.float32),
        "not orthonormal": skewed.astype(np.float32),
        "coordinates": np.eye(num_dims, 7, dtype=np.float32),
    }


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_pair_that_reaches_its_floor_always_passes(kind, dtype, metric):
    for num_dims in (20, 300):
        rng = np.random.default_rng(num_dims)
        queries, gallery = (side.astype(dtype) for side in kind(rng, (64, num_dims)))
        for name, basis in bases(rng, gallery.astype(np.float64)).items():
            for product in (matrix_product, one_after_the_other):
                passes = reach(metric, queries, gallery, basis, product=product)
                assert passes.all(), (num_dims, name, product.__name__)


@pytest.mark.parametrize("metric", METRICS)
def test_norms_at_the_ends_of_what_is_tame_pass(metric):
    rng = np.random.default_rng(5)
    rows = unit(rng.normal(size=(64, 40)))
    for ours in (2.0**-29.9, 1.0, 2.0**29.9):
        for theirs in (2.0**-29.9, 1.0, 2.0**29.9):
            for dtype in ("float32", "float64"):
                queries, gallery = (rows * ours).astype(dtype), (rows * theirs).astype(dtype)
                for name, basis in bases(rng, rows).items():
                    assert reach(metric, queries, gallery, basis).all(), (ours, theirs, name)


def sums_that_round_one_way(num_dims, share):
    """A unit vector whose square sums up with the same error at each addition.

    The sum starts in [0.5, 1), where float32 has the spacing 2⁻²⁴; each further term is
    `share` of that, so a share below a half is lost and one above it counts as a whole.
    """
    small = np.sqrt(share * 2.0**-24)
    row = np.full(num_dims, small)
    row[0] = np.sqrt(1 - (num_dims - 1) * small * small)
    return row[None]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("num_dims", [100, 512, 2048])
def test_rounding_errors_of_one_sign_are_within_the_slack_and_beyond_none(metric, num_dims):
    row = sums_that_round_one_way(num_dims, 0.49)
    reached = {"metric": metric, "queries": row, "gallery": row, "basis": None}
    assert reach(**reached, product=one_after_the_other).all()
    if metric != "l2":  # whose own margin for the comparison is as large as the error here
        assert not reach(**reached, product=one_after_the_other, slack=0.0).any()


def chunks_one_after_the_other(rows, basis, result):
    """`_product_by_chunks` for a basis of one direction, in the worst of all orders."""
    result[:, 0] = 0
    for start in range(0, rows.shape[1], 128):
        part = slice(start, start + 128)
        result[:, 0] += one_after_the_other(rows[:, part], basis[part])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("num_dims", [100, 512])
def test_a_prefix_that_is_too_short_by_rounding_is_within_the_slack(monkeypatch, metric, num_dims):
    monkeypatch.setattr(module, "_product_by_chunks", chunks_one_after_the_other)
    row = sums_that_round_one_way(num_dims, 0.49)
    basis = row.T.astype(np.float32)
    assert reach(metric, row, row, basis).all()
    if metric != "l2":
        assert not reach(metric, row, row, basis, slack=0.0).any()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", [1e-4, 1e-3, 2e-3, 3e-3])
def test_a_prefix_that_is_too_long_by_rounding_leaves_tail_enough(monkeypatch, metric, size):
    # The row is nearly the basis' direction, and the query all of what is left of it: the
    # score is the row's tail, which is smaller than the rounding of its prefix.
    monkeypatch.setattr(module, "_product_by_chunks", chunks_one_after_the_other)
    direction = np.append(sums_that_round_one_way(127, 0.51), [[0.0]], axis=1)
    rest = np.zeros((1, 128))
    rest[0, -1] = 1
    row = np.sqrt(1 - size * size) * direction + size * rest
    assert reach(metric, rest, row, direction.T.astype(np.float32)).all()


@pytest.mark.parametrize("metric", METRICS)
def test_a_negative_slack_loses_pairs(metric):
    rng = np.random.default_rng(0)
    queries, gallery = (side.astype("float32") for side in identical(rng, (64, 50)))
    for name, basis in bases(rng, gallery).items():
        if name in ("none", "all directions"):
            assert not reach(metric, queries, gallery, basis, slack=-1e-3).any(), name


@pytest.mark.parametrize("metric", METRICS)
def test_a_floor_out_of_reach_drops_the_pair_and_none_lets_it_pass(metric):
    rng = np.random.default_rng(1)
    queries, gallery = isotropic(rng, (30, 64))
    keys = keys_of(metric, queries, gallery)
    bounds = Bounds(metric, Rows.prepare(queries), None)
    block = prepare(gallery, buffer_for(gallery))
    weights, offsets = bounds.row_terms(block)
    products = matrix_product(bounds.gallery_operand(block), bounds.operand)
    assert not (products >= bounds.limits(keys + 1e-4) * weights + offsets).any()
    everything = bounds.limits(np.full(30, -np.inf)) * weights + offsets
    assert (products >= everything).all()


@pytest.mark.parametrize("metric", METRICS)
def test_floors_of_rows_that_are_not_tame_do_not_warn(metric):
    rows = np.eye(2)
    bounds = Bounds(metric, Rows.prepare(rows), None)
    far = {"cosine": -1.0, "ip": -1e200, "l2": -1e200}[metric]
    assert (bounds.limits(np.array([far, far])) <= -1).all()


@pytest.mark.parametrize("depth", [1, 2])
def test_tails_are_never_below_the_exact_ones(depth):
    rng = np.random.default_rng(depth)
    for size in (1.0, 1e-3, 1e-5, 0.0):
        directions = np.linalg.qr(rng.normal(size=(6, depth)))[0].astype(np.float32)
        rows = directions @ rng.normal(size=depth) + size * rng.normal(size=(20, 6))
        rows = rows.astype(np.float32)
        bounds = Bounds("cosine", Rows.prepare(rows), directions)
        operand = bounds.gallery_operand(prepare(rows, buffer_for(rows)))
        basis = [[Fraction(float(v)) for v in column] for column in directions.T]
        if depth == 2:  # Gram and Schmidt
            share = dot(basis[0], basis[1]) / dot(basis[0], basis[0])
            basis[1] = [b - share * a for a, b in zip(*basis, strict=True)]
        for row, tail in zip(rows, operand[:, -1], strict=True):
            exact = [Fraction(float(v)) for v in row]
            held = sum(dot(exact, axis) ** 2 / dot(axis, axis) for axis in basis)
            assert Fraction(float(tail)) ** 2 >= dot(exact, exact) - held


def dot(ours, theirs):
    return sum(a * b for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("depth", [None, 1, 3, 6])
def test_bound_and_slack_reach_the_product_in_exact_arithmetic(depth):
    rng = np.random.default_rng(6)
    queries, gallery = (side.astype(np.float32) for side in concentrated(rng, (20, 6)))
    basis = None if depth is None else principal_directions(gallery, depth)
    bounds = Bounds("ip", Rows.prepare(queries), basis)
    operand = bounds.gallery_operand(prepare(gallery, buffer_for(gallery)))
    products = operand @ bounds.operand
    with localcontext() as context:
        context.prec = 60
        for row, theirs in enumerate(gallery):
            for query, ours in enumerate(queries):
                q, g = ([Fraction(float(v)) for v in side] for side in (ours, theirs))
                length_q, length_g = as_decimal(dot(q, q)).sqrt(), as_decimal(dot(g, g)).sqrt()
                bound = Decimal(float(products[row, query])) + Decimal(bounds.slack) * length_g
                assert bound * length_q >= as_decimal(dot(q, g))


def as_decimal(fraction):
    return Decimal(fraction.numerator) / Decimal(fraction.denominator)


def test_a_bound_worked_by_hand():
    # Prefix 0.6 and tail 0.8 of the query; 4 and 3 of both rows: 0.6·4 + 0.8·3 = 4.8, which the
    # first row reaches and the second, mirrored, does not.
    queries, gallery = np.array([[0.6, 0.8]]), np.array([[4.0, 3.0], [4.0, -3.0]])
    bounds = Bounds("ip", Rows.prepare(queries), np.array([[1.0], [0.0]], np.float32))
    operand = bounds.gallery_operand(prepare(gallery, buffer_for(gallery)))
    assert operand == pytest.approx(np.array([[4, 3], [4, 3]]), rel=1e-4)
    assert bounds.operand[:, 0] == pytest.approx([0.6, 0.8], rel=1e-6)
    assert operand @ bounds.operand == pytest.approx(4.8, rel=1e-4)
    assert bounds.limits(np.array([4.8])) == pytest.approx(4.8)


def test_the_slack_is_small():
    rng = np.random.default_rng(2)
    rows = Rows.prepare(unit(rng.normal(size=(2, 512))))
    basis = np.linalg.qr(rng.normal(size=(512, 32)))[0].astype(np.float32)
    assert 2.0**-20 < Bounds("cosine", rows, basis).slack < 1e-4
    assert 2.0**-20 < Bounds("cosine", rows, None).slack < 1e-4


@pytest.mark.parametrize("num", [1, 3, 40])
def test_principal_directions_are_orthonormal_and_the_leading_come_first(num):
    rng = np.random.default_rng(3)
    sizes = 0.5 ** np.arange(40)
    turn = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    rows = unit((rng.normal(size=(500, 40)) * sizes) @ turn).astype(np.float32)
    basis = principal_directions(rows, num)
    assert basis.dtype == np.float32
    assert basis.T.astype(np.float64) @ basis == pytest.approx(np.eye(num), abs=1e-6)
    held = ((rows.astype(np.float64) @ basis) ** 2).mean(axis=0)
    assert (np.diff(held) <= 1e-6).all()
    best = np.linalg.eigvalsh(rows.T.astype(np.float64) @ rows / 500)[::-1]
    assert held.sum() >= 0.95 * best[:num].sum()
