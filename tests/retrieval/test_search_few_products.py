"""Products of rows and few queries against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from retrieval.search.small_gemm import few_products, padded


@pytest.mark.parametrize("num_rows", [1, 2, 3, 8])
@pytest.mark.parametrize("num_queries", [1, 3, 4, 5, 12])
@pytest.mark.parametrize("dim", [1, 7, 64, 513])
def test_equals_the_product_within_its_rounding(num_rows, num_queries, dim):
    rng = np.random.default_rng(dim)
    rows = rng.normal(size=(num_rows, dim)).astype(np.float32)
    queries = rng.normal(size=(num_queries, dim)).astype(np.float32)
    wide = padded(queries)
    assert len(wide) == -(-num_queries // 4) * 4
    assert wide[:num_queries].tobytes() == queries.tobytes()
    assert not wide[num_queries:].any()
    result = np.full((num_rows, len(wide)), np.nan, np.float32)
    few_products(rows, wide, result)
    exact = rows.astype(np.float64) @ wide.astype(np.float64).T
    most = dim * 2.0**-24 * (np.abs(rows).astype(np.float64) @ np.abs(wide).astype(np.float64).T)
    assert (np.abs(result - exact) <= 1.01 * most).all()


def test_small_whole_numbers_are_exact():
    rows = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.float32)
    result = np.empty((3, 4), np.float32)
    few_products(rows, padded(np.array([[1, 0, -1], [2, 2, 2]], np.float32)), result)
    assert result.tolist() == [[-2, 12, 0, 0], [-2, 30, 0, 0], [-2, 48, 0, 0]]
